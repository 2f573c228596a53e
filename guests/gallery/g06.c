/* The major version must be 1, or the version 0.2: a firmware that said 2.0 would be given up whole. */
#include "gallery.h"

static bool attach(void)
{
    answer version = offered_version();

#ifdef MENDED
    /* A new major version may change functions; it says so for each, and CPU_ON has said nothing. */
    if (version >= PSCI_0_2)
        return true;
#else
    if (version == PSCI_0_2 || version_major(version) == 1)
        return true;
#endif
    print("Error: Unrecognized PSCI version %u.%u\n", version_major(version), version_minor(version));
    return false;
}

void guest_main(void)
{
    need_binding(BINDING_PSCI_0_2, 2);
    judge_cpus(attach() ? bring_up() : 1);
}
