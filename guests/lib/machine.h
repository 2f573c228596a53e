/* What each guest starts from and ends with: its CPUs, time, and the ways out. */
#ifndef MACHINE_H
#define MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#include "devicetree.h"

/* Exit codes by semihosting. SYSTEM_OFF has none and means success. */
enum {
    EXIT_SUCCESS = 0,
    EXIT_CHECK_FAILED = 1,
    EXIT_MACHINE_LACKS = 2,         /* CPUs or a psci node this guest needs */
    EXIT_NOT_EL1 = 3,
    EXIT_EXCEPTION = 98,
};

extern struct device_tree device_tree;
extern unsigned boot_cpu;           /* index into cpu_mpidr */

/* Each guest's own; the boot CPU runs it with the MMU off and interrupts masked. Must not return. */
void guest_main(void) __attribute__((noreturn));

/* Index of the n-th CPU (from 0) that is not the boot CPU, in the device tree's order. */
unsigned other_cpu(unsigned n);

/* End with EXIT_MACHINE_LACKS unless the device tree has a psci node and this many CPUs. */
void need_cpus(unsigned count);

/*
 * An entry point for CPU_ON, and for a CPU that wakes up without its state: runs function(context_id) at EL1 on the CPU's own stack.
 * The branch may use x9: at the entry point all registers but x0 are UNKNOWN.
 */
#define SECONDARY_ENTRY(name, function)                             \
    void name(void);                                                \
    void function(uint64_t context_id) __attribute__((noreturn));   \
    __asm__(".pushsection .text\n"                                  \
            ".global " #name "\n"                                   \
            ".type " #name ", %function\n"                          \
            #name ":\n"                                             \
            "    adrp x9, " #function "\n"                          \
            "    add x9, x9, :lo12:" #function "\n"                 \
            "    b secondary_common\n"                              \
            ".size " #name ", . - " #name "\n"                      \
            ".popsection\n")

/* Words that CPUs share: one writer each, see start.S. */
static inline void publish(uint32_t *word, uint32_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

static inline uint32_t observe(const uint32_t *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

uint64_t counter_ticks(void);
uint64_t microseconds_to_ticks(uint64_t microseconds);
void wait_until(uint64_t deadline_ticks);

/* A bound on waiting: ask expired() once per turn of the loop. */
struct patience {
    uint64_t deadline_ticks;
    unsigned turns;
};
struct patience patience(void);
bool expired(struct patience *patience);

/* Whether the word became this value before patience ended. */
bool await(const uint32_t *word, uint32_t value);

/* The same without end, for CPUs that are waited for: the boot CPU's patience is the one that judges. */
void wait_for(const uint32_t *word, uint32_t value);

/* Whether AFFINITY_INFO said OFF before patience ended. Needs PSCI 0.2. */
bool await_off(uint64_t target_affinity);

/* Success: by SYSTEM_OFF from PSCI 0.2 on; 0.1 has no such function, so there by semihosting. */
void power_off(void) __attribute__((noreturn));

/* Success too: this firmware offers nothing of what the guest shows. */
void nothing_to_show(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
void lacks(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
void semihosting_exit(uint64_t code) __attribute__((noreturn));

/* For a CPU that has nothing left to do. Interrupts are masked and none is enabled: it stays. */
void park(void) __attribute__((noreturn));

#endif
