/* 0.2 or exactly 1.0: the minor version is pinned, although a minor step never breaks a caller. */
#include "gallery.h"

static bool attach(void)
{
    answer version = offered_version();

#ifdef MENDED
    if (version >= PSCI_0_2)
        return true;
#else
    if (version == PSCI_0_2 || version == PSCI_1_0)
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
