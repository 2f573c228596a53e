/* HVC is hardcoded. */
#include "gallery.h"

void guest_main(void)
{
    need_binding(BINDING_PSCI_0_2, 2);
#ifndef MENDED
    struct psci_node node = device_tree.psci;

    node.method = CONDUIT_HVC;
    psci_use(&node);

    struct results results = smccc_call(CONDUIT_HVC, PSCI_VERSION, 0, 0, 0);

    if (results.undefined)
        die_of_undefined(PSCI_VERSION);
    if ((int32_t)results.x0 == NOT_SUPPORTED && device_tree.psci.method != CONDUIT_HVC)
        fail("PSCI_VERSION by HVC: NOT_SUPPORTED");
#endif
    judge_cpus(bring_up());
}
