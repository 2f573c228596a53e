/* x4 to x17 are taken for preserved, as SMCCC 1.1 promises, before anybody knows that it is 1.1. */
#include "gallery.h"

#define COOKIE 0x600dc00c1eul

static uint64_t __attribute__((noinline)) call_and_use(uint64_t cookie)
{
    register uint64_t x0 __asm__("x0") = PSCI_VERSION;
    register uint64_t x1 __asm__("x1") = 0;
    register uint64_t x2 __asm__("x2") = 0;
    register uint64_t x3 __asm__("x3") = 0;
    register uint64_t x18 __asm__("x18") = 0;
#ifdef MENDED
    uint64_t kept = cookie;

    if (device_tree.psci.method == CONDUIT_SMC)
        __asm__ volatile("smc #0" : "+r"(x0), "+r"(x1), "+r"(x2), "+r"(x3), "+r"(x18) : : SMCCC_CLOBBERS);
    else
        __asm__ volatile("hvc #0" : "+r"(x0), "+r"(x1), "+r"(x2), "+r"(x3), "+r"(x18) : : SMCCC_CLOBBERS);
    return kept;
#else
    register uint64_t x9 __asm__("x9") = cookie;

    if (device_tree.psci.method == CONDUIT_SMC)
        __asm__ volatile("smc #0" : "+r"(x0), "+r"(x1), "+r"(x2), "+r"(x3), "+r"(x18) : "r"(x9) : "memory");
    else
        __asm__ volatile("hvc #0" : "+r"(x0), "+r"(x1), "+r"(x2), "+r"(x3), "+r"(x18) : "r"(x9) : "memory");
    return x9;
#endif
}

void guest_main(void)
{
    need_binding(BINDING_PSCI_0_2, 1);

    uint64_t cookie = call_and_use(COOKIE);

    if (cookie != COOKIE)
        fail("a pointer that was in x9 is now %lx", cookie);
    survived("what was in x9 is still right");
}
