/* SMCCC_VERSION's answer is compared unsigned: -1 is more than 1.1. */
#include "gallery.h"

void guest_main(void)
{
    need_binding(BINDING_PSCI_1_0, 1);
    if (offered_version() < PSCI_1_0 || trusting_ask(PSCI_FEATURES, SMCCC_VERSION) == NOT_SUPPORTED)
        survived("SMC Calling Convention v1.0");
#ifdef MENDED
    int64_t version = (int32_t)trusting_ask(SMCCC_VERSION, 0);
#else
    int64_t version = (uint32_t)trusting_ask(SMCCC_VERSION, 0);
#endif
    if (version < SMCCC_1_1)
        survived("SMC Calling Convention v1.0");
    print("psci: SMC Calling Convention v%u.%u\n", version_major(version), version_minor(version));
    if (version_major(version) != 1)
        fail("there is no such convention, and calls will be made by it");
    survived("SMC Calling Convention v%u.%u", version_major(version), version_minor(version));
}
