/* No mistake that hurts: CPU_OFF gets the power_state that PSCI 0.1 wanted, and 0.2 ignores it. */
#include "gallery.h"

static uint32_t up, returned;

SECONDARY_ENTRY(leaving_entry, leaving_main);

void leaving_main(uint64_t context_id)
{
    (void)context_id;
    publish(&up, 1);
    trusting_call(CPU_OFF, POWER_STATE_POWERDOWN, 0, 0);
    publish(&returned, 1);
    park();
}

void guest_main(void)
{
    need_binding(BINDING_PSCI_0_2, 2);

    answer value = cpu_on(cpu_mpidr[other_cpu(0)], leaving_entry, 0);

    if (value == NOT_SUPPORTED)
        out_of_place("this firmware starts no CPUs");
    if (value != SUCCESS || !await_change(&up))
        fail("CPU_ON: %s", answer_name(value));
    if (await_change(&returned))
        fail("CPU_OFF returned");
    survived("CPU_OFF did not mind");
}
