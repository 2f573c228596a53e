/*
 * What a guest needs from the device tree: its psci node, its CPUs, its interrupt controller, its boot arguments. Nothing
 * is written.
 */
#ifndef DEVICETREE_H
#define DEVICETREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "limits.h"

/* The newest of the psci node's compatible strings. There is none for PSCI 1.1 and later: those say "arm,psci-1.0". */
enum binding {
    BINDING_NONE,       /* no psci node */
    BINDING_PSCI_0_1,   /* "arm,psci": function IDs are the node's properties */
    BINDING_PSCI_0_2,   /* "arm,psci-0.2": function IDs are the standard's */
    BINDING_PSCI_1_0,   /* "arm,psci-1.0" */
};

enum conduit {
    CONDUIT_HVC,
    CONDUIT_SMC,
};

struct psci_node {
    enum binding binding;
    enum conduit method;
    uint32_t cpu_suspend, cpu_off, cpu_on;  /* function IDs for PSCI 0.1; 0 where the property is absent */
};

enum gic_architecture {
    GIC_NONE,
    GIC_V2,             /* "arm,cortex-a15-gic" or "arm,gic-400" */
    GIC_V3,             /* "arm,gic-v3" */
};

struct gic_node {
    enum gic_architecture architecture;
    uintptr_t distributor;
    uintptr_t cpu_interface;                /* GICv2; where a GICv3 has its redistributors */
};

struct device_tree {
    struct psci_node psci;
    struct gic_node gic;
    unsigned cpu_count;                     /* may exceed MAX_CPUS; then only MAX_CPUS are in cpu_mpidr */
    const char *bootargs;                   /* "" where there is none */
};

/* The reg of each cpu node, in the tree's order; start.S finds a CPU's stack by it. */
extern uint64_t cpu_mpidr[MAX_CPUS];

/* Whether a flattened device tree is at this address. */
bool is_device_tree(uintptr_t address);

struct device_tree read_device_tree(uintptr_t address);

bool same_string(const char *a, const char *b);

#endif
