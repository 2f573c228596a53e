/*
 * All CPUs but the second call CPU_ON for the second at once, several times over. One gets SUCCESS, the others ALREADY_ON
 * or ON_PENDING, and the target runs once, with the winner's context_id.
 *
 * Each round prints who won and how many got which refusal; who wins is the scheduler's choice.
 */
#include "smp.h"

#include "console.h"
#include "report.h"

#define ROUNDS                  3u
#define TARGET                  1u
#define HEAD_START_TICKS        30000ul     /* of 16 ns: several turns of each CPU, where CPUs take turns */
#define TURNS_A_READ            64u
#define NOBODY                  0xffffffffu

static answer replies[IMAGE_CPUS];
static uint32_t called;                     /* how many callers have, in all rounds */
static volatile uint32_t round, released, entered;
static volatile uint64_t start_ticks;
static unsigned callers;
static volatile uint64_t entered_with;

/* context_id is an address, as secondary_entry wants it; each caller gives the target another one, to tell the winner by. */
static struct cpu targets[IMAGE_CPUS];

static uint64_t counter_ticks(void)
{
    uint64_t ticks;

    __asm__ volatile("isb\n mrs %0, cntvct_el0" : "=r"(ticks) : : "memory");
    return ticks;
}

/* All go at a common time: a flag would favour the CPU that sets it. The counter may cost a trap, so it is read now and then. */
static void call(unsigned i)
{
    while (counter_ticks() < start_ticks)
        for (unsigned turn = 0; turn < TURNS_A_READ; turn++)
            __asm__ volatile("yield" : : : "memory");
    replies[i] = cpu_on(cpu_mpidr[TARGET], secondary_entry, (uintptr_t)&targets[i]);
    atomic_add(&called, 1);
    __asm__ volatile("sev");
}

/* Stays on until all have called: a target that is off again may be started again. */
static void target(struct cpu *cpu)
{
    entered_with = (uintptr_t)cpu;
    announce(&entered, entered + 1);
    await_word(&released, round);
    cpu_off();
}

static void caller(struct cpu *cpu)
{
    for (uint32_t next = 1; next <= ROUNDS; next++) {
        await_word(&round, next);
        call((unsigned)(cpu - cpus));
    }
    cpu_off();
}

static void judge(unsigned count, uint32_t number)
{
    unsigned winners = 0, winner = NOBODY, already_on = 0, on_pending = 0, others = 0;

    for (unsigned i = 0; i < count; i++) {
        if (i == TARGET)
            continue;
        if (replies[i] == SUCCESS) {
            winners++;
            winner = i;
        } else {
            already_on += replies[i] == ALREADY_ON;
            on_pending += replies[i] == ON_PENDING;
            others += replies[i] != ALREADY_ON && replies[i] != ON_PENDING;
        }
    }
    print("INFO: round %u: winners %u, the last is CPU %u; ALREADY_ON %u, ON_PENDING %u, other %u\n",
          number, winners, winner, already_on, on_pending, others);
    report(winners == 1 && others == 0, "round %u: one wins, and the others are told", number);
    if (winners != 0)
        await_word(&entered, number);
    report(entered == number && entered_with == (uintptr_t)&targets[winner % IMAGE_CPUS],
           "round %u: the target runs once, with the winner's context_id", number);
}

static void race(unsigned count, uint32_t number)
{
    start_ticks = counter_ticks() + HEAD_START_TICKS;
    announce(&round, number);
    call(0);
    await_word(&called, number * callers);
    judge(count, number);
    announce(&released, number);
    report(await_off(cpu_mpidr[TARGET]), "round %u: the target is OFF", number);
}

int image_main(uintptr_t x0)
{
    struct device_tree tree;
    int lacks = smp_prepare(x0, &tree, caller);

    if (lacks != 0)
        return lacks;
    if (tree.cpu_count < 2) {
        print("FAIL: this image wants a second CPU\n");
        return EXIT_LACKS;
    }
    for (unsigned i = 0; i < IMAGE_CPUS; i++)
        targets[i] = (struct cpu){ .stack_top = cpus[TARGET].stack_top, .main = target };
    callers = tree.cpu_count - 1;
    print("race: %u CPUs\n", tree.cpu_count);
    for (unsigned i = TARGET + 1; i < tree.cpu_count; i++)
        if (cpu_on(cpu_mpidr[i], secondary_entry, (uintptr_t)&cpus[i]) != SUCCESS)
            report(false, "CPU %u starts", i);
    for (uint32_t number = 1; number <= ROUNDS; number++)
        race(tree.cpu_count, number);
    for (unsigned i = TARGET + 1; i < tree.cpu_count; i++)
        report(await_off(cpu_mpidr[i]), "CPU %u is OFF", i);
    if (summary() == 0)
        system_off();
    return 1;
}
