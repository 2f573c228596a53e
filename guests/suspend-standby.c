/*
 * Learn: CPU_SUSPEND with a standby power_state is a WFI by way of the firmware. It keeps all state, looks neither at
 * entry point nor at context_id, and returns SUCCESS when something wakes the CPU: here its virtual timer, whose
 * interrupt is never taken because PSTATE masks it. A masked interrupt wakes all the same.
 *
 * Prints: what CPU_SUSPEND answers in each of three rounds, and whether the CPU slept until its timer's deadline or came
 * back at once again and again. Where the call is refused it sleeps by WFI instead, and says so.
 *
 * At PSCI 0.2: the call has standard function IDs and is mandatory. Under 0.1 the device tree may name an ID for it, and
 * hosts exist (KVM) that refuse it even so.
 */
#include "lib/console.h"
#include "lib/machine.h"
#include "lib/psci.h"
#include "lib/timer.h"

#define ROUNDS              3u
#define SLEEP_MICROSECONDS  500
#define MOST_RETURNS        100000u     /* before the deadline; a CPU that never sleeps */
#define FEW_RETURNS         8u          /* waking early is allowed */

struct sleep {
    answer value;
    unsigned returns;
    bool too_early;
};

static answer wait_for_interrupt(void)
{
    __asm__ volatile("wfi" : : : "memory");
    return SUCCESS;
}

static answer standby(void)
{
    return cpu_suspend(POWER_STATE_STANDBY, 0, 0);
}

static struct sleep sleep_until(uint64_t deadline_ticks, answer (*by)(void))
{
    struct sleep sleep = { SUCCESS, 0, true };

    wake_at(deadline_ticks);
    while (sleep.value == SUCCESS && sleep.too_early && sleep.returns < MOST_RETURNS) {
        sleep.value = by();
        sleep.returns++;
        sleep.too_early = !reached(deadline_ticks, counter_ticks());
    }
    wake_never();
    return sleep;
}

static void show_round(uint32_t round, const char *name, answer (*by)(void))
{
    struct sleep sleep = sleep_until(counter_ticks() + microseconds_to_ticks(SLEEP_MICROSECONDS), by);

    print("  round %u: %s %s", round, name, answer_name(sleep.value));
    if (sleep.value != SUCCESS)
        print("\n");
    else if (sleep.returns <= FEW_RETURNS)
        print(", slept until the timer's deadline\n");
    else
        print(", came back early again and again\n");
    if (sleep.value == SUCCESS && sleep.too_early)
        fail("%u returns, and the deadline is still ahead", sleep.returns);
    if (sleep.value == SUCCESS || by == wait_for_interrupt)
        return;
    if (sleep.value != NOT_SUPPORTED || device_tree.psci.binding != BINDING_PSCI_0_1)
        fail("CPU_SUSPEND is mandatory from 0.2 on, and power_state 0 is a standby everywhere");
    show_round(round, "WFI", wait_for_interrupt);
}

void guest_main(void)
{
    need_cpus(1);
    print("suspend-standby: %u rounds of %u microseconds\n", ROUNDS, SLEEP_MICROSECONDS);
    for (uint32_t round = 1; round <= ROUNDS; round++)
        show_round(round, "CPU_SUSPEND", standby);
    print("PASS: the timer woke the CPU\n");
    power_off();
}
