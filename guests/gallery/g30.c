/* A power_state in the extended format, for firmware that knows the original one: the idle loop becomes a busy one. */
#include "gallery.h"

#include "../lib/timer.h"

#define SLEEP_MICROSECONDS  200
#define TRIES               16u

SECONDARY_ENTRY(awake_entry, awake_main);

void awake_main(uint64_t context_id)
{
    (void)context_id;
    survived("slept, and woke up at the entry point");
}

#ifdef MENDED
static bool is_extended(void)
{
    return offered_version() >= PSCI_1_0 && (trusting_ask(PSCI_FEATURES, CPU_SUSPEND_64) & ~FEATURE_OS_INITIATED) == FEATURE_EXTENDED_STATE_ID;
}
#endif

void guest_main(void)
{
    need_binding(BINDING_PSCI_0_2, 1);
#ifdef MENDED
    if (!is_extended())
        survived("Invalid PSCI power state %x: idle by WFI", (uint32_t)POWER_STATE_EXTENDED_POWERDOWN);
#endif

    int32_t value = SUCCESS;

    for (unsigned n = 0; n < TRIES && value != INVALID_PARAMETERS; n++) {
        wake_at(counter_ticks() + microseconds_to_ticks(SLEEP_MICROSECONDS));
        value = (int32_t)trusting_call(CPU_SUSPEND_64, POWER_STATE_EXTENDED_POWERDOWN, (uintptr_t)awake_entry, 0).x0;
        if (value == NOT_SUPPORTED)
            out_of_place("this firmware has no CPU_SUSPEND");
    }
    if (value < 0)
        fail("CPU_SUSPEND(%x): %s; the idle loop spins", (uint32_t)POWER_STATE_EXTENDED_POWERDOWN, answer_name(value));
    survived("slept, %u times", TRIES);
}
