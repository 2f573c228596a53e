/* PSCI_FEATURES is asked without asking for the version first: below 1.0 nobody promised an answer. */
#include "gallery.h"

void guest_main(void)
{
    need_binding(BINDING_PSCI_0_2, 1);
#ifdef MENDED
    if (offered_version() < PSCI_1_0)
        survived("reset by SYSTEM_RESET");
#endif
    int32_t value = trusting_ask(PSCI_FEATURES, SYSTEM_RESET2_64);

    survived("reset by %s", value == SUCCESS ? "SYSTEM_RESET2" : "SYSTEM_RESET");
}
