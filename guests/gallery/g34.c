/* The conduit instruction has an immediate; SMCCC's is 0, and what another one means is the hypervisor's own affair. */
#include "gallery.h"

#ifdef MENDED
#define IMMEDIATE "0"
#else
#define IMMEDIATE "1"
#endif

void guest_main(void)
{
    need_binding(BINDING_PSCI_0_2, 1);

    register uint64_t x0 __asm__("x0") = PSCI_VERSION;
    register uint64_t x1 __asm__("x1") = 0;
    register uint64_t x2 __asm__("x2") = 0;
    register uint64_t x3 __asm__("x3") = 0;
    register uint64_t x18 __asm__("x18") = 0;

    if (device_tree.psci.method == CONDUIT_SMC)
        __asm__ volatile("smc #" IMMEDIATE : "+r"(x0), "+r"(x1), "+r"(x2), "+r"(x3), "+r"(x18) : : SMCCC_CLOBBERS);
    else
        __asm__ volatile("hvc #" IMMEDIATE : "+r"(x0), "+r"(x1), "+r"(x2), "+r"(x3), "+r"(x18) : : SMCCC_CLOBBERS);

    int32_t version = (int32_t)x0;

    if (x18 != 0)
        die_of_undefined(PSCI_VERSION);
#ifdef MENDED
    if (version < 0)
        out_of_place("this firmware has no PSCI_VERSION");
#endif
    if (version < 0)
        fail("PSCI_VERSION: %s", answer_name(version));
    survived("PSCI %u.%u", version_major(version), version_minor(version));
}
