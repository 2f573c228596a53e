"""Faults: what broken firmware would do to a reply, as data. Nothing here is a host's: a host is right by its own lights.

1. A fault names a function and which of its replies; its action says what becomes of that. Three kinds are of the firmware as a whole.
2. An action that puts an answer in the reply's place leaves the call undone; one that changes registers lets it be done first.
3. `str()` of a fault is its spelling, which emu/faultwords.py reads: traces and snapshots hold that.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from firmware.abi import MASK32, MASK64, PowerState, Psci

# What stands in a poisoned register: the register's number, and upper and lower halves that are neither a pointer nor small.
_POISON: Final = 0x0BAD_0BAD_0BAD_0B00
POISONABLE: Final = ((1, 3), (4, 17))  # result registers, and those that SMCCC 1.0 lets the firmware change beside them
_CODES: Final = {int(code): code.name for code in Psci if code}


class Replace(NamedTuple):
    """Put values in registers, signed or unsigned: with x0 they are the answer to a call that is not done, without it they are added."""

    regs: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        return ", ".join(f"x{number}={spelled(value)}" for number, value in self.regs)


class Exchange(NamedTuple):
    """Answer one code wherever the firmware answers another."""

    code: int
    other: int

    def __str__(self) -> str:
        return f"{_CODES[self.code]}={spelled(self.other)}"


class ZeroExtend(NamedTuple):
    """Leave the upper half of x0 zero under a negative 32-bit result (TF-A before 2018, U-Boot)."""

    def __str__(self) -> str:
        return "zero-extend"


class Poison(NamedTuple):
    """Leave nonsense in registers the guest may not rely on; x4 to x17 only while SMCCC 1.0 is in force."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"poison=x{self.first}-x{self.last}"


class Delay(NamedTuple):
    """Answer ON_PENDING to this many calls, without doing them."""

    polls: int

    def __str__(self) -> str:
        return f"delay={self.polls}"


class Drop(NamedTuple):
    """Answer SUCCESS and do nothing."""

    def __str__(self) -> str:
        return "drop"


class Undefined(NamedTuple):
    """Let the call be an undefined instruction."""

    def __str__(self) -> str:
        return "undef"


Action = Replace | Exchange | ZeroExtend | Poison | Delay | Drop | Undefined


class Fault(NamedTuple):
    """What becomes of a function's replies.

    function  a row's name
    action    what becomes of the reply
    nth       the reply it happens to, counted as call:NAME#N is; None for every one. A Delay begins there
    x1        only where x1 holds this, None for anything
    """

    function: str
    action: Action
    nth: int | None = None
    x1: int | None = None

    def __str__(self) -> str:
        condition = "" if self.x1 is None else f"(x1={self.x1:#x})"
        return f"{self.function}{condition}{'' if self.nth is None else f'#{self.nth}'}: {self.action}"

    def befalls(self, count: int, x1: int) -> bool:
        """Say whether it happens to the function's reply of this number, from 1."""
        if self.x1 is not None and x1 != self.x1:
            return False
        if isinstance(self.action, Delay):
            return 0 <= count - (self.nth or 1) < self.action.polls
        return self.nth is None or count == self.nth


# ---- the firmware as a whole


class WrongConduit(NamedTuple):
    """Serve the conduit that the device tree does not name, and only that."""

    def __str__(self) -> str:
        return "wrong-conduit"


class UnknownUndefined(NamedTuple):
    """Let a call of an unknown function be an undefined instruction."""

    def __str__(self) -> str:
        return "unknown=undef"


class TrustedOsOn(NamedTuple):
    """Have a uniprocessor Trusted OS on a vCPU, which then may not go off."""

    vcpu: int
    migratable: bool

    def __str__(self) -> str:
        return f"trusted-os=cpu{self.vcpu}{',migratable' if self.migratable else ''}"


AnyFault = Fault | WrongConduit | UnknownUndefined | TrustedOsOn


def spelled(value: int) -> str:
    """Spell a register's value: an error code by its name."""
    return _CODES.get(value, f"{value:#x}")


def pending_answer(function: str) -> int:
    """Return how a function says that a vCPU is about to start."""
    return PowerState.ON_PENDING if function == "AFFINITY_INFO" else Psci.ON_PENDING


def poison(first: int, last: int) -> dict[int, int]:
    """Return what stands in poisoned registers."""
    return {number: _POISON + number for number in range(first, last + 1)}


def zero_extended(x0: int) -> int:
    """Return a 64-bit register that holds a negative 32-bit number as a W register's write leaves it."""
    return x0 & MASK32 if MASK64 - 0x7FFF_FFFF <= x0 <= MASK64 else x0


def as_code(x0: int) -> int:
    """Return w0 as the signed number that a return code is."""
    word = x0 & MASK32
    return word - (word >> 31 << 32)
