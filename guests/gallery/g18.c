/* Only the string "arm,psci-0.2" is looked for; a device tree may say "arm,psci-1.0" and nothing else. */
#include "gallery.h"

static bool binds(void)
{
#ifdef MENDED
    return device_tree.psci.binding >= BINDING_PSCI_0_2;
#else
    return node_lists("arm,psci-0.2");
#endif
}

void guest_main(void)
{
    need_binding(BINDING_PSCI_0_2, 2);
    if (!binds())
        print("no psci node is compatible\n");
    judge_cpus(binds() ? bring_up() : 1);
}
