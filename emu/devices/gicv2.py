"""A GICv2 as plain state: distributor and CPU interfaces (Arm IHI 0048; behaviour as QEMU's `virt`, without Security Extensions).

1. It knows neither Unicorn nor the machine: the machine routes MMIO here, sets the levels of input lines, and asks whether a vCPU's IRQ
   is asserted.
2. What is not derived from its fields is its whole state, so that a snapshot is a copy of them.
3. `signals` is asked at every turn, of every vCPU, and its answers are kept: whatever changes one ends in `_changed` or `_all_changed`.

256 SPIs, five bits of priority. With GICC_CTLR.FIQEn a group 0 interrupt is an FIQ: it can be acknowledged, and is never signalled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from emu.devices.gic_bank import Bank, Pending
from emu.devices.gicv3_interface import SPURIOUS, Interface

PRIVATE: Final = 32  # SGIs and PPIs, each vCPU its own
INTIDS: Final = 288
MOST_VCPUS: Final = 8

_PRIVATE_MASK: Final = (1 << PRIVATE) - 1
_SPI_MASK: Final = (1 << INTIDS) - 1 & ~_PRIVATE_MASK
_SGIS: Final = 0xFFFF  # edge-triggered and enabled, always

# Distributor.
GICD_CTLR: Final = 0x000
GICD_TYPER: Final = 0x004
GICD_IIDR: Final = 0x008
GICD_ITARGETSR: Final = 0x800
GICD_SGIR: Final = 0xF00
GICD_CPENDSGIR: Final = 0xF10
GICD_SPENDSGIR: Final = 0xF20
_TYPER: Final = INTIDS // 32 - 1  # and CPUNumber
_IIDR: Final = 0x43B  # Arm
_GROUPS: Final = 0b11
# PIDR4-7, PIDR0-3 and CIDR0-3: PIDR2, bits 7:4, says GICv2.
_ID_BASE: Final = 0xFD0
_ID: Final = (0x04, 0x00, 0x00, 0x00, 0x90, 0xB4, 0x2B, 0x00, 0x0D, 0xF0, 0x05, 0xB1)

# CPU interface.
GICC_CTLR: Final = 0x0000
GICC_PMR: Final = 0x0004
GICC_BPR: Final = 0x0008
GICC_IAR: Final = 0x000C
GICC_EOIR: Final = 0x0010
GICC_RPR: Final = 0x0014
GICC_HPPIR: Final = 0x0018
GICC_ABPR: Final = 0x001C
GICC_AIAR: Final = 0x0020
GICC_AEOIR: Final = 0x0024
GICC_AHPPIR: Final = 0x0028
GICC_APR0: Final = 0x00D0
GICC_NSAPR0: Final = 0x00E0
GICC_IIDR: Final = 0x00FC
GICC_DIR: Final = 0x1000
CTLR_ACKCTL: Final = 1 << 2
CTLR_FIQEN: Final = 1 << 3
CTLR_CBPR: Final = 1 << 4
CTLR_EOIMODE: Final = 1 << 9
CTLR_MASK: Final = _GROUPS | CTLR_ACKCTL | CTLR_FIQEN | CTLR_CBPR | CTLR_EOIMODE
_GICC_IIDR: Final = 0x0002_043B  # architecture version 2, Arm
_GROUP_1_PENDING: Final = 1022
_SOURCE_SHIFT: Final = 10
_INTID_MASK: Final = 0x3FF
_LEAST_BPR: Final = 2
_LEAST_ABPR: Final = 3


@dataclass(slots=True)
class CpuInterface:
    """One vCPU's: its SGIs and PPIs, and what its interface to the distributor holds.

    sources  by SGI, a bit for each vCPU that sent it
    """

    bank: Bank = field(default_factory=lambda: Bank(_PRIVATE_MASK, enabled=_SGIS, edge=_SGIS))
    sources: bytearray = field(default_factory=lambda: bytearray(16))
    ctlr: int = 0
    priorities: Interface = field(default_factory=Interface)

    def copy(self) -> CpuInterface:
        """Return another one like it."""
        return CpuInterface(self.bank.copy(), bytearray(self.sources), self.ctlr, self.priorities.copy())


@dataclass(slots=True)
class Gicv2:
    """One controller; a new one is in its reset state.

    cpus     one for each vCPU
    targets  by INTID, GICD_ITARGETSR<n>: a bit for each vCPU that an SPI goes to
    """

    cpus: list[CpuInterface]
    ctlr: int = 0
    bank: Bank = field(default_factory=lambda: Bank(_SPI_MASK))
    targets: bytearray = field(default_factory=lambda: bytearray(INTIDS))
    _lines: list[bool | None] = field(init=False, repr=False, compare=False)  # by vCPU: IRQ, None for look again

    def __post_init__(self) -> None:
        assert 0 < len(self.cpus) <= MOST_VCPUS
        if len(self.cpus) == 1:
            self.targets[PRIVATE:] = b"\1" * (INTIDS - PRIVATE)  # there is nobody else
        self._all_changed()

    @staticmethod
    def new_bank() -> Bank:
        """Return the SPIs in their reset state."""
        return Bank(_SPI_MASK)

    def copy(self) -> Gicv2:
        """Return another one like it."""
        return Gicv2([cpu.copy() for cpu in self.cpus], self.ctlr, self.bank.copy(), bytearray(self.targets))

    # ---- lines in, lines out

    def set_level(self, intid: int, level: bool, vcpu: int = 0) -> bool:
        """Set an input line, a PPI's of one vCPU, or an SPI's; say whether that changed anything."""
        private = intid < PRIVATE
        bank = self.cpus[vcpu].bank if private else self.bank
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
            cpu, pending = self.cpus[vcpu], self._highest(vcpu)
            is_irq = pending is not None and (pending.group == 1 or not cpu.ctlr & CTLR_FIQEN)
            line = self._lines[vcpu] = is_irq and pending is not None and cpu.priorities.takes(pending)
        return line

    def wakes(self, vcpu: int) -> bool:
        """Say whether a powered-down vCPU is woken: by nothing else than what it is signalled."""
        return self.signals(vcpu)

    def reset_interface(self, vcpu: int) -> None:
        """Do nothing: a core's reset leaves a GICv2's CPU interface as it is."""

    def _changed(self, vcpu: int) -> None:
        self._lines[vcpu] = None

    def _all_changed(self) -> None:
        self._lines = [None] * len(self.cpus)

    def _after(self, vcpu: int, intid: int) -> None:
        if intid < PRIVATE:
            self._changed(vcpu)
        else:
            self._all_changed()

    def _highest(self, vcpu: int) -> Pending | None:
        cpu = self.cpus[vcpu]
        groups = self.ctlr & cpu.ctlr & _GROUPS
        best = cpu.bank.highest(cpu.bank.ready(groups))
        ready = self.bank.ready(groups)
        if ready:
            other = self.bank.highest(self._aimed_at(vcpu, ready))
            if other is not None and (best is None or other.priority < best.priority):
                return other
        return best

    def _aimed_at(self, vcpu: int, intids: int) -> int:
        aimed = 0
        while intids:
            bit = intids & -intids
            if self.targets[bit.bit_length() - 1] >> vcpu & 1:
                aimed |= bit
            intids ^= bit
        return aimed

    def _bank_of(self, vcpu: int, intid: int) -> Bank:
        return self.cpus[vcpu].bank if intid < PRIVATE else self.bank

    # ---- distributor

    def read_distributor(self, offset: int, size_bytes: int, vcpu: int) -> int:
        """Read 1, 2 or 4 bytes as one vCPU does, whose SGIs and PPIs are its own; what is not there, or not aligned, reads 0."""
        if offset % size_bytes:
            return 0
        if GICD_ITARGETSR <= offset < GICD_ITARGETSR + INTIDS:
            first = offset - GICD_ITARGETSR
            return int.from_bytes(bytes(self._target(vcpu, intid) for intid in range(first, first + size_bytes)), "little")
        if GICD_CPENDSGIR <= offset < GICD_SPENDSGIR + 16:
            first = offset % 16
            return int.from_bytes(self.cpus[vcpu].sources[first : first + size_bytes], "little")
        if 0x80 <= offset < GICD_SGIR:
            return self.cpus[vcpu].bank.read(offset, size_bytes) | self.bank.read(offset, size_bytes)
        if size_bytes != 4:
            return 0
        if offset == GICD_CTLR:
            return self.ctlr
        if offset == GICD_TYPER:
            return _TYPER | len(self.cpus) - 1 << 5
        if offset == GICD_IIDR:
            return _IIDR
        index, rest = divmod(offset - _ID_BASE, 4)
        return _ID[index] if not rest and 0 <= index < len(_ID) else 0

    def _target(self, vcpu: int, intid: int) -> int:
        if intid >= INTIDS or len(self.cpus) == 1:
            return 0  # with one CPU the registers read 0
        return 1 << vcpu if intid < PRIVATE else self.targets[intid]

    def write_distributor(self, offset: int, size_bytes: int, value: int, vcpu: int) -> None:
        """Write 1, 2 or 4 bytes as one vCPU does; what is not there, or not aligned, ignores it."""
        if offset % size_bytes:
            return
        cpu, content = self.cpus[vcpu], value.to_bytes(8, "little")[:size_bytes]
        if GICD_ITARGETSR <= offset < GICD_ITARGETSR + INTIDS:
            for intid, targets in enumerate(content, offset - GICD_ITARGETSR):
                if PRIVATE <= intid < INTIDS and len(self.cpus) > 1:
                    self.targets[intid] = targets & (1 << len(self.cpus)) - 1
        elif GICD_CPENDSGIR <= offset < GICD_SPENDSGIR + 16:
            for sgi, sources in enumerate(content, offset % 16):
                self._set_sources(vcpu, sgi, cpu.sources[sgi] & ~sources if offset < GICD_SPENDSGIR else cpu.sources[sgi] | sources)
        elif 0x80 <= offset < GICD_SGIR:
            self.bank.write(offset, size_bytes, value)
            sgis = cpu.bank.pending & _SGIS
            cpu.bank.write(offset, size_bytes, value)
            cpu.bank.pending = cpu.bank.pending & ~_SGIS | sgis  # theirs are GICD_SPENDSGIR's and GICD_CPENDSGIR's
            cpu.bank.edge |= _SGIS
            cpu.bank.enabled |= _SGIS
        elif offset == GICD_CTLR and size_bytes == 4:
            self.ctlr = value & _GROUPS
        elif offset == GICD_SGIR and size_bytes == 4:
            self._generate(vcpu, value)
        else:
            return
        self._all_changed()

    def _set_sources(self, vcpu: int, sgi: int, sources: int) -> None:
        cpu = self.cpus[vcpu]
        cpu.sources[sgi] = sources & (1 << len(self.cpus)) - 1
        cpu.bank.pending = cpu.bank.pending & ~(1 << sgi) | bool(cpu.sources[sgi]) << sgi

    def _generate(self, sender: int, value: int) -> None:
        everybody = (1 << len(self.cpus)) - 1
        # TargetListFilter: the list, all but the sender, the sender; 3 is reserved.
        targets = (value >> 16 & 0xFF, everybody & ~(1 << sender), 1 << sender, 0)[value >> 24 & 3]
        for vcpu in range(len(self.cpus)):
            if targets >> vcpu & 1:
                self._set_sources(vcpu, value & 0xF, self.cpus[vcpu].sources[value & 0xF] | 1 << sender)

    # ---- CPU interfaces

    def read_cpu_interface(self, offset: int, size_bytes: int, vcpu: int) -> int:
        """Read a register of a vCPU's CPU interface, 4 bytes; what is not there reads 0."""
        cpu = self.cpus[vcpu]
        own = cpu.priorities
        if size_bytes != 4:
            return 0
        if offset in (GICC_IAR, GICC_AIAR):
            return self._acknowledge(vcpu, is_alias=offset == GICC_AIAR)
        if offset in (GICC_HPPIR, GICC_AHPPIR):
            pending = self._highest(vcpu)
            return SPURIOUS if pending is None else self._visible(cpu, pending, is_alias=offset == GICC_AHPPIR)
        readable = {
            GICC_CTLR: cpu.ctlr,
            GICC_PMR: own.pmr,
            GICC_BPR: own.bpr0,
            GICC_RPR: own.running_priority,
            GICC_ABPR: own.bpr1,
            GICC_APR0: own.ap0,
            GICC_NSAPR0: own.ap1,
            GICC_IIDR: _GICC_IIDR,
        }
        return readable.get(offset, 0)

    def write_cpu_interface(self, offset: int, size_bytes: int, value: int, vcpu: int) -> None:
        """Write a register of a vCPU's CPU interface, 4 bytes; what is not there ignores it."""
        cpu = self.cpus[vcpu]
        own = cpu.priorities
        if size_bytes != 4:
            return
        if offset == GICC_CTLR:
            cpu.ctlr = value & CTLR_MASK
            own.ctlr = own.ctlr & ~1 | bool(value & CTLR_CBPR)
        elif offset == GICC_PMR:
            own.pmr = value & 0xF8
        elif offset == GICC_BPR:
            own.bpr0 = max(value & 7, _LEAST_BPR)
        elif offset == GICC_ABPR:
            own.bpr1 = max(value & 7, _LEAST_ABPR)
        elif offset == GICC_APR0:
            own.ap0 = value & 0xFFFF_FFFF
        elif offset == GICC_NSAPR0:
            own.ap1 = value & 0xFFFF_FFFF
        elif offset in (GICC_EOIR, GICC_AEOIR):
            self._end(vcpu, value & _INTID_MASK)
            return
        elif offset == GICC_DIR and cpu.ctlr & CTLR_EOIMODE and value & _INTID_MASK < INTIDS:
            self._bank_of(vcpu, value & _INTID_MASK).deactivate(value & _INTID_MASK)
            self._after(vcpu, value & _INTID_MASK)
            return
        self._changed(vcpu)

    def _visible(self, cpu: CpuInterface, pending: Pending, *, is_alias: bool) -> int:
        # Without AckCtl, group 1 is the aliases' alone.
        if is_alias and pending.group == 0:
            return SPURIOUS
        if pending.group == 1 and not is_alias and not cpu.ctlr & CTLR_ACKCTL:
            return _GROUP_1_PENDING
        if pending.intid >= 16:
            return pending.intid
        sources = cpu.sources[pending.intid]
        return pending.intid | (sources & -sources).bit_length() - 1 << _SOURCE_SHIFT

    def _acknowledge(self, vcpu: int, *, is_alias: bool) -> int:
        cpu, pending = self.cpus[vcpu], self._highest(vcpu)
        if pending is None or not cpu.priorities.takes(pending):
            return SPURIOUS
        seen = self._visible(cpu, pending, is_alias=is_alias)
        if seen & _INTID_MASK != pending.intid:
            return seen
        cpu.priorities.activate(pending)
        self._bank_of(vcpu, pending.intid).activate(pending.intid)
        if pending.intid < 16:
            sources = cpu.sources[pending.intid]
            self._set_sources(vcpu, pending.intid, sources & sources - 1)
        self._after(vcpu, pending.intid)
        return seen

    def _end(self, vcpu: int, intid: int) -> None:
        cpu = self.cpus[vcpu]
        if intid >= INTIDS:
            return
        group = self._bank_of(vcpu, intid).group >> intid & 1
        if cpu.priorities.drop_priority(group):
            if not cpu.ctlr & CTLR_EOIMODE:
                self._bank_of(vcpu, intid).deactivate(intid)
            self._after(vcpu, intid)
