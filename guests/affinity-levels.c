/*
 * Learn: AFFINITY_INFO asks about more than CPUs. lowest_affinity_level says which affinity field counts: at level 0
 * target_affinity is one CPU, at level 1 everything with the same Aff1 and above (a cluster), and so on. An instance is
 * ON as soon as one of its CPUs is. Firmware need not know levels above 0, and has more than one way not to.
 *
 * Prints: per level the state of each instance that the device tree's CPUs make up, with the boot CPU alone, with the
 * last CPU on too, and with that one off again; then what the firmware says of instances and levels that do not exist.
 *
 * At PSCI 0.2: the call appears, with all four levels; since 1.0 those above 0 are optional. Under 0.1 nothing tells
 * whether a CPU is on.
 */
#include "lib/console.h"
#include "lib/machine.h"
#include "lib/psci.h"

#define LEVELS          4u
#define NO_SUCH_AFF1    0xfe00ul

/* The last CPU's. */
static uint32_t arrived, may_leave;

SECONDARY_ENTRY(last_entry, last_main);

void last_main(uint64_t context_id)
{
    publish(&arrived, 1);
    wait_for(&may_leave, (uint32_t)context_id);
    cpu_off();
    park();
}

/* The fields from this level up. Aff3 is not beside Aff2. */
static uint64_t instance(uint64_t mpidr, uint32_t level)
{
    return level == 3 ? mpidr & 0xff00000000ul : mpidr & MPIDR_AFFINITY & ~0ul << 8 * level;
}

static bool is_first_of_instance(unsigned index, uint32_t level)
{
    for (unsigned earlier = 0; earlier < index; earlier++)
        if (instance(cpu_mpidr[earlier], level) == instance(cpu_mpidr[index], level))
            return false;
    return true;
}

static bool holds(uint64_t target_affinity, uint32_t level, unsigned index)
{
    return instance(cpu_mpidr[index], level) == target_affinity;
}

/* Only a wrong answer about a CPU, or OFF for an instance with a CPU that runs, breaks the rule; a refusal does not. */
static void check(uint64_t target_affinity, uint32_t level, bool is_on, answer value)
{
    if (level == 0 && value != (is_on ? AFFINITY_ON : AFFINITY_OFF))
        fail("CPU %lx is %s", target_affinity, is_on ? "on" : "off");
    if (is_on && value == AFFINITY_OFF)
        fail("a CPU of %lx is on", target_affinity);
}

static void show_levels(const char *title, unsigned also_on)
{
    print("  %s:\n", title);
    for (uint32_t level = 0; level < LEVELS; level++) {
        print("    level %u:", level);
        for (unsigned index = 0; index < device_tree.cpu_count; index++) {
            uint64_t target_affinity = instance(cpu_mpidr[index], level);

            if (!is_first_of_instance(index, level))
                continue;

            answer value = affinity_info(target_affinity, level);

            print(" %lx %s", target_affinity, affinity_name(value));
            check(target_affinity, level,
                  holds(target_affinity, level, boot_cpu) || holds(target_affinity, level, also_on), value);
        }
        print("\n");
    }
}

static void show_what_does_not_exist(void)
{
    answer cpu = affinity_info(NO_SUCH_AFF1, 0), cluster = affinity_info(NO_SUCH_AFF1, 1), level = affinity_info(0, LEVELS);

    print("  no such CPU: %s\n", affinity_name(cpu));
    print("  no such cluster: %s\n", affinity_name(cluster));
    print("  level %u: %s\n", LEVELS, affinity_name(level));
    if (cpu >= 0)
        fail("a CPU that does not exist has a state");
    if (affinity_info(instance(cpu_mpidr[boot_cpu], 1), 1) < 0)
        print("  this firmware knows single CPUs, and refuses what is above\n");
    else if (cluster >= 0)
        print("  this firmware knows single CPUs, and says the same of everything above\n");
    else
        print("  this firmware knows every level\n");
}

void guest_main(void)
{
    need_cpus(2);
    if (offered_version() < PSCI_0_2)
        nothing_to_show("PSCI 0.1 has no AFFINITY_INFO");

    unsigned last = other_cpu(device_tree.cpu_count - 2);

    print("affinity-levels: %u CPUs\n", device_tree.cpu_count);
    show_levels("the boot CPU is on", boot_cpu);

    answer value = cpu_on(cpu_mpidr[last], last_entry, 1);

    if (value != SUCCESS)
        fail("CPU_ON of CPU %lx: %s", cpu_mpidr[last], answer_name(value));
    if (!await(&arrived, 1))
        fail("CPU %lx did not come", cpu_mpidr[last]);
    show_levels("the last CPU is on too", last);
    publish(&may_leave, 1);
    if (!await_off(cpu_mpidr[last]))
        fail("AFFINITY_INFO never said OFF");
    show_levels("the last CPU is off again", boot_cpu);
    show_what_does_not_exist();
    print("PASS: no instance with a CPU that runs was called OFF\n");
    power_off();
}
