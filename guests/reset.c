/*
 * Learn: what SYSTEM_RESET leaves. It does not return; the boot CPU starts anew at the image's entry point and all other
 * CPUs are OFF. The host loads the image anew, but RAM outside it is as it was: there a word can count the boots.
 *
 * Prints: "boot 1" with what is set up, then "boot 2" with what is left of it, and switches off.
 *
 * At PSCI 0.2: SYSTEM_RESET exists, mandatory. Under 0.1 a machine is reset by a device of its own, or not at all.
 */
#include "lib/boots.h"
#include "lib/console.h"
#include "lib/machine.h"
#include "lib/psci.h"

#define AS_LOADED   0x1u
#define OVERWRITTEN 0x2u

static volatile uint32_t in_image = AS_LOADED;
static uint32_t arrived;

SECONDARY_ENTRY(other_entry, other_main);

void other_main(uint64_t context_id)
{
    publish(&arrived, (uint32_t)context_id);
    park();
}

static void __attribute__((noreturn)) first_boot(void)
{
    uint64_t target_cpu = cpu_mpidr[other_cpu(0)];
    answer value = cpu_on(target_cpu, other_entry, 1);

    if (value != SUCCESS)
        fail("CPU_ON of CPU %lx: %s", target_cpu, answer_name(value));
    if (!await(&arrived, 1))
        fail("CPU %lx did not come", target_cpu);
    in_image = OVERWRITTEN;
    print("reset: boot 1, CPU %lx is on, a word of the image is overwritten: SYSTEM_RESET\n", target_cpu);
    fail("SYSTEM_RESET returned: %s", answer_name(system_reset()));
}

static void __attribute__((noreturn)) second_boot(void)
{
    uint64_t target_cpu = cpu_mpidr[other_cpu(0)];
    answer value = affinity_info(target_cpu, 0);

    forget_boots();
    print("reset: boot 2\n");
    print("  CPU %lx: %s\n", target_cpu, affinity_name(value));
    print("  the image: %s\n", in_image == AS_LOADED ? "loaded anew" : "as it was left");
    print("  RAM outside the image: as it was left\n");
    if (value != AFFINITY_OFF)
        fail("a reset leaves the boot CPU alone on");
    print("PASS: 2 boots\n");
    power_off();
}

void guest_main(void)
{
    need_cpus(2);
    if (offered_version() < PSCI_0_2)
        nothing_to_show("PSCI 0.1 has no SYSTEM_RESET");
    if (count_boot(2)->count == 1)
        first_boot();
    second_boot();
}
