/* SYSTEM_OFF2 gets 0 for HIBERNATE_OFF, as in a draft; the standard has 1, and firmware need not know the draft. */
#include "gallery.h"

void guest_main(void)
{
    need_binding(BINDING_PSCI_1_0, 1);
    if (offered_version() < PSCI_1_0 || trusting_ask(PSCI_FEATURES, SYSTEM_OFF2_64) < 0)
        out_of_place("there is no SYSTEM_OFF2");
#ifdef MENDED
    uint32_t hibernate_off = 1;
#else
    uint32_t hibernate_off = 0;
#endif
    answer value = system_off2(hibernate_off, 0);

    fail("SYSTEM_OFF2(%u): %s; it was no hibernation", hibernate_off, answer_name(value));
}
