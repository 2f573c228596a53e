/* What images with several CPUs share: the device tree's CPUs, words that CPUs wait for, a lock and an atomic. */
#ifndef SMP_H
#define SMP_H

#include <stdbool.h>
#include <stdint.h>

#include "cpu.h"
#include "devicetree.h"
#include "psci.h"

#define EXIT_LACKS              2

/* Read the device tree and prepare the state of every CPU in it; the exit code if that cannot be, else 0. */
int smp_prepare(uintptr_t device_tree, struct device_tree *found, void (*main)(struct cpu *cpu));

/* The MPIDR_EL1 of the CPU that runs, as a cpu node's reg has it. */
uint64_t own_mpidr(void);

/* Poll AFFINITY_INFO until a CPU is off; false if it is not within a long time. */
bool await_off(uint64_t target_affinity);

/* Wait with WFE; whoever writes sends an event. */
void await_word(const volatile uint32_t *word, uint32_t value);
void announce(volatile uint32_t *word, uint32_t value);

struct ticket_lock {
    uint32_t next, owner;
};

void lock(struct ticket_lock *lock);
void unlock(struct ticket_lock *lock);

/* By LDXR and STXR; returns the word as it was. */
uint32_t atomic_add(uint32_t *word, uint32_t addend);

#endif
