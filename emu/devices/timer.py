"""One vCPU's EL1 generic timers as plain state (Arm ARM, "The Generic Timer in AArch64 state").

1. Time comes in as counter ticks; this file knows no clock.
2. Its fields are its whole state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from firmware.abi import MASK32, MASK64

ENABLE: Final = 1 << 0
IMASK: Final = 1 << 1
ISTATUS: Final = 1 << 2


@dataclass(slots=True)
class Timer:
    """One comparator: CNTx_CTL_EL0 without ISTATUS, and CNTx_CVAL_EL0."""

    ctl: int = 0
    cval: int = 0

    def read_ctl(self, now_ticks: int) -> int:
        met = self.ctl & ENABLE and now_ticks >= self.cval
        return self.ctl | (ISTATUS if met else 0)

    def write_ctl(self, value: int) -> None:
        self.ctl = value & (ENABLE | IMASK)

    def read_tval(self, now_ticks: int) -> int:
        return self.cval - now_ticks & MASK32

    def write_tval(self, value: int, now_ticks: int) -> None:
        """Set the comparator TVAL ticks from now; TVAL is signed, 32 bits."""
        signed = (value & MASK32 ^ 0x8000_0000) - 0x8000_0000
        self.cval = now_ticks + signed & MASK64

    def output(self, now_ticks: int) -> bool:
        """Give the level of the timer's output."""
        return self.ctl & (ENABLE | IMASK) == ENABLE and now_ticks >= self.cval

    @property
    def deadline_ticks(self) -> int | None:
        """When the timer's output will be asserted, or None while it is disabled or masked."""
        return self.cval if self.ctl & (ENABLE | IMASK) == ENABLE else None


@dataclass(slots=True)
class VcpuTimers:
    """The virtual and the physical EL1 timer of one vCPU; there is no offset between the two counters."""

    virtual: Timer = field(default_factory=Timer)
    physical: Timer = field(default_factory=Timer)

    def deadline_after(self, now_ticks: int) -> int | None:
        """When the first output to be asserted after now will be, or None."""
        deadlines = [timer.deadline_ticks for timer in (self.virtual, self.physical) if timer.deadline_ticks is not None]
        return min((deadline for deadline in deadlines if deadline > now_ticks), default=None)
