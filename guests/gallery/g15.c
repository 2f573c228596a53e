/* A function is supported unless the answer is -1: any other refusal is taken for a yes. */
#include "gallery.h"

#include "../lib/boots.h"

static bool has_reset2(void)
{
    if (offered_version() < PSCI_1_0)
        return false;
#ifdef MENDED
    return trusting_ask(PSCI_FEATURES, SYSTEM_RESET2_64) >= 0;
#else
    return trusting_ask(PSCI_FEATURES, SYSTEM_RESET2_64) != NOT_SUPPORTED;
#endif
}

void guest_main(void)
{
    need_binding(BINDING_PSCI_0_2, 1);
    if (count_boot(2)->count == 2) {
        forget_boots();
        survived("rebooted");
    }
    if (!has_reset2()) {
        forget_boots();
        survived("a warm reboot would be a cold one");
    }

    answer value = system_reset2(0, 0);

    forget_boots();
    fail("SYSTEM_RESET2, which was believed to be there, returned: %s", answer_name(value));
}
