"""A GICv3's CPU interface of one vCPU, the ICC_*_EL1 registers, as plain state (Arm IHI 0069, "GIC System register descriptions").

It knows running priorities, not interrupts: which one is pending, and what becomes of it, is the controller's (`emu/devices/gicv3.py`).
Five bits of priority, all of them preemption levels; so one active priorities register for each group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from emu.devices.gic_bank import PRIORITY_MASK, Pending

SystemRegister = tuple[int, int, int, int, int]  # op0, op1, CRn, CRm, op2

SPURIOUS: Final = 1023
IDLE_PRIORITY: Final = 0xFF

ICC_PMR: Final = (3, 0, 4, 6, 0)
ICC_BPR0: Final = (3, 0, 12, 8, 3)
ICC_AP0R0: Final = (3, 0, 12, 8, 4)
ICC_AP1R0: Final = (3, 0, 12, 9, 0)
ICC_DIR: Final = (3, 0, 12, 11, 1)
ICC_RPR: Final = (3, 0, 12, 11, 3)
ICC_BPR1: Final = (3, 0, 12, 12, 3)
ICC_CTLR: Final = (3, 0, 12, 12, 4)
ICC_SRE: Final = (3, 0, 12, 12, 5)
ICC_IGRPEN0: Final = (3, 0, 12, 12, 6)
ICC_IGRPEN1: Final = (3, 0, 12, 12, 7)

# The registers that concern interrupts, and their group.
ICC_IAR0: Final = (3, 0, 12, 8, 0)
ICC_IAR1: Final = (3, 0, 12, 12, 0)
ICC_EOIR0: Final = (3, 0, 12, 8, 1)
ICC_EOIR1: Final = (3, 0, 12, 12, 1)
ICC_HPPIR0: Final = (3, 0, 12, 8, 2)
ICC_HPPIR1: Final = (3, 0, 12, 12, 2)
ICC_SGI1R: Final = (3, 0, 12, 11, 5)
ICC_ASGI1R: Final = (3, 0, 12, 11, 6)
ICC_SGI0R: Final = (3, 0, 12, 11, 7)
ACKNOWLEDGE: Final = {ICC_IAR0: 0, ICC_IAR1: 1}
END: Final = {ICC_EOIR0: 0, ICC_EOIR1: 1}
HIGHEST_PENDING: Final = {ICC_HPPIR0: 0, ICC_HPPIR1: 1}
# The other security state's group 1 is group 0 where there is but one (GICD_CTLR.DS).
GENERATE: Final = {ICC_SGI0R: 0, ICC_SGI1R: 1, ICC_ASGI1R: 0}

# ICC_CTLR_EL1: CBPR and EOImode can be written; PRIbits is 5, IDbits is 16, A3V is 1.
CTLR_CBPR: Final = 1 << 0
CTLR_EOIMODE: Final = 1 << 1
CTLR_RSS: Final = 1 << 18
CTLR_FIXED: Final = (5 - 1) << 8 | 1 << 11 | 1 << 15
_SRE: Final = 0b111  # system registers always; no bypass
_LEAST_BPR0: Final = 2
_LEAST_BPR1: Final = 3
_LEVEL_SHIFT: Final = 3  # from a priority to its bit in an active priorities register


@dataclass(slots=True)
class Interface:
    """One vCPU's.

    ctlr      as it is read, without RSS
    enables   ICC_IGRPEN0_EL1 in bit 0, ICC_IGRPEN1_EL1 in bit 1
    ap0, ap1  active priorities by group
    """

    pmr: int = 0
    ctlr: int = CTLR_FIXED
    enables: int = 0
    bpr0: int = _LEAST_BPR0
    bpr1: int = _LEAST_BPR1
    ap0: int = 0
    ap1: int = 0

    def copy(self) -> Interface:
        """Return another one like it."""
        return Interface(self.pmr, self.ctlr, self.enables, self.bpr0, self.bpr1, self.ap0, self.ap1)

    @property
    def running_priority(self) -> int:
        """Give the highest active priority."""
        active = self.ap0 | self.ap1
        return ((active & -active).bit_length() - 1) << _LEVEL_SHIFT if active else IDLE_PRIORITY

    @property
    def splits_end(self) -> bool:
        """Say whether ICC_EOIR<n>_EL1 leaves deactivation to ICC_DIR_EL1."""
        return bool(self.ctlr & CTLR_EOIMODE)

    def takes(self, pending: Pending) -> bool:
        """Say whether an interrupt is signalled: not masked, and preempting what is active."""
        if pending.priority >= self.pmr:
            return False
        if not self.ap0 | self.ap1:
            return True
        group_priority = self._group_priority_mask(pending.group)
        return pending.priority & group_priority < self.running_priority & group_priority

    def _group_priority_mask(self, group: int) -> int:
        # BPR0 = 0 leaves one bit of subpriority, as does BPR1 = 1.
        subpriority_bits = self.bpr1 if group and not self.ctlr & CTLR_CBPR else self.bpr0 + 1
        return 0xFF << subpriority_bits & 0xFF

    def activate(self, pending: Pending) -> None:
        """Raise the running priority to an acknowledged interrupt's group priority."""
        level = 1 << ((pending.priority & self._group_priority_mask(pending.group)) >> _LEVEL_SHIFT)
        if pending.group:
            self.ap1 |= level
        else:
            self.ap0 |= level

    def drop_priority(self, group: int) -> bool:
        """Give the running priority up, if that group's interrupt has it; say whether it had."""
        lowest0, lowest1 = self.ap0 & -self.ap0, self.ap1 & -self.ap1
        if group:
            if not lowest1 or (lowest0 and lowest0 <= lowest1):
                return False
            self.ap1 ^= lowest1
        else:
            if not lowest0 or (lowest1 and lowest1 < lowest0):
                return False
            self.ap0 ^= lowest0
        return True

    def read(self, register: SystemRegister) -> int | None:
        """Read a register; None for what is none."""
        if register == ICC_PMR:
            return self.pmr
        if register == ICC_RPR:
            return self.running_priority
        if register == ICC_CTLR:
            return self.ctlr
        if register == ICC_IGRPEN1:
            return self.enables >> 1
        if register == ICC_IGRPEN0:
            return self.enables & 1
        if register == ICC_SRE:
            return _SRE
        if register == ICC_BPR0:
            return self.bpr0
        if register == ICC_BPR1:
            return min(self.bpr0 + 1, 7) if self.ctlr & CTLR_CBPR else self.bpr1
        if register == ICC_AP0R0:
            return self.ap0
        return self.ap1 if register == ICC_AP1R0 else None

    def write(self, register: SystemRegister, value: int) -> bool:
        """Write a register; False for what is none, or cannot be written."""
        if register == ICC_PMR:
            self.pmr = value & PRIORITY_MASK
        elif register == ICC_CTLR:
            self.ctlr = CTLR_FIXED | value & (CTLR_CBPR | CTLR_EOIMODE)
        elif register == ICC_IGRPEN1:
            self.enables = self.enables & ~2 | (value & 1) << 1
        elif register == ICC_IGRPEN0:
            self.enables = self.enables & ~1 | value & 1
        elif register == ICC_BPR0:
            self.bpr0 = max(value & 7, _LEAST_BPR0)
        elif register == ICC_BPR1:
            if not self.ctlr & CTLR_CBPR:
                self.bpr1 = max(value & 7, _LEAST_BPR1)
        elif register == ICC_AP0R0:
            self.ap0 = value & 0xFFFF_FFFF
        elif register == ICC_AP1R0:
            self.ap1 = value & 0xFFFF_FFFF
        else:
            return register == ICC_SRE
        return True
