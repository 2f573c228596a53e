/*
 * Learn: who decides how deep a cluster sleeps. In platform-coordinated mode, where every system starts, the firmware takes
 * the shallowest state that all CPUs voted for. In OS-initiated mode the last CPU to go says it, and the firmware
 * believes it. SET_SUSPEND_MODE changes the mode, but only while the firmware knows what every CPU is doing: to
 * OS-initiated if all CPUs are ON, or all but the caller OFF; back only if all but the caller are OFF. Else it is DENIED.
 *
 * Prints: what PSCI_FEATURES says of the mode, then each SET_SUSPEND_MODE with its answer, with none, one and all of the
 * other CPUs on.
 *
 * At PSCI 0.2: nothing; the modes come with 1.0, and there they are optional. Neither KVM nor QEMU has them.
 */
#include "lib/console.h"
#include "lib/machine.h"
#include "lib/psci.h"

enum {
    PLATFORM_COORDINATED = 0,
    OS_INITIATED = 1,
    NO_SUCH_MODE = 2,
};

static uint32_t arrived[MAX_CPUS];

SECONDARY_ENTRY(other_entry, other_main);

void other_main(uint64_t context_id)
{
    publish(&arrived[context_id], 1);
    park();
}

static answer set(uint32_t mode)
{
    static const char *const names[] = { "platform-coordinated", "OS-initiated", "no such mode" };
    answer value = set_suspend_mode(mode);

    print("    SET_SUSPEND_MODE(%s): %s\n", names[mode], answer_name(value));
    return value;
}

static void turn_on(unsigned n)
{
    answer value = cpu_on(cpu_mpidr[other_cpu(n)], other_entry, other_cpu(n));

    if (value != SUCCESS)
        fail("CPU_ON of CPU %lx: %s", cpu_mpidr[other_cpu(n)], answer_name(value));
    if (!await(&arrived[other_cpu(n)], 1))
        fail("CPU %lx did not come", cpu_mpidr[other_cpu(n)]);
}

static bool there_and_back(const char *title, bool alone)
{
    print("  %s:\n", title);

    bool there = set(OS_INITIATED) == SUCCESS;

    if (there && set(OS_INITIATED) != SUCCESS)
        fail("the mode that is set already is no change");
    if (set(PLATFORM_COORDINATED) != SUCCESS && (alone || !there))
        fail("the mode that every system starts in was refused");
    return there;
}

static void show_features(void)
{
    answer suspend = psci_features(CPU_SUSPEND_64), mode = psci_features(SET_SUSPEND_MODE);

    if (suspend < 0)
        fail("PSCI_FEATURES(CPU_SUSPEND): %s", answer_name(suspend));
    print("  PSCI_FEATURES(CPU_SUSPEND): OS-initiated mode %s\n", suspend & FEATURE_OS_INITIATED ? "offered" : "not offered");
    print("  PSCI_FEATURES(SET_SUSPEND_MODE): %s\n", answer_name(mode < 0 ? mode : SUCCESS));
    if (mode < 0 && suspend & FEATURE_OS_INITIATED)
        fail("a mode is offered that cannot be set");
    if (mode < 0)
        nothing_to_show("platform-coordinated is the only mode");
}

void guest_main(void)
{
    need_cpus(3);
    print("os-initiated: %u CPUs\n", device_tree.cpu_count);
    if (offered_version() < PSCI_1_0)
        nothing_to_show("PSCI below 1.0 has one mode, platform-coordinated");
    show_features();

    bool alone = there_and_back("the boot CPU alone is on", true);

    if (set(NO_SUCH_MODE) == SUCCESS)
        fail("a mode that does not exist was set");
    turn_on(0);
    there_and_back("one more CPU is on, and others are off", false);
    for (unsigned n = 1; n < device_tree.cpu_count - 1; n++)
        turn_on(n);

    bool together = there_and_back("all CPUs are on", false);

    print("PASS: OS-initiated mode %s\n", alone || together ? "could be set" : "could not be set");
    power_off();
}
