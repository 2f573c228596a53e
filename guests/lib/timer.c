/*
 * Where the machine has an interrupt controller, it alone turns the timer's output into a wake-up event. Where the device
 * tree has none, the output is the event.
 */
#include "timer.h"

#include "machine.h"

#define CNTV_CTL_ENABLE     1ul
#define CNTV_CTL_DISABLE    0ul     /* bit 1, IMASK, is clear in both */
#define VIRTUAL_TIMER_PPI   27u

/* GICv2 (IHI 0048), as seen from Non-secure state or without the Security Extensions. The registers of a PPI are banked. */
#define GICD_CTLR           0x000
#define GICD_ISENABLER0     0x100
#define GICD_IPRIORITYR     0x400
#define GICC_CTLR           0x000
#define GICC_PMR            0x004
#define EVERY_PRIORITY      0xffu
#define HIGH_PRIORITY       0x80u

static void write_word(uintptr_t address, uint32_t value)
{
    *(volatile uint32_t *)address = value;
}

static void enable_timer_ppi(const struct gic_node *gic)
{
    if (gic->architecture == GIC_NONE)
        return;
    if (gic->architecture != GIC_V2)
        lacks("this guest is woken through a GICv2, and the device tree has another one");
    *(volatile uint8_t *)(gic->distributor + GICD_IPRIORITYR + VIRTUAL_TIMER_PPI) = HIGH_PRIORITY;
    write_word(gic->distributor + GICD_ISENABLER0, 1u << VIRTUAL_TIMER_PPI);
    write_word(gic->distributor + GICD_CTLR, 1);
    write_word(gic->cpu_interface + GICC_PMR, EVERY_PRIORITY);
    write_word(gic->cpu_interface + GICC_CTLR, 1);
}

void wake_at(uint64_t deadline_ticks)
{
    enable_timer_ppi(&device_tree.gic);
    __asm__ volatile("msr cntv_cval_el0, %0\n msr cntv_ctl_el0, %1\n isb"
                     : : "r"(deadline_ticks), "r"(CNTV_CTL_ENABLE) : "memory");
}

void wake_never(void)
{
    __asm__ volatile("msr cntv_ctl_el0, %0\n isb" : : "r"(CNTV_CTL_DISABLE) : "memory");
}
