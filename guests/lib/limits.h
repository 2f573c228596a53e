/* What start.S and the C files must agree on. */
#ifndef LIMITS_H
#define LIMITS_H

#define MAX_CPUS                128
#define STACK_SIZE_BYTES        2048
#define BOOT_STACK_SIZE_BYTES   4096

/* MPIDR_EL1: Aff3 in bits 39:32, Aff2..Aff0 in 23:0. What target_cpu and a cpu node's reg hold. */
#define MPIDR_AFFINITY          0xff00ffffff

#endif
