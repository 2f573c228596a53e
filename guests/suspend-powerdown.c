/*
 * Learn: a powerdown power_state takes the CPU's state away. When the CPU wakes up, the call has not returned: the CPU is
 * at the entry point, with context_id in x0 and nothing else, as after CPU_ON. But firmware may turn the request into a
 * standby, as KVM and QEMU always do: then the call returns SUCCESS. So a caller prepares for both.
 *
 * Prints: the format of power_state, the answer to one with a reserved bit set, and where the powerdown ended.
 *
 * At PSCI 0.2: the call has standard function IDs. The extended StateID format, in which StateType is bit 30 and no
 * longer bit 16, comes with 1.0, as does the PSCI_FEATURES bit that tells it.
 */
#include "lib/console.h"
#include "lib/machine.h"
#include "lib/psci.h"
#include "lib/timer.h"

#define SLEEP_MICROSECONDS  500
#define MOST_RETURNS        100000u
#define CONTEXT_ID          0x5a5a0000c0ffee00ul

static uint64_t deadline_ticks;

SECONDARY_ENTRY(resume_entry, resume_main);

static void __attribute__((noreturn)) end(const char *where)
{
    if (!reached(deadline_ticks, counter_ticks()))
        fail("awake before the deadline");
    wake_never();
    print("PASS: %s\n", where);
    power_off();
}

void resume_main(uint64_t context_id)
{
    print("  CPU_SUSPEND, powerdown: did not return; at the entry point with context_id %lx\n", context_id);
    if (context_id != CONTEXT_ID)
        fail("context_id was %lx", CONTEXT_ID);
    end("the CPU lost its state, and the entry point found it");
}

static bool is_extended(answer version)
{
    if (version < PSCI_1_0)
        return false;

    answer features = psci_features(CPU_SUSPEND_64);

    return features >= 0 && features & FEATURE_EXTENDED_STATE_ID;
}

static void arm(void)
{
    deadline_ticks = counter_ticks() + microseconds_to_ticks(SLEEP_MICROSECONDS);
    wake_at(deadline_ticks);
}

void guest_main(void)
{
    need_cpus(1);

    bool extended = is_extended(offered_version());
    uint32_t power_state = extended ? POWER_STATE_EXTENDED_POWERDOWN : POWER_STATE_POWERDOWN;

    print("suspend-powerdown: power_state %x, %s StateID\n", power_state, extended ? "extended" : "original");
    arm();

    answer value = cpu_suspend(POWER_STATE_RESERVED, resume_entry, CONTEXT_ID);

    print("  CPU_SUSPEND, reserved bit: %s\n", answer_name(value));
    arm();
    for (unsigned returns = 1;; returns++) {
        value = cpu_suspend(power_state, resume_entry, CONTEXT_ID);
        if (value != SUCCESS || reached(deadline_ticks, counter_ticks()))
            break;
        if (returns == MOST_RETURNS)    /* a CPU that lost nothing may return early, but not for ever */
            fail("%u returns, and the deadline is still ahead", returns);
    }
    print("  CPU_SUSPEND, powerdown: returned %s\n", answer_name(value));
    if (value == SUCCESS)
        end("it came back like a standby, with its state");
    wake_never();
    nothing_to_show("this firmware does not suspend");
}
