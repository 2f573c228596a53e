/* MIGRATE_INFO_UP_CPU is asked although there is no Trusted OS, and its -1 is taken for a CPU. */
#include "gallery.h"

void guest_main(void)
{
    need_binding(BINDING_PSCI_0_2, 1);

    int32_t type = trusting_ask(MIGRATE_INFO_TYPE, 0);

#ifdef MENDED
    if (type != 0 && type != 1)
        survived("Trusted OS migration not required");
#endif
    uint64_t resident = trusting_call(MIGRATE_INFO_UP_CPU_64, 0, 0, 0).x0;

    for (unsigned cpu = 0; cpu < device_tree.cpu_count; cpu++)
        if (cpu_mpidr[cpu] == (resident & MPIDR_AFFINITY))
            survived("MIGRATE_INFO_TYPE %d: the Trusted OS is on CPU %lx", type, cpu_mpidr[cpu]);
    fail("MIGRATE_INFO_UP_CPU reported invalid physical ID (%lx)", resident);
}
