/* Beside "arm,psci-0.2" a string is looked for that no binding has, "arm,psci-1.1", and the one there is is not. */
#include "gallery.h"

static bool binds(void)
{
#ifdef MENDED
    return device_tree.psci.binding >= BINDING_PSCI_0_2;
#else
    return node_lists("arm,psci-0.2") || node_lists("arm,psci-1.1");
#endif
}

void guest_main(void)
{
    need_binding(BINDING_PSCI_0_2, 2);
    if (!binds())
        print("no psci node is compatible\n");
    judge_cpus(binds() ? bring_up() : 1);
}
