"""The oracle's vocabulary: numbers, states, events and outcomes.

Rules of this package.
1. It imports nothing of the code under test: two models that share a table share its mistakes.
2. A number from a standard stands here or in `functions.py`, once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

MASK32 = 0xFFFF_FFFF
MASK64 = 0xFFFF_FFFF_FFFF_FFFF
AFFINITY_BITS = 0xFF_00FF_FFFF
EL1H_MASKED = 0x3C5  # PSTATE of a started vCPU: EL1h, D, A, I and F masked


class Psci(IntEnum):
    SUCCESS = 0
    NOT_SUPPORTED = -1
    INVALID_PARAMETERS = -2
    DENIED = -3
    ALREADY_ON = -4
    ON_PENDING = -5
    INTERNAL_FAILURE = -6
    NOT_PRESENT = -7
    INVALID_ADDRESS = -9


class Errno(IntEnum):
    OK = 0
    ENOENT = 2
    EBUSY = 16
    EINVAL = 22


class Power(StrEnum):
    OFF = "off"
    ON_PENDING = "on-pending"
    ON = "on"
    SUSPENDED = "suspended"


class Resume(StrEnum):
    NEXT = "next"  # go on: after the trapping instruction, or at the PC that was written
    WAIT = "wait"  # until Woken
    NEVER = "never"
    UNDEF = "undef"
    EXIT = "exit"  # to the VMM; the vCPU would go on at the next instruction
    NONE = "none"  # the event was no call: nothing to resume


class Mp(StrEnum):
    RUNNABLE = "runnable"
    STOPPED = "stopped"
    SUSPENDED = "suspended"


@dataclass(frozen=True, slots=True)
class PendingReset:
    entry_point_address: int
    context_id: int
    big_endian: bool = False

    def regs(self) -> dict[str, int]:
        """The registers a reset writes; every other general register becomes 0 (KVM, TF-A) or is UNKNOWN (DEN 0022)."""
        return {"pc": self.entry_point_address, "x0": self.context_id, "pstate": EL1H_MASKED, "ee": int(self.big_endian)}


@dataclass(frozen=True, slots=True)
class Vcpu:
    """One vCPU. `wake` in SUSPENDED says that Woken ends it; None means the VMM's own, sticky suspension.

    skips  the PC is still to be moved past the SMC that was the last call
    """

    power: Power
    pending: PendingReset | None = None
    wake: Standby | None = None
    skips: bool = False

    def reset(self) -> dict[str, int]:
        """The registers that the pending reset writes, if there is one."""
        regs = self.pending.regs() if self.pending else {}
        return {**regs, "pc": regs["pc"] + 4 & MASK64} if regs and self.skips else regs


@dataclass(frozen=True, slots=True)
class Standby:
    """CPU_SUSPEND: the vCPU goes on after the call, or at the entry point that `pending` holds.

    power_state  what the sleep is counted under, None where the host keeps no statistics
    """

    power_state: int | None = None


@dataclass(frozen=True, slots=True)
class Trap:
    vcpu: int
    conduit: str
    imm: int
    x0: int
    x1: int = 0
    x2: int = 0
    x3: int = 0
    big_endian: bool = False  # the caller's, which a vCPU it starts inherits


@dataclass(frozen=True, slots=True)
class Enter:
    """The vCPU is about to run (KVM_RUN): its first instruction, if it was started."""

    vcpu: int


@dataclass(frozen=True, slots=True)
class RegisterAccess:
    """User space reads or writes any register through this vCPU, which does not make it run."""

    vcpu: int


@dataclass(frozen=True, slots=True)
class Woken:
    vcpu: int


@dataclass(frozen=True, slots=True)
class MpState:
    vcpu: int
    state: Mp


@dataclass(frozen=True, slots=True)
class Reset:
    """System reset by the VMM."""


Event = Trap | Enter | RegisterAccess | Woken | MpState | Reset

# A kind and its number: runnable, stopped and woken carry a vCPU; off and reset carry KVM's event flags; suspend carries 0;
# zeroed carries the address of a stolen-time structure.
Effect = tuple[str, int]
Regs = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an event does: registers of its vCPU, how that resumes, what the machine is told, every vCPU's next state.

    regs    "x0".."x3", and after a reset "pc", "pstate", "ee"; what is not named keeps its value
    free    masks over `regs`: bits that entropy or a clock decides, 0 in `regs`
    remote  registers of other vCPUs (hosts that reset inside CPU_ON)
    """

    states: tuple[Vcpu, ...]
    regs: Regs = field(default_factory=dict)
    resume: Resume = Resume.NONE
    effects: frozenset[Effect] = field(default_factory=frozenset)
    free: Regs = field(default_factory=dict)
    remote: Mapping[int, Regs] = field(default_factory=dict)

    def visible(self) -> tuple[int, ...]:
        """Each vCPU's power state as AFFINITY_INFO numbers it: the only part of `states` that a guest can see."""
        return tuple({Power.OFF: 1, Power.ON_PENDING: 2}.get(vcpu.power, 0) for vcpu in self.states)
