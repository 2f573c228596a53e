/*
 * Learn: an SMC32 call has 32-bit arguments. Whoever hands CPU_ON's SMC32 form a 64-bit entry point or context_id (NuttX
 * did) loses the upper halves on hosts that follow SMCCC, and keeps them on hosts that read whole registers: the same
 * mistake, two outcomes. The SMC64 form, 0xc400_0003, is there for this.
 *
 * Prints: what becomes of junk in the upper half of context_id, of target_cpu, and, only where that is safe to try, of
 * the entry point; then whether this host truncates.
 *
 * At PSCI 0.2: the two forms exist. 0.1 has one function ID for CPU_ON and says nothing of widths.
 */
#include "lib/conduit.h"
#include "lib/console.h"
#include "lib/machine.h"
#include "lib/psci.h"

#define JUNK        (0xdeadbeeful << 32)
#define CONTEXT_ID  0x1234u

static uint64_t seen_context_id;
static uint32_t entered, may_leave;     /* how often: the second CPU's, and the boot CPU's */

SECONDARY_ENTRY(second_entry, second_main);

void second_main(uint64_t context_id)
{
    uint32_t time = entered + 1;

    seen_context_id = context_id;
    publish(&entered, time);
    wait_for(&may_leave, time);
    cpu_off();
    park();
}

static answer cpu_on_32(uint64_t target_cpu, uint64_t entry_point_address, uint64_t context_id)
{
    struct results results = smccc_call(device_tree.psci.method, CPU_ON_32, target_cpu, entry_point_address, context_id);

    return results.undefined ? UNDEF : (int32_t)results.x0;
}

static void let_it_go(uint64_t target_cpu)
{
    publish(&may_leave, may_leave + 1);
    if (!await_off(target_cpu))
        fail("CPU %lx did not go off", target_cpu);
}

static void await_entry(void)
{
    if (!await(&entered, may_leave + 1))
        fail("CPU_ON succeeded, and the CPU was never seen");
}

static bool context_id_is_truncated(uint64_t target_cpu)
{
    answer value = cpu_on_32(target_cpu, (uintptr_t)second_entry, JUNK | CONTEXT_ID);

    if (value != SUCCESS)
        fail("CPU_ON: %s", answer_name(value));
    await_entry();
    print("  context_id %lx: SUCCESS, arrives as %lx\n", JUNK | CONTEXT_ID, seen_context_id);
    if ((uint32_t)seen_context_id != CONTEXT_ID)
        fail("its lower half was %x", CONTEXT_ID);
    let_it_go(target_cpu);
    return seen_context_id == CONTEXT_ID;
}

static bool target_cpu_is_truncated(uint64_t target_cpu)
{
    answer value = cpu_on_32(JUNK | target_cpu, (uintptr_t)second_entry, CONTEXT_ID);

    print("  target_cpu %lx: %s\n", JUNK | target_cpu, answer_name(value));
    if (value != SUCCESS)
        return false;
    await_entry();
    let_it_go(target_cpu);
    return true;
}

static void start_at_junk(uint64_t target_cpu)
{
    answer value = cpu_on_32(target_cpu, JUNK | (uintptr_t)second_entry, CONTEXT_ID);

    print("  entry_point_address with the same junk: %s\n", answer_name(value));
    if (value != SUCCESS)
        return;
    await_entry();
    print("  the CPU arrives at the lower half of it\n");
    let_it_go(target_cpu);
}

void guest_main(void)
{
    need_cpus(2);
    if (offered_version() < PSCI_0_2)
        nothing_to_show("PSCI 0.1 has no SMC32 form of CPU_ON");

    uint64_t target_cpu = cpu_mpidr[other_cpu(0)];

    print("smc32-cpu-on: CPU %lx\n", target_cpu);

    bool context_id = context_id_is_truncated(target_cpu), target = target_cpu_is_truncated(target_cpu);

    if (context_id && target)
        start_at_junk(target_cpu);
    else
        print("  entry_point_address with the same junk: not tried, the CPU would start there\n");
    print("PASS: this host %s\n", context_id && target ? "truncates: the upper halves are not arguments"
          : context_id || target ? "truncates some arguments" : "reads whole registers: junk in an upper half counts");
    power_off();
}
