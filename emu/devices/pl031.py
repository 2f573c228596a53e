"""A PL031 real-time clock as plain state (Arm DDI 0224, PrimeCell Real Time Clock; behaviour as QEMU's `pl031`).

1. Time comes in as nanoseconds of virtual time; this file knows neither a clock nor the machine, which connects `irq`.
2. Its fields are its whole state, so that a snapshot is a copy of them.

As QEMU's it always counts, whatever CR says; it has no alarm until MR or LR is written; and a system reset leaves it alone.
Unlike QEMU's, and as the manual has it, an alarm comes when the second does and not a part of a second later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from firmware.abi import MASK32

DR: Final = 0x000
MR: Final = 0x004
LR: Final = 0x008
CR: Final = 0x00C
IMSC: Final = 0x010
RIS: Final = 0x014
MIS: Final = 0x018
ICR: Final = 0x01C

_ALARM: Final = 1 << 0
_SECOND_NS: Final = 1_000_000_000

# RTCPeriphID0-3 and RTCPCellID0-3: the AMBA bus matches its driver by these.
_ID_BASE: Final = 0xFE0
_ID: Final = (0x31, 0x10, 0x14, 0x00, 0x0D, 0xF0, 0x05, 0xB1)


@dataclass(slots=True)
class Pl031:
    """One clock.

    offset    what DR was, in seconds, when virtual time was 0
    alarm_ns  when DR will next be MR, None for an alarm that came or was never set
    """

    offset: int = 0
    mr: int = 0
    lr: int = 0
    imsc: int = 0
    ris: int = 0
    alarm_ns: int | None = None

    def copy(self) -> Pl031:
        """Return another one like it."""
        return Pl031(self.offset, self.mr, self.lr, self.imsc, self.ris, self.alarm_ns)

    @property
    def irq(self) -> bool:
        """Give the level of the interrupt output, RTCINTR, as of the last look at the time."""
        return bool(self.ris & self.imsc)

    @property
    def deadline_ns(self) -> int | None:
        """When the interrupt output will be asserted, None where time alone does not do it."""
        return self.alarm_ns if self.imsc and not self.ris else None

    def look(self, now_ns: int) -> bool:
        """Let the alarm come if its time has; say whether it came."""
        if self.alarm_ns is None or now_ns < self.alarm_ns:
            return False
        self.ris, self.alarm_ns = _ALARM, None
        return True

    def read(self, offset: int, size_bytes: int, now_ns: int) -> int:
        """Read 1, 2 or 4 bytes; unknown offsets read 0."""
        self.look(now_ns)
        return self._read(offset & ~3, now_ns) >> 8 * (offset & 3) & (1 << 8 * size_bytes) - 1

    def write(self, offset: int, size_bytes: int, value: int, now_ns: int) -> None:
        """Write 1, 2 or 4 bytes; unknown and read-only offsets, and a register's upper byte lanes alone, ignore it."""
        self.look(now_ns)
        value &= (1 << 8 * size_bytes) - 1
        if offset == MR:
            self.mr = value
            self._set_alarm(now_ns)
        elif offset == LR:
            self.lr = value
            self.offset = value - now_ns // _SECOND_NS & MASK32
            self._set_alarm(now_ns)
        elif offset == IMSC:
            self.imsc = value & _ALARM
        elif offset == ICR:
            self.ris &= ~value

    def _count(self, now_ns: int) -> int:
        return self.offset + now_ns // _SECOND_NS & MASK32

    def _set_alarm(self, now_ns: int) -> None:
        # The counter wraps around, and the difference with it.
        seconds = self.mr - self._count(now_ns) & MASK32
        self.alarm_ns = (now_ns // _SECOND_NS + seconds) * _SECOND_NS
        self.look(now_ns)

    def _read(self, register: int, now_ns: int) -> int:
        if register == DR:
            return self._count(now_ns)
        if register == CR:
            return 1
        if register >= _ID_BASE and register < _ID_BASE + 4 * len(_ID):
            return _ID[(register - _ID_BASE) // 4]
        return {MR: self.mr, LR: self.lr, IMSC: self.imsc, RIS: self.ris, MIS: self.ris & self.imsc}.get(register, 0)
