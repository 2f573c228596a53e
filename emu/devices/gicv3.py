"""A GICv3 as plain state: distributor, redistributors, CPU interfaces (Arm IHI 0069; behaviour as QEMU's `virt` without EL3).

1. It knows neither Unicorn nor the machine: the machine routes MMIO and ICC_* accesses here, sets the levels of input lines, and asks
   whether a vCPU's IRQ is asserted.
2. What is not derived from its fields is its whole state, so that a snapshot is a copy of them.
3. `signals` is asked at every turn, of every vCPU, and its answers are kept: whatever changes one ends in `_changed` or `_all_changed`.

One security state (GICD_CTLR.DS is 1) and affinity routing always; 256 SPIs; five bits of priority; no LPIs, no message-based SPIs, no
1-of-N routing. A group 0 interrupt would be an FIQ: it is recorded, can be acknowledged, and is never signalled.
As with QEMU and KVM, a redistributor that software has put to sleep (GICR_WAKER) forwards interrupts all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from emu.devices import gicv3_interface as interface
from emu.devices.gic_bank import Bank, Pending
from emu.devices.gicv3_interface import Interface

PRIVATE: Final = 32  # SGIs and PPIs, each vCPU its own
INTIDS: Final = 288

FRAME_BYTES: Final = 0x2_0000  # one redistributor: RD_base, and SGI_base in the upper half
MOST_VCPUS: Final = 123  # what fits between the distributor and the UART on QEMU's map

_PRIVATE_MASK: Final = (1 << PRIVATE) - 1
_SPI_MASK: Final = (1 << INTIDS) - 1 & ~_PRIVATE_MASK
_SGIS: Final = 0xFFFF  # edge-triggered, always

# Distributor.
GICD_CTLR: Final = 0x0000
GICD_TYPER: Final = 0x0004
GICD_IIDR: Final = 0x0008
GICD_IROUTER: Final = 0x6000
_CTLR_ENABLES: Final = 0b11
_CTLR_ARE_DS: Final = 0x50
# ITLinesNumber; IDbits 16; A3V, No1N.
_TYPER: Final = INTIDS // 32 - 1 | 0xF << 19 | 1 << 24 | 1 << 25
_TYPER_RSS: Final = 1 << 26
_IIDR: Final = 0x43B  # Arm
ROUTER_MASK: Final = 0xFF_00FF_FFFF  # without Interrupt_Routing_Mode: No1N

# Redistributor, RD_base.
GICR_IIDR: Final = 0x0004
GICR_TYPER: Final = 0x0008
GICR_WAKER: Final = 0x0014
WAKER_ASLEEP: Final = 0b110  # ProcessorSleep and ChildrenAsleep: the change is instantaneous
_WAKER_PROCESSOR_SLEEP: Final = 1 << 1
_TYPER_LAST: Final = 1 << 4

# PIDR4-7, PIDR0-3 and CIDR0-3 of either: the driver looks at PIDR2, whose bits 7:4 say GICv3.
_ID_BASE: Final = 0xFFD0
_ID: Final = (0x44, 0x00, 0x00, 0x00, 0x92, 0xB4, 0x3B, 0x00, 0x0D, 0xF0, 0x05, 0xB1)

# ICC_SGI<n>R_EL1: TargetList, Aff1, INTID, Aff2, IRM, RS, Aff3.
_IRM: Final = 1 << 40


@dataclass(slots=True)
class Redistributor:
    """One vCPU's: its SGIs and PPIs, whether software let it sleep, and its CPU interface."""

    bank: Bank = field(default_factory=lambda: Bank(_PRIVATE_MASK, edge=_SGIS))
    waker: int = WAKER_ASLEEP
    interface: Interface = field(default_factory=Interface)

    def copy(self) -> Redistributor:
        """Return another one like it."""
        return Redistributor(self.bank.copy(), self.waker, self.interface.copy())


