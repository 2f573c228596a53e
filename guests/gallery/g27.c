/* Nobody asks whether a Trusted OS sits on a CPU before that CPU is taken off. */
#include "gallery.h"

static uint32_t up, refused;

SECONDARY_ENTRY(leaving_entry, leaving_main);

void leaving_main(uint64_t context_id)
{
    (void)context_id;
    publish(&up, 1);

    answer value = cpu_off();

    publish(&refused, value == DENIED ? 1 : 2);
    park();
}

#ifdef MENDED
static bool may_go_off(uint64_t mpidr)
{
    answer type = migrate_info_type();

    return (type != 0 && type != 1) || ((uint64_t)migrate_info_up_cpu() & MPIDR_AFFINITY) != mpidr;
}
#endif

void guest_main(void)
{
    need_binding(BINDING_PSCI_0_2, 2);

    uint64_t target_cpu = cpu_mpidr[other_cpu(0)];

#ifdef MENDED
    if (!may_go_off(target_cpu))
        survived("CPU %lx has the Trusted OS, and stays", target_cpu);
#endif
    answer value = cpu_on(target_cpu, leaving_entry, 0);

    if (value == NOT_SUPPORTED)
        out_of_place("this firmware starts no CPUs");
    if (value != SUCCESS || !await_change(&up))
        fail("CPU_ON: %s", answer_name(value));
    if (await_change(&refused))
        fail("CPU %lx: CPU_OFF: %s; CPU%u may not have shut down cleanly", target_cpu, refused == 1 ? "DENIED" : "an error", other_cpu(0));
    survived("CPU %lx went off", target_cpu);
}
