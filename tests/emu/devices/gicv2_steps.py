"""A GICv2 set up for tests, and its registers as a guest writes and reads them."""

from __future__ import annotations

from emu.devices.gic_bank import IGROUPR, IPRIORITYR, ISENABLER
from emu.devices.gicv2 import (
    GICC_CTLR,
    GICC_PMR,
    GICD_CTLR,
    GICD_ITARGETSR,
    GICD_SGIR,
    INTIDS,
    CpuInterface,
    Gicv2,
)

SPI, TIMER = 33, 27
HIGH, MIDDLE, LOW = 0x40, 0x80, 0xA0
GROUP_1_PENDING = 1022
LIST, OTHERS, SELF = 0, 1, 2
SPI_BIT = 1 << SPI - 32


def new(vcpus: int) -> Gicv2:
    return Gicv2([CpuInterface() for _ in range(vcpus)])


def controller(vcpus: int = 2, ctlr: int = 1) -> Gicv2:
    """Return a controller set up as Linux does: everything enabled, group 0 at priority 0xA0, SPIs to the first vCPU."""
    gic = new(vcpus)
    gic.write_distributor(GICD_CTLR, 4, ctlr & 3, 0)
    for offset in range(32, INTIDS, 4):
        gic.write_distributor(GICD_ITARGETSR + offset, 4, 0x0101_0101, 0)
        gic.write_distributor(IPRIORITYR + offset, 4, 0xA0A0_A0A0, 0)
    for word in range(1, INTIDS // 32):
        gic.write_distributor(ISENABLER + 4 * word, 4, 0xFFFF_FFFF, 0)
    for vcpu in range(vcpus):
        gic.write_distributor(ISENABLER, 4, 0xFFFF_FFFF, vcpu)
        for offset in range(0, 32, 4):
            gic.write_distributor(IPRIORITYR + offset, 4, 0xA0A0_A0A0, vcpu)
        write(gic, GICC_PMR, 0xF0, vcpu)
        write(gic, GICC_CTLR, ctlr, vcpu)
    return gic


def read(gic: Gicv2, offset: int, vcpu: int = 0) -> int:
    return gic.read_cpu_interface(offset, 4, vcpu)


def write(gic: Gicv2, offset: int, value: int, vcpu: int = 0) -> None:
    gic.write_cpu_interface(offset, 4, value, vcpu)


def distributor(gic: Gicv2, offset: int, vcpu: int = 0) -> int:
    return gic.read_distributor(offset, 4, vcpu)


def signalled(gic: Gicv2) -> list[int]:
    return [vcpu for vcpu in range(len(gic.cpus)) if gic.signals(vcpu)]


def send(gic: Gicv2, sender: int, sgi: int, targets: int = 0, where: int = LIST) -> None:
    gic.write_distributor(GICD_SGIR, 4, where << 24 | targets << 16 | sgi, sender)


def set_group(gic: Gicv2, group: int, *intids: int) -> None:
    for intid in intids:
        offset, bit = IGROUPR + intid // 32 * 4, 1 << intid % 32
        gic.write_distributor(offset, 4, distributor(gic, offset) & ~bit | bit * group, 0)


def set_priority(gic: Gicv2, intid: int, priority: int, vcpu: int = 0) -> None:
    gic.write_distributor(IPRIORITYR + intid, 1, priority, vcpu)
