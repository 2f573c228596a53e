/* The whole version word is compared with the number 2, and a self-test will not run with any other. */
#include "gallery.h"

void guest_main(void)
{
    need_binding(BINDING_PSCI_0_2, 1);
#ifdef MENDED
    answer version = offered_version();
    bool is_supported = version >= PSCI_0_2;
#else
    answer version = psci_version();
    bool is_supported = version == 2;
#endif

    if (!is_supported) {
        print("WARNING: Unsupported PSCI version: %u.%u.\n", version_major(version), version_minor(version));
        fail("sltrun did not run");
    }
    survived("sltrun ran");
}
