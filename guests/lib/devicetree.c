/*
 * One walk over the structure block (Devicetree Specification, chapter 5). A node's properties come in any order but
 * before its children, so they are collected and judged when the next node begins or this one ends.
 */
#include "devicetree.h"

#define FDT_MAGIC       0xd00dfeed
#define FDT_BEGIN_NODE  1
#define FDT_END_NODE    2
#define FDT_PROP        3
#define FDT_NOP         4

struct fdt_header {
    uint32_t magic, totalsize, off_dt_struct, off_dt_strings;
};

struct property {
    const char *value;
    uint32_t size_bytes;
};

struct node {
    unsigned depth;     /* the root is 1 */
    const char *name;
    struct property compatible, method, device_type, reg, address_cells, size_cells, bootargs, cpu_suspend, cpu_off, cpu_on;
};

struct walk {
    struct device_tree found;
    bool in_cpus;
    uint32_t reg_cells;                         /* of a cpu node: an address, no size */
    uint32_t address_cells, size_cells;         /* the root's */
};

uint64_t cpu_mpidr[MAX_CPUS];

static uint32_t big_endian(const void *cell)
{
    return __builtin_bswap32(*(const uint32_t *)cell);
}

static uint32_t cell(struct property property)
{
    return property.value && property.size_bytes >= 4 ? big_endian(property.value) : 0;
}

bool same_string(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

static bool lists(struct property strings, const char *wanted)
{
    for (uint32_t at = 0; at < strings.size_bytes; at++) {
        if (same_string(strings.value + at, wanted))
            return true;
        while (strings.value[at])
            at++;
    }
    return false;
}

static bool is(struct property string, const char *wanted)
{
    return string.value && same_string(string.value, wanted);
}

static enum binding newest_binding(struct property compatible)
{
    if (lists(compatible, "arm,psci-1.0"))
        return BINDING_PSCI_1_0;
    if (lists(compatible, "arm,psci-0.2"))
        return BINDING_PSCI_0_2;
    return lists(compatible, "arm,psci") ? BINDING_PSCI_0_1 : BINDING_NONE;
}

static void note_cpu(struct walk *walk, struct property reg)
{
    uint64_t mpidr = cell(reg);

    if (walk->reg_cells == 2 && reg.size_bytes >= 8)
        mpidr = mpidr << 32 | big_endian(reg.value + 4);
    if (walk->found.cpu_count < MAX_CPUS)
        cpu_mpidr[walk->found.cpu_count] = mpidr;
    walk->found.cpu_count++;
}

static enum gic_architecture gic_architecture(struct property compatible)
{
    if (lists(compatible, "arm,cortex-a15-gic") || lists(compatible, "arm,gic-400"))
        return GIC_V2;
    return lists(compatible, "arm,gic-v3") ? GIC_V3 : GIC_NONE;
}

/* The n-th address of a reg whose cells are the root's; addresses above 4 GiB need two cells. */
static uintptr_t reg_address(const struct walk *walk, struct property reg, uint32_t n)
{
    uint32_t at = 4 * n * (walk->address_cells + walk->size_cells);
    uintptr_t address = 0;

    if (reg.size_bytes < at + 4 * walk->address_cells)
        return 0;
    for (uint32_t i = 0; i < walk->address_cells; i++)
        address = address << 32 | big_endian(reg.value + at + 4 * i);
    return address;
}

/* The psci node is known by its compatible string and not by its path, which is /psci or /firmware/psci. */
static void judge(struct walk *walk, const struct node *node)
{
    struct psci_node *psci = &walk->found.psci;
    enum binding binding = newest_binding(node->compatible);

    if (node->depth == 1) {
        walk->address_cells = cell(node->address_cells);
        walk->size_cells = cell(node->size_cells);
    }
    if (node->depth == 2) {
        walk->in_cpus = same_string(node->name, "cpus");
        if (walk->in_cpus)
            walk->reg_cells = cell(node->address_cells);
        if (same_string(node->name, "chosen") && node->bootargs.value)
            walk->found.bootargs = node->bootargs.value;
    }
    if (node->depth == 3 && walk->in_cpus && is(node->device_type, "cpu"))
        note_cpu(walk, node->reg);
    if (node->depth == 2 && gic_architecture(node->compatible) != GIC_NONE)
        walk->found.gic = (struct gic_node){
            gic_architecture(node->compatible), reg_address(walk, node->reg, 0), reg_address(walk, node->reg, 1),
        };
    if (binding != BINDING_NONE && psci->binding == BINDING_NONE) {
        psci->binding = binding;
        psci->method = is(node->method, "smc") ? CONDUIT_SMC : CONDUIT_HVC;
        psci->cpu_suspend = cell(node->cpu_suspend);
        psci->cpu_off = cell(node->cpu_off);
        psci->cpu_on = cell(node->cpu_on);
    }
}

static void collect(struct node *node, const char *name, struct property property)
{
    static const struct {
        const char *name;
        size_t offset;
    } wanted[] = {
        { "compatible", offsetof(struct node, compatible) },
        { "method", offsetof(struct node, method) },
        { "device_type", offsetof(struct node, device_type) },
        { "reg", offsetof(struct node, reg) },
        { "#address-cells", offsetof(struct node, address_cells) },
        { "#size-cells", offsetof(struct node, size_cells) },
        { "bootargs", offsetof(struct node, bootargs) },
        { "cpu_suspend", offsetof(struct node, cpu_suspend) },
        { "cpu_off", offsetof(struct node, cpu_off) },
        { "cpu_on", offsetof(struct node, cpu_on) },
    };

    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        /* The first letter rules most of them out; this is most of what a boot does. */
        if (*name == *wanted[i].name && same_string(name, wanted[i].name)) {
            *(struct property *)((char *)node + wanted[i].offset) = property;
            return;
        }
    }
}

bool is_device_tree(uintptr_t address)
{
    return address != 0 && address % 8 == 0 && big_endian((const void *)address) == FDT_MAGIC;
}

struct device_tree read_device_tree(uintptr_t address)
{
    const struct fdt_header *header = (const struct fdt_header *)address;
    const char *strings = (const char *)address + big_endian(&header->off_dt_strings);
    const char *at = (const char *)address + big_endian(&header->off_dt_struct);
    struct walk walk = { .found = { .bootargs = "" }, .reg_cells = 1 };
    struct node node = { 0 };
    unsigned depth = 0;

    for (;;) {
        uint32_t token = big_endian(at);

        at += 4;
        if (token == FDT_PROP) {
            struct property property = { at + 8, big_endian(at) };
            collect(&node, strings + big_endian(at + 4), property);
            at = property.value + ((property.size_bytes + 3) & ~3u);
        } else if (token == FDT_BEGIN_NODE || token == FDT_END_NODE) {
            if (node.name)
                judge(&walk, &node);
            node = (struct node){ 0 };
            if (token == FDT_END_NODE) {
                depth--;
                continue;
            }
            node.depth = ++depth;
            node.name = at;
            while (*at)
                at++;
            at = (const char *)(((uintptr_t)at + 4) & ~3ul);
        } else if (token != FDT_NOP) {
            return walk.found;
        }
    }
}
