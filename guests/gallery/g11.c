/* SMCCC_VERSION is called without PSCI_FEATURES having said that there is one. */
#include "gallery.h"

void guest_main(void)
{
    need_binding(BINDING_PSCI_0_2, 1);
#ifdef MENDED
    struct smccc smccc = discover_smccc(offered_version());

    print("SMCCC %u.%u\n", version_major(smccc.version), version_minor(smccc.version));
#else
    int32_t version = trusting_ask(SMCCC_VERSION, 0);

    if (version < 0)
        print("no SMCCC_VERSION\n");
    else
        print("SMCCC %u.%u\n", version_major(version), version_minor(version));
#endif
    survived("the SMCCC version is known");
}
