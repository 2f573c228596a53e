/* What start.S and the C files must agree on, and each CPU's own state. TPIDR_EL1 points to it. */
#ifndef CPU_H
#define CPU_H

#define IMAGE_CPUS              8
#define STACK_SIZE_BYTES        2048
#define SP_EL0_MARK             0x5a5a5a50  /* SP_EL0 in a probe: an address no code here uses, 16-byte aligned */

#define CPU_PROBE_SP            0
#define CPU_STACK_TOP           8
#define CPU_MAIN                16
#define CPU_RETURNS             24
#define CPU_TAKEN               32
#define TAKEN_VECTOR            (CPU_TAKEN + 0)
#define TAKEN_ESR               (CPU_TAKEN + 8)
#define TAKEN_ELR               (CPU_TAKEN + 16)
#define TAKEN_SPSR              (CPU_TAKEN + 24)
#define TAKEN_FAR               (CPU_TAKEN + 32)
#define TAKEN_PSTATE            (CPU_TAKEN + 40)
#define TAKEN_SP_EL0            (CPU_TAKEN + 48)
#define TAKEN_SP                (CPU_TAKEN + 56)
#define TAKEN_X0                (CPU_TAKEN + 64)

#ifndef __ASSEMBLER__

#include <stddef.h>
#include <stdint.h>

/* An exception as its vector saw it. */
struct taken {
    uint64_t vector;    /* offset within the table */
    uint64_t esr, elr, spsr, far;
    uint64_t pstate;    /* the vector's own: CurrentEL, DAIF, SPSel */
    uint64_t sp_el0;
    uint64_t sp;        /* the vector's own */
    uint64_t x0, x1, x2;
};

struct cpu {
    uint64_t probe_sp;                  /* SP within probe(); 0 where no exception is expected */
    uint64_t stack_top;
    void (*main)(struct cpu *cpu);      /* secondary_entry calls it */
    uint64_t returns;                   /* how many exceptions return to where they came from before one ends the probe */
    struct taken taken;
};

_Static_assert(offsetof(struct cpu, taken) == CPU_TAKEN, "cpu.h");
_Static_assert(offsetof(struct cpu, taken.x0) == TAKEN_X0, "cpu.h");

/* The boot CPU's state is the first. */
extern struct cpu cpus[IMAGE_CPUS];

/* What CPU_ON gets as entry point; context_id is the address of the CPU's state. */
void secondary_entry(void);

/*
 * Run code with this PSTATE, x0 and x1, until it takes an exception: cpu->taken. The code may change x0-x17 and the
 * flags. The exceptions before that, cpu->returns of them, return: SVC behind itself, all others behind the instruction.
 */
void probe(uintptr_t code, uint64_t pstate, uint64_t x0, uint64_t x1);

static inline struct cpu *this_cpu(void)
{
    struct cpu *cpu;

    __asm__("mrs %0, tpidr_el1" : "=r"(cpu));
    return cpu;
}

#endif
#endif
