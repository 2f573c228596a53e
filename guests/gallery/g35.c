/* ON_PENDING and ALREADY_ON are errors like any other: a CPU that is on its way is given up. */
#include "gallery.h"

#define RETRIES 8u

static bool start(unsigned n)
{
    uint64_t target_cpu = cpu_mpidr[other_cpu(n)];
    answer value = cpu_on(target_cpu, arrival_entry, 0);

    if (value == NOT_SUPPORTED)
        out_of_place("this firmware starts no CPUs");
#ifdef MENDED
    for (unsigned retries = RETRIES; value == ON_PENDING && !arrived(n) && retries != 0; retries--)
        value = cpu_on(target_cpu, arrival_entry, 0);
    if (value == SUCCESS || value == ALREADY_ON || value == ON_PENDING)
        return arrived(n);
#else
    if (value == SUCCESS)
        return arrived(n);
#endif
    print("psci: failed to boot CPU%u (%s)\n", other_cpu(n), answer_name(value));
    return false;
}

void guest_main(void)
{
    need_binding(BINDING_PSCI_0_2, 2);

    unsigned up = 1;

    for (unsigned n = 0; n < device_tree.cpu_count - 1; n++)
        up += start(n);
    judge_cpus(up);
}
