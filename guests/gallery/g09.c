/* No mistake: a PSCI_VERSION that is not implemented is tolerated, and the device tree's version is believed instead. */
#include "gallery.h"

static bool attach(void)
{
    answer version = psci_version();

    if (version == NOT_SUPPORTED) {
        version = PSCI_0_2;
        print("PSCI get_version() function is not implemented,  assuming v%u.%u\n", version_major(version), version_minor(version));
    }
    return version >= PSCI_0_2;
}

void guest_main(void)
{
    need_binding(BINDING_PSCI_0_2, 2);
    judge_cpus(attach() ? bring_up() : 1);
}
