#include "mmu.h"

#define ENTRIES                 512u
#define GIB_SHIFT               30
#define BLOCK_SHIFT             21
#define PAGE_SHIFT              12

#define IS_TABLE_OR_PAGE        3ul
#define IS_BLOCK                1ul

#define IMAGE_BASE              0x40000000ul
#define UART_BASE               0x09000000ul

#define MAIR                    0x00fful    /* 0: normal, write-back; 1: Device-nGnRnE */
/* T0SZ 25; walks write-back, inner shareable; EPD1: a fault at once; TG0 and TG1 4 KiB; IPS 40 bits. */
#define TCR                     (25ul | 1ul << 8 | 1ul << 10 | 3ul << 12 | 25ul << 16 | 1ul << 23 | 2ul << 30 | 2ul << 32)

typedef uint64_t table[ENTRIES] __attribute__((aligned(4096)));

static table level_1, low_gib, ram_gib, image_pages;

extern const char text_start[], probed_start[], data_start[], data_end[];

static void map_part(const char *start, const char *end, uint64_t attributes)
{
    for (const char *page = start; page < end; page += PAGE_BYTES)
        mmu_map_page(page, attributes);
}

void mmu_prepare(void)
{
    level_1[0] = (uintptr_t)low_gib | IS_TABLE_OR_PAGE;
    level_1[1] = (uintptr_t)ram_gib | IS_TABLE_OR_PAGE;
    mmu_map_table(IMAGE_BASE, (uintptr_t)image_pages);
    mmu_map_block(UART_BASE, UART_BASE, MAP_DEVICE | MAP_ACCESSED | MAP_PXN | MAP_UXN);
    map_part(text_start, probed_start, MAP_CODE | MAP_UXN);
    map_part(probed_start, data_start, MAP_CODE | MAP_EL0);
    map_part(data_start, data_end, MAP_DATA);
}

static void flush(void)
{
    __asm__ volatile("dsb ish\n tlbi vmalle1is\n dsb ish\n isb" : : : "memory");
}

void mmu_map_page(const void *page, uint64_t attributes)
{
    uintptr_t address = (uintptr_t)page;

    image_pages[address >> PAGE_SHIFT & (ENTRIES - 1)] = attributes == 0 ? 0 : address | attributes | IS_TABLE_OR_PAGE;
    flush();
}

static uint64_t *block_entry(uintptr_t address)
{
    return &(address >> GIB_SHIFT ? ram_gib : low_gib)[address >> BLOCK_SHIFT & (ENTRIES - 1)];
}

void mmu_map_block(uintptr_t address, uint64_t physical, uint64_t attributes)
{
    *block_entry(address) = physical | attributes | IS_BLOCK;
    flush();
}

void mmu_map_table(uintptr_t address, uint64_t physical)
{
    *block_entry(address) = physical | IS_TABLE_OR_PAGE;
    flush();
}

void set_sctlr(uint64_t value)
{
    __asm__ volatile("msr sctlr_el1, %0\n isb" : : "r"(value) : "memory");
}

uint64_t sctlr(void)
{
    uint64_t value;

    __asm__ volatile("mrs %0, sctlr_el1" : "=r"(value));
    return value;
}

/* The tables were written with the caches off, and no line of them can be in one yet. */
void mmu_on(void)
{
    __asm__ volatile("msr mair_el1, %0\n msr tcr_el1, %1\n msr ttbr0_el1, %2\n isb\n tlbi vmalle1\n dsb ish\n isb"
                     : : "r"(MAIR), "r"(TCR), "r"((uintptr_t)level_1) : "memory");
    set_sctlr(SCTLR_RES1 | SCTLR_M | SCTLR_C | SCTLR_I);
}

void mmu_off(void)
{
    set_sctlr(SCTLR_RES1);
    flush();
}
