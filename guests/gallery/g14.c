/* SYSTEM_SUSPEND is taken for granted: the kernel registers its suspend without asking whether the firmware has it. */
#include "gallery.h"

#include "../lib/timer.h"

#define SLEEP_MICROSECONDS 200

SECONDARY_ENTRY(resume_entry, resume_main);

void resume_main(uint64_t context_id)
{
    (void)context_id;
    survived("suspended, and resumed at the entry point");
}

#ifdef MENDED
static bool is_offered(void)
{
    return offered_version() >= PSCI_1_0 && trusting_ask(PSCI_FEATURES, SYSTEM_SUSPEND_64) >= 0;
}
#endif

void guest_main(void)
{
    need_binding(BINDING_PSCI_0_2, 1);
#ifdef MENDED
    if (!is_offered())
        survived("mem is not among the sleep states");
#endif
    wake_at(counter_ticks() + microseconds_to_ticks(SLEEP_MICROSECONDS));

    int32_t value = (int32_t)trusting_call(SYSTEM_SUSPEND_64, (uintptr_t)resume_entry, 0, 0).x0;

    fail("PM: suspend entry returned: %s", answer_name(value));
}
