"""A range of a GIC's interrupts: what distributors and redistributors have in common (Arm IHI 0048, "GICD_" registers; IHI 0069, "GICD_"
and "GICR_" registers).

Every frame lays these registers out alike, a bit, a byte or two bits for each INTID. In a GICv3's distributor the SGIs' and PPIs' are
reserved, in a redistributor all but those; reserved ones read zero and ignore writes. A GICv2's has each vCPU's own, and the SPIs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

IGROUPR: Final = 0x080
ISENABLER: Final = 0x100
ICENABLER: Final = 0x180
ISPENDR: Final = 0x200
ICPENDR: Final = 0x280
ISACTIVER: Final = 0x300
ICACTIVER: Final = 0x380
IPRIORITYR: Final = 0x400
ICFGR: Final = 0xC00

PRIORITY_MASK: Final = 0xF8  # five bits
_PRIORITY_BYTES: Final = 0x400
_CFG_BYTES: Final = 0x100
_GROUP_0, _GROUP_1 = 0b01, 0b10


class Pending(NamedTuple):
    """An interrupt that is forwarded to a CPU interface."""

    priority: int
    intid: int
    group: int


@dataclass(slots=True)
class Bank:
    """Interrupts by INTID: bit n of each word is INTID n's.

    implemented  which INTIDs there are
    pending      latched: by an edge, by software, by an SGI
    level        the input lines
    edge         which are edge-triggered; the others follow their line
    """

    implemented: int
    group: int = 0
    enabled: int = 0
    pending: int = 0
    active: int = 0
    level: int = 0
    edge: int = 0
    priority: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        if not self.priority:
            self.priority = bytearray(self.implemented.bit_length())

    def copy(self) -> Bank:
        """Return another one like it."""
        words = (self.group, self.enabled, self.pending, self.active, self.level, self.edge)
        return Bank(self.implemented, *words, bytearray(self.priority))

    def set_level(self, intid: int, level: bool) -> bool:
        """Set an input line; say whether that changed anything."""
        bit = 1 << intid
        assert bit & self.implemented
        if bool(self.level & bit) == level:
            return False
        self.level ^= bit
        if level and self.edge & bit:
            self.pending |= bit
        return True

    def activate(self, intid: int) -> None:
        """Acknowledge an interrupt; one whose line stays asserted is active and pending."""
        self.active |= 1 << intid
        self.pending &= ~(1 << intid)

    def deactivate(self, intid: int) -> None:
        self.active &= ~(1 << intid)

    def ready(self, groups: int) -> int:
        """Return the enabled pending interrupts of the groups (bit 0: group 0) that are not active."""
        ready = (self.pending | self.level & ~self.edge) & self.enabled & ~self.active
        if ready:
            ready &= (self.group if groups & _GROUP_1 else 0) | (~self.group if groups & _GROUP_0 else 0)
        return ready

    def highest(self, ready: int) -> Pending | None:
        """Return the one of highest priority, of equal ones the lowest INTID."""
        best = None
        while ready:
            bit = ready & -ready
            intid = bit.bit_length() - 1
            if best is None or self.priority[intid] < self.priority[best]:
                best = intid
            ready ^= bit
        return None if best is None else Pending(self.priority[best], best, self.group >> best & 1)

    def read(self, offset: int, size_bytes: int) -> int:
        """Read a register, 4 bytes, or 1 of a priority register."""
        if IPRIORITYR <= offset < IPRIORITYR + _PRIORITY_BYTES:
            return int.from_bytes(self.priority[offset - IPRIORITYR :][:size_bytes], "little") if size_bytes != 2 else 0
        if size_bytes != 4 or offset % 4:
            return 0
        if ICFGR <= offset < ICFGR + _CFG_BYTES:
            edges = self.edge >> 4 * (offset - ICFGR)
            return sum((edges >> position & 1) << 2 * position + 1 for position in range(16))
        return self._word(offset & ~0x7F) >> 8 * (offset & 0x7F) & 0xFFFF_FFFF

    def _word(self, register: int) -> int:
        if register in (ISENABLER, ICENABLER):
            return self.enabled
        if register in (ISPENDR, ICPENDR):
            return self.pending | self.level & ~self.edge
        if register in (ISACTIVER, ICACTIVER):
            return self.active
        return self.group if register == IGROUPR else 0

    def write(self, offset: int, size_bytes: int, value: int) -> None:
        """Write a register, 4 bytes, or 1 of a priority register."""
        if IPRIORITYR <= offset < IPRIORITYR + _PRIORITY_BYTES:
            if size_bytes != 2:
                self._write_priorities(offset - IPRIORITYR, value.to_bytes(8, "little")[:size_bytes])
        elif size_bytes != 4 or offset % 4:
            return
        elif ICFGR <= offset < ICFGR + _CFG_BYTES:
            first = 4 * (offset - ICFGR)
            edges = sum((value >> 2 * position + 1 & 1) << position for position in range(16))
            mask = 0xFFFF << first & self.implemented
            self.edge = self.edge & ~mask | edges << first & mask
        else:
            shift = 8 * (offset & 0x7F)
            self._write_word(offset & ~0x7F, (value & 0xFFFF_FFFF) << shift & self.implemented, 0xFFFF_FFFF << shift)

    def _write_priorities(self, first: int, priorities: bytes) -> None:
        for intid, priority in enumerate(priorities, first):
            if self.implemented >> intid & 1:
                self.priority[intid] = priority & PRIORITY_MASK

    def _write_word(self, register: int, word: int, mask: int) -> None:
        if register == ISENABLER:
            self.enabled |= word
        elif register == ICENABLER:
            self.enabled &= ~word
        elif register == ISPENDR:
            self.pending |= word
        elif register == ICPENDR:
            self.pending &= ~word
        elif register == ISACTIVER:
            self.active |= word
        elif register == ICACTIVER:
            self.active &= ~word
        elif register == IGROUPR:
            self.group = self.group & ~mask | word
