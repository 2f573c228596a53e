/* The boot CPU waits for the others without end. */
#include "gallery.h"

static uint32_t hatched;

SECONDARY_ENTRY(hatch_entry, hatch_main);

void hatch_main(uint64_t context_id)
{
    (void)context_id;
    publish(&hatched, 1);
    park();
}

void guest_main(void)
{
    need_binding(BINDING_PSCI_0_2, 2);

    answer value = cpu_on(cpu_mpidr[other_cpu(0)], hatch_entry, 0);

    if (value == NOT_SUPPORTED)
        out_of_place("this firmware starts no CPUs");
#ifdef MENDED
    if (value != SUCCESS || !await_change(&hatched))
        survived("CPU%u did not hatch, and the others go on without it", other_cpu(0));
#else
    print("waiting for CPU%u\n", other_cpu(0));
    wait_for(&hatched, 1);
#endif
    survived("CPU%u has hatched", other_cpu(0));
}
