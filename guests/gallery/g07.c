/* The version is read into a u32: -1, "no such function", becomes 65535.65535, and that is more than 1.0. */
#include "gallery.h"

void guest_main(void)
{
    need_binding(BINDING_PSCI_0_2, 1);
#ifdef MENDED
    int64_t version = (int32_t)trusting_ask(PSCI_VERSION, 0);

    if (version < 0)
        version = PSCI_0_2;     /* what the device tree promises */
#else
    int64_t version = (uint32_t)trusting_ask(PSCI_VERSION, 0);
#endif
    print("psci: PSCIv%u.%u detected in firmware.\n", version_major(version), version_minor(version));
    if (version < PSCI_1_0)
        survived("nothing newer than 0.2 was asked for");
    if (trusting_ask(PSCI_FEATURES, PSCI_FEATURES) < 0)
        fail("PSCI_FEATURES, which %u.%u has, is not there", version_major(version), version_minor(version));
    survived("the firmware is what it says");
}
