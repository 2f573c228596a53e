/* target_cpu is made of Aff0 alone: every cluster but the first is out of reach. */
#include "gallery.h"

void guest_main(void)
{
    need_binding(BINDING_PSCI_0_2, 2);

    unsigned up = 1;

    for (unsigned n = 0; n < device_tree.cpu_count - 1; n++) {
        uint64_t mpidr = cpu_mpidr[other_cpu(n)];
#ifdef MENDED
        uint64_t target_cpu = mpidr;
#else
        uint64_t target_cpu = mpidr & 0xff;
#endif
        answer value = cpu_on(target_cpu, arrival_entry, 0);

        if (value == NOT_SUPPORTED)
            out_of_place("this firmware starts no CPUs");
        if (value == SUCCESS && arrived(n))
            up++;
        else
            print("  CPU %lx, asked for as %lx: %s\n", mpidr, target_cpu, answer_name(value));
    }
    judge_cpus(up);
}