@dataclass(slots=True)
class Gicv3:
    """One controller; a new one is in its reset state.

    mpidrs  each vCPU's affinity fields
    router  by INTID, GICD_IROUTER<n>
    """

    mpidrs: tuple[int, ...]
    ctlr: int = 0
    bank: Bank = field(default_factory=lambda: Bank(_SPI_MASK))
    router: list[int] = field(default_factory=lambda: [0] * INTIDS)
    redistributors: list[Redistributor] = field(default_factory=list)
    _by_mpidr: dict[int, int] = field(init=False, repr=False, compare=False)
    # Only where Aff0 goes beyond a target list's sixteen; QEMU's machines have no such CPUs, and no range selector.
    _has_range_selector: bool = field(init=False, repr=False, compare=False)
    _lines: list[bool | None] = field(init=False, repr=False, compare=False)  # by vCPU: IRQ, None for look again

    def __post_init__(self) -> None:
        assert 0 < len(self.mpidrs) <= MOST_VCPUS
        if not self.redistributors:
            self.redistributors = [Redistributor() for _ in self.mpidrs]
        self._by_mpidr = {mpidr: vcpu for vcpu, mpidr in enumerate(self.mpidrs)}
        self._has_range_selector = any(mpidr & 0xFF > 15 for mpidr in self.mpidrs)
        self._all_changed()

    @staticmethod
    def new_bank() -> Bank:
        """Return the SPIs in their reset state."""
        return Bank(_SPI_MASK)

    def copy(self) -> Gicv3:
        """Return another one like it."""
        return Gicv3(self.mpidrs, self.ctlr, self.bank.copy(), list(self.router), [each.copy() for each in self.redistributors])

    # ---- lines in, lines out

    def set_level(self, intid: int, level: bool, vcpu: int = 0) -> bool:
        """Set an input line, a PPI's of one vCPU, or an SPI's; say whether that changed anything."""
        private = intid < PRIVATE
        bank = self.redistributors[vcpu].bank if private else self.bank
        if not bank.set_level(intid, level):
            return False
        if private:
            self._changed(vcpu)
        else:
            self._all_changed()
        return True

    def signals(self, vcpu: int) -> bool:
        """Say whether IRQ is asserted to a vCPU."""
        line = self._lines[vcpu]
        if line is None:
            pending = self._highest(vcpu)
            line = pending is not None and pending.group == 1 and self.redistributors[vcpu].interface.takes(pending)
            self._lines[vcpu] = line
        return line

    def wakes(self, vcpu: int) -> bool:
        """Say whether a powered-down vCPU is woken: its redistributor asks for that although its CPU interface may be disabled.

        So Linux leaves it in an idle state (drivers/irqchip/irq-gic-v3.c, gic_cpu_pm_notifier), and KVM, too, looks at neither.
        """
        asleep = self.redistributors[vcpu].waker & _WAKER_PROCESSOR_SLEEP
        return self.signals(vcpu) or bool(asleep and self._candidate(vcpu, self.ctlr))

    def _changed(self, vcpu: int) -> None:
        self._lines[vcpu] = None

    def _all_changed(self) -> None:
        self._lines = [None] * len(self.mpidrs)

    def _highest(self, vcpu: int) -> Pending | None:
        return self._candidate(vcpu, self.ctlr & self.redistributors[vcpu].interface.enables)

    def _candidate(self, vcpu: int, groups: int) -> Pending | None:
        # Of equal priority the lowest INTID, as in QEMU; SGIs and PPIs come first anyway.
        bank = self.redistributors[vcpu].bank
        best = bank.highest(bank.ready(groups))
        spis = self.bank.ready(groups)
        if spis:
            mine = sum(1 << intid for intid in bits(spis) if self._by_mpidr.get(self.router[intid]) == vcpu)
            other = self.bank.highest(mine)
            if other is not None and (best is None or other.priority < best.priority):
                return other
        return best

    def _bank_of(self, vcpu: int, intid: int) -> Bank:
        return self.redistributors[vcpu].bank if intid < PRIVATE else self.bank

    # ---- distributor

    def read_distributor(self, offset: int, size_bytes: int, _vcpu: int = 0) -> int:
        """Read 1, 2 or 4 bytes; what is not there reads 0."""
        if GICD_IROUTER + 8 * PRIVATE <= offset < GICD_IROUTER + 8 * INTIDS:
            return _part(self.router[(offset - GICD_IROUTER) // 8], offset % 8, size_bytes)
        if 0x80 <= offset < GICD_IROUTER:
            return self.bank.read(offset, size_bytes)
        if size_bytes != 4:
            return 0
        if offset == GICD_CTLR:
            return self.ctlr | _CTLR_ARE_DS
        if offset == GICD_TYPER:
            return _TYPER | (_TYPER_RSS if self._has_range_selector else 0)
        return _IIDR if offset == GICD_IIDR else _identification(offset)

    def write_distributor(self, offset: int, size_bytes: int, value: int, _vcpu: int = 0) -> None:
        """Write 1, 2 or 4 bytes; what is not there ignores it."""
        if GICD_IROUTER + 8 * PRIVATE <= offset < GICD_IROUTER + 8 * INTIDS:
            if size_bytes == 4 and offset % 4 == 0:
                intid, shift = (offset - GICD_IROUTER) // 8, 8 * (offset % 8)
                kept = self.router[intid] & ~(0xFFFF_FFFF << shift)
                self.router[intid] = (kept | (value & 0xFFFF_FFFF) << shift) & ROUTER_MASK
        elif 0x80 <= offset < GICD_IROUTER:
            self.bank.write(offset, size_bytes, value)
        elif offset == GICD_CTLR and size_bytes == 4:
            self.ctlr = value & _CTLR_ENABLES
        else:
            return
        self._all_changed()

    # ---- redistributors

    def read_redistributor(self, offset: int, size_bytes: int) -> int:
        """Read 1, 2 or 4 bytes of the redistributors, which follow one another."""
        vcpu, offset = divmod(offset, FRAME_BYTES)
        if vcpu >= len(self.redistributors):
            return 0
        if offset >= FRAME_BYTES // 2:
            return self.redistributors[vcpu].bank.read(offset - FRAME_BYTES // 2, size_bytes)
        if offset & ~7 == GICR_TYPER:
            last = _TYPER_LAST if vcpu == len(self.mpidrs) - 1 else 0
            mpidr = self.mpidrs[vcpu]
            affinity = mpidr & 0xFF_FFFF | mpidr >> 32 << 24
            return _part(affinity << 32 | vcpu << 8 | last, offset % 8, size_bytes)
        if size_bytes != 4:
            return 0
        if offset == GICR_WAKER:
            return self.redistributors[vcpu].waker
        return _IIDR if offset == GICR_IIDR else _identification(offset)

    def write_redistributor(self, offset: int, size_bytes: int, value: int) -> None:
        """Write 1, 2 or 4 bytes of the redistributors."""
        vcpu, offset = divmod(offset, FRAME_BYTES)
        if vcpu >= len(self.redistributors):
            return
        redistributor = self.redistributors[vcpu]
        if offset >= FRAME_BYTES // 2:
            redistributor.bank.write(offset - FRAME_BYTES // 2, size_bytes, value)
            redistributor.bank.edge |= _SGIS
            self._changed(vcpu)
        elif offset == GICR_WAKER and size_bytes == 4:
            redistributor.waker = WAKER_ASLEEP if value & _WAKER_PROCESSOR_SLEEP else 0

    # ---- CPU interfaces

    def read_register(self, vcpu: int, register: interface.SystemRegister) -> int | None:
        """Read an ICC_* register by (op0, op1, CRn, CRm, op2); None for what is none, or cannot be read."""
        own = self.redistributors[vcpu].interface
        group = interface.ACKNOWLEDGE.get(register)
        if group is not None:
            pending = self._highest(vcpu)
            if pending is None or pending.group != group or not own.takes(pending):
                return interface.SPURIOUS
            own.activate(pending)
            self._bank_of(vcpu, pending.intid).activate(pending.intid)
            self._after(vcpu, pending.intid)
            return pending.intid
        group = interface.HIGHEST_PENDING.get(register)
        if group is not None:
            pending = self._highest(vcpu)
            return pending.intid if pending is not None and pending.group == group else interface.SPURIOUS
        value = own.read(register)
        if register == interface.ICC_CTLR and self._has_range_selector:
            return interface.CTLR_RSS | own.ctlr
        return value

    def write_register(self, vcpu: int, register: interface.SystemRegister, value: int) -> bool:
        """Write an ICC_* register; False for what is none, or cannot be written."""
        own = self.redistributors[vcpu].interface
        if register in interface.GENERATE:
            self._generate(vcpu, interface.GENERATE[register], value)
            return True
        if register in interface.END:
            intid = value & 0xFF_FFFF
            if intid < INTIDS and own.drop_priority(interface.END[register]):
                if not own.splits_end:
                    self._bank_of(vcpu, intid).deactivate(intid)
                self._after(vcpu, intid)
            return True
        if register == interface.ICC_DIR:
            intid = value & 0xFF_FFFF
            if intid < INTIDS and own.splits_end:
                self._bank_of(vcpu, intid).deactivate(intid)
                self._after(vcpu, intid)
            return True
        self._changed(vcpu)
        return own.write(register, value)

    def reset_interface(self, vcpu: int) -> None:
        """Reset a vCPU's CPU interface, as a reset of its core does."""
        self.redistributors[vcpu].interface = Interface()
        self._changed(vcpu)

    def _after(self, vcpu: int, intid: int) -> None:
        if intid < PRIVATE:
            self._changed(vcpu)
        else:
            self._all_changed()

    def _generate(self, sender: int, group: int, value: int) -> None:
        sgi = 1 << (value >> 24 & 0xF)
        for vcpu in self._targets(sender, value):
            bank = self.redistributors[vcpu].bank
            # The target's own configuration says which group's register may send it.
            if bool(bank.group & sgi) == bool(group):
                bank.pending |= sgi
                self._changed(vcpu)

    def _targets(self, sender: int, value: int) -> Iterator[int]:
        if value & _IRM:
            yield from (vcpu for vcpu in range(len(self.mpidrs)) if vcpu != sender)
            return
        cluster = (value >> 48 & 0xFF) << 32 | (value >> 32 & 0xFF) << 16 | (value >> 16 & 0xFF) << 8
        first = 16 * (value >> 44 & 0xF) if self._has_range_selector else 0
        for position in bits(value & 0xFFFF):
            vcpu = self._by_mpidr.get(cluster | first + position)
            if vcpu is not None:
                yield vcpu


def bits(word: int) -> Iterator[int]:
    """Yield the numbers of the bits that are set, from the lowest."""
    while word:
        lowest = word & -word
        yield lowest.bit_length() - 1
        word ^= lowest


def _part(value: int, lane: int, size_bytes: int) -> int:
    return value >> 8 * lane & (1 << 8 * size_bytes) - 1


def _identification(offset: int) -> int:
    index, rest = divmod(offset - _ID_BASE, 4)
    return _ID[index] if not rest and 0 <= index < len(_ID) else 0
