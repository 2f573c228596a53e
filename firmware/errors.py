"""What the user of the emulator got wrong: one family, each error one sentence.

The sentence names the thing, the value, and what is allowed. A guest that is wrong gets a return code or an exception of
its own architecture, never one of these; a mistake of ours is an assertion or an uncaught exception.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Final


class UserError(Exception):
    """Tell the user in one sentence what was wrong; the command line ends with 102."""

    exit_code = 102


class InputError(UserError):
    """A file the user handed us cannot be used; the command line ends with 103."""

    exit_code = 103


class KernelError(UserError):
    """A request to the kernel was refused, with the errno its ioctl gives."""

    def __init__(self, number: int, sentence: str) -> None:
        super().__init__(f"{errno_name(number)}: {sentence}")
        self.errno = number


class RegisterError(KernelError):
    """A firmware pseudo-register access was refused, with the errno KVM_GET_ONE_REG or KVM_SET_ONE_REG gives."""


class RegisterListError(RegisterError):
    """The caller's list is too short for KVM_GET_REG_LIST (E2BIG); `count` says how many registers there are."""

    def __init__(self, room: int, count: int) -> None:
        super().__init__(errno.E2BIG, f"a list of {room} cannot hold the {count} firmware registers")
        self.count = count


def errno_name(number: int) -> str:
    """Spell an errno as the kernel does (22 -> "EINVAL")."""
    return errno.errorcode[number]


_SIMILAR: Final = 0.6
_LISTED: Final = 12


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Refuse a name nobody knows, with the nearest one that exists."""
    names = sorted(known)
    near = nearest(name, names)
    listed = ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
    return UserError(f"unknown {kind} {name!r}; " + (f"did you mean {near}?" if near else f"known: {listed}"))


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that looks most like this one, None if none does."""
    import difflib  # noqa: PLC0415  for the unhappy path alone

    folded = {candidate.lower(): candidate for candidate in sorted(known)}
    near = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=_SIMILAR)
    return folded[near[0]] if near else None
