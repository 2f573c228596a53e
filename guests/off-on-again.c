/*
 * Learn: a CPU's life in PSCI's terms. CPU_ON of a running CPU is refused; CPU_OFF is called by the CPU itself and does
 * not return; when it has taken effect only AFFINITY_INFO tells; and the next CPU_ON starts from nothing, with another
 * entry point and another context_id.
 *
 * Prints: one line a round with the entry point, context_id and each answer, then PASS.
 *
 * At PSCI 0.2: AFFINITY_INFO exists, and so the moment a CPU is off can be seen. Under 0.1 the only way is to repeat
 * CPU_ON until it succeeds. A running CPU is ALREADY_ON from 0.2 on; 0.1 has no such code and says INVALID_PARAMETERS.
 */
#include "lib/console.h"
#include "lib/machine.h"
#include "lib/psci.h"

#define ROUNDS              4u
#define CONTEXT_ID(round)   (0x0ff0000000000000ul | (round))
#define RETRY_MICROSECONDS  20

enum entry {
    FIRST_ENTRY,
    SECOND_ENTRY,
};

/* Written by the CPU that goes off and on. */
static struct {
    uint64_t context_id;
    enum entry entry;
    answer cpu_off;
    uint32_t entered, cpu_off_returned;
} it;

/* Written by the boot CPU: the round that runs, and the last round the other CPU may leave. */
static uint32_t round_number, may_leave;

SECONDARY_ENTRY(first_entry, first_main);
SECONDARY_ENTRY(second_entry, second_main);

static void __attribute__((noreturn)) live(uint64_t context_id, enum entry entry)
{
    uint32_t this_round = observe(&round_number);

    it.context_id = context_id;
    it.entry = entry;
    publish(&it.entered, this_round);
    wait_for(&may_leave, this_round);
    it.cpu_off = cpu_off();
    publish(&it.cpu_off_returned, 1);
    park();
}

void first_main(uint64_t context_id)
{
    live(context_id, FIRST_ENTRY);
}

void second_main(uint64_t context_id)
{
    live(context_id, SECOND_ENTRY);
}

/* Under 0.1 the CPU may still be on its way off, and nothing says when it is. */
static answer cpu_on_patiently(uint64_t target_cpu, void (*entry_point_address)(void), uint64_t context_id)
{
    unsigned attempts = device_tree.psci.binding == BINDING_PSCI_0_1 ? 5000 : 1;
    answer value;

    while ((value = cpu_on(target_cpu, entry_point_address, context_id)) != SUCCESS && --attempts != 0)
        wait_until(counter_ticks() + microseconds_to_ticks(RETRY_MICROSECONDS));
    return value;
}

static bool right_refusal(answer value)
{
    if (value == ALREADY_ON)
        return true;    /* under 0.1 too: QEMU answers the old IDs with the new codes */
    return device_tree.psci.binding == BINDING_PSCI_0_1 && value == INVALID_PARAMETERS;
}

static void check_entry(uint64_t context_id, enum entry entry)
{
    if (it.context_id != context_id)
        fail("x0 is %lx", it.context_id);
    if (it.entry != entry)
        fail("entered at %s", it.entry == FIRST_ENTRY ? "first_entry" : "second_entry");
}

static void check_running(uint64_t target_cpu)
{
    answer refusal = cpu_on(target_cpu, first_entry, 0);

    print("; CPU_ON again %s", answer_name(refusal));
    if (!right_refusal(refusal))
        fail("a running CPU was started");
    if (device_tree.psci.binding == BINDING_PSCI_0_1)
        return;

    answer affinity = affinity_info(target_cpu, 0);

    if (affinity != AFFINITY_ON)
        fail("AFFINITY_INFO of a running CPU: %d", (int32_t)affinity);
    print("; AFFINITY_INFO ON");
}

static void check_off(uint64_t target_cpu)
{
    bool off = device_tree.psci.binding == BINDING_PSCI_0_1 || await_off(target_cpu);

    if (observe(&it.cpu_off_returned))
        fail("CPU_OFF returned: %s", answer_name(it.cpu_off));
    if (!off)
        fail("AFFINITY_INFO never said OFF");
    if (device_tree.psci.binding != BINDING_PSCI_0_1)
        print(", then OFF");
    print("\n");
}

static void live_once(uint64_t target_cpu, uint32_t round)
{
    enum entry entry = round % 2 == 1 ? FIRST_ENTRY : SECOND_ENTRY;

    publish(&round_number, round);

    answer value = cpu_on_patiently(target_cpu, entry == FIRST_ENTRY ? first_entry : second_entry, CONTEXT_ID(round));

    print("  round %u: CPU_ON %s", round, answer_name(value));
    if (value != SUCCESS)
        fail("a CPU that is off was not started");
    if (!await(&it.entered, round))
        fail("the CPU was never seen");
    print(", in %s with context_id %lx", it.entry == FIRST_ENTRY ? "first_entry" : "second_entry", it.context_id);
    check_entry(CONTEXT_ID(round), entry);
    check_running(target_cpu);
    publish(&may_leave, round);
    check_off(target_cpu);
}

void guest_main(void)
{
    need_cpus(2);

    uint64_t target_cpu = cpu_mpidr[other_cpu(0)];

    print("off-on-again: CPU %lx, %u rounds\n", target_cpu, ROUNDS);
    for (uint32_t round = 1; round <= ROUNDS; round++)
        live_once(target_cpu, round);
    print("PASS: %u times on\n", ROUNDS);
    power_off();
}
