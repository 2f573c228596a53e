/* CPU_ON's SMC32 form is called with an entry point above 4 GiB: its upper half is no argument. */
#include "gallery.h"

#define ABOVE           0x100000000ul   /* 4 GiB: RAM, where there are 4 GiB of it */
#define CODE_WORDS      3u

static uint32_t started;

SECONDARY_ENTRY(high_entry, high_main);

void high_main(uint64_t context_id)
{
    (void)context_id;
    publish(&started, 1);
    park();
}

/* Code up there, as a kernel that was loaded there would have: it jumps down to `high_entry`. */
static uint64_t entry_above(void)
{
    volatile uint32_t *code = (volatile uint32_t *)ABOVE;

    code[0] = 0x58000049;   /* ldr x9, .+8 */
    code[1] = 0xd61f0120;   /* br x9 */
    *(volatile uint64_t *)(ABOVE + 8) = (uintptr_t)high_entry;
    __asm__ volatile("dsb sy\n isb" : : : "memory");
    return ABOVE;
}

void guest_main(void)
{
    need_binding(BINDING_PSCI_0_2, 2);
    if (ram_end() <= ABOVE)
        out_of_place("there is no RAM above 4 GiB");

    uint64_t target_cpu = cpu_mpidr[other_cpu(0)];
#ifdef MENDED
    uint32_t function_id = CPU_ON_64;
#else
    uint32_t function_id = CPU_ON_32;
#endif
    int32_t value = (int32_t)trusting_call(function_id, target_cpu, entry_above(), 0).x0;

    if (value == NOT_SUPPORTED)
        out_of_place("this firmware starts no CPUs");
    if (value != SUCCESS)
        fail("CPU_ON of CPU %lx: %s", target_cpu, answer_name(value));
    if (!await_change(&started))
        fail("CPU %lx began somewhere below 4 GiB, and was not seen again", target_cpu);
    survived("CPU %lx began above 4 GiB", target_cpu);
}
