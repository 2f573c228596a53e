/*
 * One call through the conduit, with the register rules of SMCCC 1.0, the strictest for a caller: x0-x3 are results,
 * x4-x17 are gone, x18-x30 are kept. The immediate is 0; others are not SMCCC calls.
 */
#ifndef CONDUIT_H
#define CONDUIT_H

#include <stdbool.h>
#include <stdint.h>

#include "devicetree.h"

struct results {
    uint64_t x0, x1, x2, x3;
    bool undefined;     /* the conduit instruction itself was UNDEFINED: nobody answered */
};

#define SMCCC_CLOBBERS \
    "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15", "x16", "x17", "memory", "cc"

/* Inlined, so that a trace names the function that calls (psci_version+0x14) and not one call site for all. */
static inline __attribute__((always_inline)) struct results
smccc_call(enum conduit conduit, uint32_t function_id, uint64_t arg1, uint64_t arg2, uint64_t arg3)
{
    register uint64_t x0 __asm__("x0") = function_id;
    register uint64_t x1 __asm__("x1") = arg1;
    register uint64_t x2 __asm__("x2") = arg2;
    register uint64_t x3 __asm__("x3") = arg3;
    register uint64_t x18 __asm__("x18") = 0;   /* the vector sets it, see start.S */

    if (conduit == CONDUIT_SMC)
        __asm__ volatile("smc #0" : "+r"(x0), "+r"(x1), "+r"(x2), "+r"(x3), "+r"(x18) : : SMCCC_CLOBBERS);
    else
        __asm__ volatile("hvc #0" : "+r"(x0), "+r"(x1), "+r"(x2), "+r"(x3), "+r"(x18) : : SMCCC_CLOBBERS);
    return (struct results){ x0, x1, x2, x3, x18 != 0 };
}

#endif
