/*
 * Learn: CPU_ON is atomic. However many CPUs call it at once for the same target, one gets SUCCESS and the target runs
 * once, with the winner's context_id. Hosts get this wrong: QEMU 7.2 with a thread for each CPU (`-accel tcg` alone) has
 * told up to all four callers SUCCESS (observed, undocumented); with `thread=single` it tells one.
 *
 * Prints: "winners: 1, refused: 3" and PASS. Not who won: that is nobody's promise.
 *
 * At PSCI 0.2: the losers get ALREADY_ON, or ON_PENDING while the target is on its way; 0.1 has neither code and says
 * INVALID_PARAMETERS, so there a loser cannot tell a race from a mistake.
 */
#include "lib/console.h"
#include "lib/machine.h"
#include "lib/psci.h"

#define CALLERS             4u  /* the boot CPU and three others; the fifth CPU is the target */
#define HEAD_START_MICROSECONDS 40

/* What each caller writes, and only it. */
struct caller {
    uint32_t ready, done;
    answer reply;
};

static struct caller callers[CALLERS];

/* The target's own. */
static struct {
    uint64_t context_id;
    uint32_t times_entered;
} target;

/* The boot CPU's: the counter value at which all call. */
static uint64_t start_ticks;
static uint32_t start_is_set;

SECONDARY_ENTRY(caller_entry, caller_main);
SECONDARY_ENTRY(target_entry, target_main);

void target_main(uint64_t context_id)
{
    target.context_id = context_id;
    publish(&target.times_entered, target.times_entered + 1);
    park();
}

/* A common point in time, since a flag would reach the CPUs one by one. context_id says who won. */
static void race(uint32_t number)
{
    struct caller *caller = &callers[number];

    wait_until(start_ticks);
    caller->reply = cpu_on(cpu_mpidr[other_cpu(CALLERS - 1)], target_entry, number);
    publish(&caller->done, 1);
}

void caller_main(uint64_t context_id)
{
    publish(&callers[context_id].ready, 1);
    wait_for(&start_is_set, 1);
    race((uint32_t)context_id);
    park();
}

static bool is_refusal(answer reply)
{
    if (reply == ALREADY_ON || reply == ON_PENDING)
        return true;    /* under 0.1 too: QEMU answers the old IDs with the new codes */
    return device_tree.psci.binding == BINDING_PSCI_0_1 && reply == INVALID_PARAMETERS;
}

static void assemble(void)
{
    for (uint32_t number = 1; number < CALLERS; number++) {
        answer reply = cpu_on(cpu_mpidr[other_cpu(number - 1)], caller_entry, number);

        if (reply != SUCCESS)
            fail("CPU_ON of caller %u: %s", number, answer_name(reply));
    }
    for (uint32_t number = 1; number < CALLERS; number++)
        if (!await(&callers[number].ready, 1))
            fail("caller %u did not come", number);
}

static void judge(void)
{
    uint32_t winners = 0, refused = 0, winner = 0;

    for (uint32_t number = 0; number < CALLERS; number++) {
        answer reply = callers[number].reply;

        if (reply == SUCCESS) {
            winners++;
            winner = number;
        } else if (is_refusal(reply)) {
            refused++;
        } else {
            fail("a caller got %s", answer_name(reply));
        }
    }
    print("  winners: %u, refused: %u\n", winners, refused);
    if (winners != 1)
        fail("one caller must win");
    if (!await(&target.times_entered, 1))
        fail("the target was entered %u times", observe(&target.times_entered));
    if (target.context_id != winner)
        fail("the target has context_id %lx, which is not the winner's", target.context_id);
    print("PASS: the target runs once, with the winner's context_id\n");
}

void guest_main(void)
{
    need_cpus(CALLERS + 1);
    print("race: %u CPUs call CPU_ON for one target\n", CALLERS);
    assemble();
    start_ticks = counter_ticks() + microseconds_to_ticks(HEAD_START_MICROSECONDS);
    publish(&start_is_set, 1);
    race(0);
    for (uint32_t number = 0; number < CALLERS; number++)
        if (!await(&callers[number].done, 1))
            fail("caller %u has no answer", number);
    judge();
    power_off();
}
