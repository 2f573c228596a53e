/* context_id is never set: whatever is on the stack comes to the new CPU in x0, and it is believed. */
#include "gallery.h"

struct arguments {
    uint64_t x0, x1, x2, x3;
};

static uint32_t seen, seen_context_id;

SECONDARY_ENTRY(idle_entry, idle_main);

void idle_main(uint64_t context_id)
{
    publish(&seen_context_id, context_id == 0 ? 1 : 2);
    publish(&seen, 1);
    park();
}

/* What ran before on this stack. */
static void __attribute__((noinline)) earlier(void)
{
    uint64_t scratch[16];

    for (unsigned n = 0; n < 16; n++)
        scratch[n] = 0xfeedfacefeedface;
    __asm__ volatile("" : : "m"(scratch));
}

static int32_t __attribute__((noinline)) start(uint64_t target_cpu)
{
    struct arguments arguments;

    __asm__ volatile("" : "=m"(arguments));     /* its fields have a value, and nobody set them */
    arguments.x0 = CPU_ON_64;
    arguments.x1 = target_cpu;
    arguments.x2 = (uintptr_t)idle_entry;
#ifdef MENDED
    arguments.x3 = 0;
#endif
    return (int32_t)trusting_call((uint32_t)arguments.x0, arguments.x1, arguments.x2, arguments.x3).x0;
}

void guest_main(void)
{
    need_binding(BINDING_PSCI_0_2, 2);
    earlier();

    int32_t value = start(cpu_mpidr[other_cpu(0)]);

    if (value == NOT_SUPPORTED)
        out_of_place("this firmware starts no CPUs");
    if (value != SUCCESS || !await_change(&seen))
        fail("CPU_ON: %s", answer_name(value));
    if (seen_context_id != 1)
        fail("the new CPU found a context that nobody gave it");
    survived("the new CPU found no context");
}
