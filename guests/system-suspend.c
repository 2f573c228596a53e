/*
 * Learn: SYSTEM_SUSPEND, suspend to RAM. One CPU calls it when all others are OFF, and comes back at the entry point with
 * context_id in x0, having lost the rest. With another CPU on it is DENIED; but KVM does not look, and leaves it to the
 * VMM to find out. Here the caller's virtual timer wakes the system.
 *
 * Prints: what PSCI_FEATURES says, the call with a second CPU on, then, if that was DENIED, with the second CPU off.
 *
 * At PSCI 0.2: the call does not exist; it comes with 1.0 and is optional. KVM offers it where the VMM enabled the
 * capability, here by -cap system-suspend.
 */
#include "lib/console.h"
#include "lib/machine.h"
#include "lib/psci.h"
#include "lib/timer.h"

#define SLEEP_MICROSECONDS  500
#define CONTEXT_ID          0x5a5a0000bedd1e00ul

static uint64_t deadline_ticks;
static const char *company;                 /* who else is on */
static uint32_t arrived, may_leave;         /* the second CPU's, and the boot CPU's */

SECONDARY_ENTRY(second_entry, second_main);
SECONDARY_ENTRY(resume_entry, resume_main);

void second_main(uint64_t context_id)
{
    publish(&arrived, (uint32_t)context_id);
    wait_for(&may_leave, (uint32_t)context_id);
    cpu_off();
    park();
}

void resume_main(uint64_t context_id)
{
    print("  SYSTEM_SUSPEND, %s: did not return; at the entry point with context_id %lx\n", company, context_id);
    if (context_id != CONTEXT_ID)
        fail("context_id was %lx", CONTEXT_ID);
    if (!reached(deadline_ticks, counter_ticks()))
        fail("awake before the deadline");
    wake_never();
    print("PASS: suspended, and woken by the timer\n");
    power_off();
}

static answer suspend(void)
{
    deadline_ticks = counter_ticks() + microseconds_to_ticks(SLEEP_MICROSECONDS);
    wake_at(deadline_ticks);

    answer value = system_suspend(resume_entry, CONTEXT_ID);

    wake_never();
    print("  SYSTEM_SUSPEND, %s: %s\n", company, answer_name(value));
    return value;
}

static bool is_offered(void)
{
    answer features = psci_features(SYSTEM_SUSPEND_64);

    print("  PSCI_FEATURES(SYSTEM_SUSPEND): %s\n", answer_name(features < 0 ? features : SUCCESS));
    return features >= 0;
}

void guest_main(void)
{
    need_cpus(2);
    print("system-suspend: 2 CPUs\n");
    if (offered_version() < PSCI_1_0)
        nothing_to_show("PSCI below 1.0 has no SYSTEM_SUSPEND");
    if (!is_offered())
        nothing_to_show("there is no SYSTEM_SUSPEND");

    uint64_t target_cpu = cpu_mpidr[other_cpu(0)];
    answer value = cpu_on(target_cpu, second_entry, 1);

    if (value != SUCCESS)
        fail("CPU_ON of CPU %lx: %s", target_cpu, answer_name(value));
    if (!await(&arrived, 1))
        fail("CPU %lx did not come", target_cpu);
    company = "a second CPU on";
    if (suspend() != DENIED)
        fail("with another CPU on it is DENIED, or it suspends");
    publish(&may_leave, 1);
    if (!await_off(target_cpu))
        fail("CPU %lx did not go off", target_cpu);
    company = "alone";
    fail("it returned: %s", answer_name(suspend()));
}
