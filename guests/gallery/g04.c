/* A list of the versions that were there when it was written, 1.0 and 1.1; on any other the loader gives up. */
#include "gallery.h"

void guest_main(void)
{
    need_binding(BINDING_PSCI_0_2, 1);

    answer version = psci_version();

#ifdef MENDED
    if (version < 0)
        print("LDR|INFO: there is no PSCI version\n");
    else
        print("LDR|INFO: PSCI version is %u.%u\n", version_major(version), version_minor(version));
#else
    if (version != PSCI_1_0 && version != PSCI_1_1) {
        print("LDR|ERROR: PSCI version mismatch\n");
        fail("the system was not loaded");
    }
#endif
    survived("the system was loaded");
}
