/*
 * What the gallery's guests share beside lib/: how they call, start CPUs, and end. Each guest is one mistake that was made,
 * and the same source with MENDED defined is the guest without it.
 *
 * They end by semihosting, since some of them are shown where SYSTEM_OFF is missing or broken:
 *   0    "PASS": it got through, or there is nothing to show here
 *   1    "FAIL": what the mistake led to
 *   98   "EXCEPTION": a call was UNDEFINED, and the guest was not ready for that
 */
#ifndef GALLERY_H
#define GALLERY_H

#include "../lib/conduit.h"
#include "../lib/console.h"
#include "../lib/machine.h"
#include "../lib/psci.h"

void survived(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
void out_of_place(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
void die_of_undefined(uint32_t function_id) __attribute__((noreturn));

/* Go on only where a driver for this binding or a newer one would bind. */
void need_binding(enum binding binding, unsigned cpus);

/* Call as code does that was never told a conduit instruction can be UNDEFINED. */
static inline __attribute__((always_inline)) struct results
trusting_call(uint32_t function_id, uint64_t arg1, uint64_t arg2, uint64_t arg3)
{
    struct results results = smccc_call(device_tree.psci.method, function_id, arg1, arg2, arg3);

    if (results.undefined)
        die_of_undefined(function_id);
    return results;
}

static inline __attribute__((always_inline)) int32_t trusting_ask(uint32_t function_id, uint64_t arg1)
{
    return (int32_t)trusting_call(function_id, arg1, 0, 0).x0;
}

/* Where a CPU that was started says so, and then stays. */
void arrival_entry(void);

/* Whether the n-th CPU (from 0) that is not the boot CPU arrived before patience, which is short here, ended. */
bool arrived(unsigned n);

/* The word, once it is no longer 0, or 0. */
uint32_t await_change(const uint32_t *word);

/* Start every other CPU as one should; return how many are up, this one included. */
unsigned bring_up(void);

/* End by how many CPUs are up. */
void judge_cpus(unsigned up) __attribute__((noreturn));

/* Whether the psci node's compatible has this string. */
bool node_lists(const char *compatible);

/* The first address behind RAM. */
uint64_t ram_end(void);

#endif
