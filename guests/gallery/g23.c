/* CPUs are numbered 0, 1, 2..., and the numbers are taken for MPIDRs. */
#include "gallery.h"

void guest_main(void)
{
    need_binding(BINDING_PSCI_0_2, 2);

    unsigned up = 1;

    for (unsigned n = 0; n < device_tree.cpu_count - 1; n++) {
#ifdef MENDED
        uint64_t target_cpu = cpu_mpidr[other_cpu(n)];
#else
        uint64_t target_cpu = other_cpu(n);
#endif
        answer value = cpu_on(target_cpu, arrival_entry, 0);

        if (value == NOT_SUPPORTED)
            out_of_place("this firmware starts no CPUs");
        if (value == SUCCESS && arrived(n))
            up++;
        else
            print("  CPU number %u, asked for as %lx: %s\n", other_cpu(n), target_cpu, answer_name(value));
    }
    judge_cpus(up);
}
