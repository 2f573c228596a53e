/* The version must be exactly 0.2: a driver of 2014 that detaches from everything newer. */
#include "gallery.h"

static bool attach(void)
{
#ifdef MENDED
    answer version = offered_version();

    if (version >= PSCI_0_2)
        return true;
#else
    answer version = psci_version();

    if (version_major(version) == 0 && version_minor(version) == 2)
        return true;
#endif
    print("psci0: PSCI version number mismatched with DT\n");
    return false;
}

void guest_main(void)
{
    need_binding(BINDING_PSCI_0_2, 2);
    judge_cpus(attach() ? bring_up() : 1);
}
