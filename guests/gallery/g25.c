/* A result is compared with -4 in 64 bits, and firmware that writes w0 alone leaves 0xffff_fffc there. */
#include "gallery.h"

void guest_main(void)
{
    need_binding(BINDING_PSCI_0_2, 2);

    uint64_t target_cpu = cpu_mpidr[other_cpu(0)];

    if (cpu_on(target_cpu, arrival_entry, 0) == NOT_SUPPORTED)
        out_of_place("this firmware starts no CPUs");
    if (!arrived(0))
        fail("CPU %lx did not come", target_cpu);

    struct results results = trusting_call(CPU_ON_64, target_cpu, (uintptr_t)arrival_entry, 0);
#ifdef MENDED
    bool is_on = (int32_t)results.x0 == ALREADY_ON, is_denied = (int32_t)results.x0 >= 0 || (int32_t)results.x0 == DENIED;
#else
    bool is_on = (int64_t)results.x0 == ALREADY_ON, is_denied = (int64_t)results.x0 == SUCCESS || (int64_t)results.x0 == DENIED;
#endif

    if (is_denied)
        out_of_place("this firmware does not say ALREADY_ON");
    if (!is_on)
        fail("CPU_ON of a CPU that is on: error %lx is none that is known", results.x0);
    survived("the CPU is already on");
}
