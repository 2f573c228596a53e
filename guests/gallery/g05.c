/* A ceiling: anything newer than 1.1 is refused, and with it every CPU but the first. */
#include "gallery.h"

static bool start(void)
{
    answer version = offered_version();

#ifdef MENDED
    if (version >= PSCI_0_2)
        return true;
#else
    if (version >= PSCI_0_2 && version <= PSCI_1_1)
        return true;
#endif
    print("ApplePSCI - [ERROR] unsupported PSCI version %u.%u\n", version_major(version), version_minor(version));
    return false;
}

void guest_main(void)
{
    need_binding(BINDING_PSCI_0_2, 2);
    judge_cpus(start() ? bring_up() : 1);
}
