/* "> 0" is asked of an unsigned result: every error is a success. */
#include "gallery.h"

void guest_main(void)
{
    need_binding(BINDING_PSCI_1_0, 1);
    if (offered_version() < PSCI_1_0 || trusting_ask(PSCI_FEATURES, SMCCC_VERSION) == NOT_SUPPORTED)
        survived("SMCCC 1.0");
#ifdef MENDED
    int32_t version = trusting_ask(SMCCC_VERSION, 0);
#else
    uint32_t version = (uint32_t)trusting_ask(SMCCC_VERSION, 0);
#endif
    uint32_t believed = version > 0 ? (uint32_t)version : SMCCC_1_0;

    print("Found SMCCC version %u.%u\n", version_major(believed), version_minor(believed));
    if (version_major(believed) != 1)
        fail("an error became a version");
    survived("SMCCC %u.%u", version_major(believed), version_minor(believed));
}
