/*
 * Learn: how a guest brings up all its CPUs. target_cpu is the reg of a cpu node, never a number counted by the guest;
 * context_id comes back in x0 of the CPU that was started, all 64 bits of it; CPU_ON only asks, so the caller waits
 * until the started CPU has written something.
 *
 * Prints: one line a CPU, in the device tree's order, then PASS. The boot CPU alone prints, so the output is the same
 * in whatever order the CPUs ran.
 *
 * At PSCI 0.2: CPU_ON has a standard function ID instead of one from the device tree, a refusal can say why (ALREADY_ON
 * and the other new codes), and SYSTEM_OFF ends the machine whatever the other CPUs are doing: here they wait in WFI.
 */
#include "lib/console.h"
#include "lib/machine.h"
#include "lib/psci.h"

/* Both halves are nonzero, so that a host that passes 32 bits only is found out. */
#define CONTEXT_ID(index) (0xc0de000100000000ul | (index))

/* What each CPU writes, and only it. */
struct place {
    uint64_t context_id, mpidr;
    uint32_t arrived, released;
};

static struct place places[MAX_CPUS];
static uint32_t go;     /* the boot CPU's */

SECONDARY_ENTRY(rendezvous_entry, rendezvous_main);

static uint64_t own_mpidr(void)
{
    uint64_t mpidr;

    __asm__("mrs %0, mpidr_el1" : "=r"(mpidr));
    return mpidr & MPIDR_AFFINITY;
}

/* By MPIDR_EL1 and not by context_id, which is under test. */
static struct place *own_place(void)
{
    unsigned index = 0;

    while (cpu_mpidr[index] != own_mpidr())
        index++;
    return &places[index];
}

void rendezvous_main(uint64_t context_id)
{
    struct place *place = own_place();

    place->context_id = context_id;
    place->mpidr = own_mpidr();
    publish(&place->arrived, 1);
    wait_for(&go, 1);
    publish(&place->released, 1);
    park();
}

static void start_and_wait(unsigned index)
{
    answer refusal = cpu_on(cpu_mpidr[index], rendezvous_entry, CONTEXT_ID(index));

    if (refusal != SUCCESS)
        fail("CPU_ON of CPU %lx: %s", cpu_mpidr[index], answer_name(refusal));
}

static void check(unsigned index)
{
    const struct place *place = &places[index];

    if (index == boot_cpu) {
        print("  CPU %lx: the boot CPU\n", cpu_mpidr[index]);
        return;
    }
    print("  CPU %lx: context_id %lx\n", place->mpidr, place->context_id);
    if (place->context_id != CONTEXT_ID(index))
        fail("it was given context_id %lx", CONTEXT_ID(index));
}

void guest_main(void)
{
    need_cpus(2);
    print("rendezvous: %u CPUs\n", device_tree.cpu_count);
    for (unsigned n = 0; n < device_tree.cpu_count - 1; n++)
        start_and_wait(other_cpu(n));
    for (unsigned n = 0; n < device_tree.cpu_count - 1; n++)
        if (!await(&places[other_cpu(n)].arrived, 1))
            fail("CPU %lx did not arrive", cpu_mpidr[other_cpu(n)]);
    publish(&go, 1);
    for (unsigned n = 0; n < device_tree.cpu_count - 1; n++)
        if (!await(&places[other_cpu(n)].released, 1))
            fail("CPU %lx did not leave", cpu_mpidr[other_cpu(n)]);
    for (unsigned index = 0; index < device_tree.cpu_count; index++)
        check(index);
    print("PASS: all met\n");
    power_off();
}
