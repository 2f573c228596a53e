/* The string "arm,psci" is needed, which promises the function IDs of PSCI 0.1, and not every firmware does. */
#include "gallery.h"

static bool binds(void)
{
#ifdef MENDED
    return device_tree.psci.binding >= BINDING_PSCI_0_2;
#else
    return node_lists("arm,psci");
#endif
}

void guest_main(void)
{
    need_binding(BINDING_PSCI_0_2, 2);
    if (!binds())
        print("no psci node is compatible\n");
    judge_cpus(binds() ? bring_up() : 1);
}
