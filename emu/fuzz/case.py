"""One firmware as the fuzzer varies it, in the words of the command line: plain data, from which a run follows to the byte.

A case is compared, sent to other computers and written to files; it holds no object that any of these could not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final, NamedTuple

from emu.faultwords import parse_fault
from emu.scheduler import TRAP_NS
from firmware.errors import UserError
from firmware.faults import AnyFault

_AT: Final = re.compile(r"(?P<what>[^@]+)@(?P<at>call:\w+#[1-9]\d{0,8})", re.ASCII)
_LISTS: Final = ("faults", "changes", "moves")


@lru_cache(1 << 14)
def fault_of(text: str) -> AnyFault:
    """Read a case's fault, which is never a file; raise UserError for what is none."""
    return parse_fault(text)


class Case(NamedTuple):
    """A host at one of its versions, and what is done to it.

    conduit     hvc or smc, None for the host's own
    compatible  what the psci node is compatible with, empty for what host and version say
    faults      as -fault takes them
    changes     V@call:NAME#N: the version register is written while the guest runs
    moves       HOST@call:NAME#N: the running guest is moved to another host, under the policy pseudo-register
    seed        of schedule and entropy, from the first call on
    call_ns     how long a call takes, in virtual nanoseconds
    """

    host: str
    psci: str
    conduit: str | None = None
    compatible: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    moves: tuple[str, ...] = ()
    seed: int = 0
    call_ns: int = TRAP_NS

    def having(self, name: str, value: Any) -> Case:
        """Return the same with one field changed."""
        return self._replace(**{name: value})

    @property
    def plain(self) -> Case:
        """The host and version alone, with nothing done to them."""
        return Case(self.host, self.psci)

    def words(self) -> Iterator[str]:
        """Yield what the case is, option by option as `psci-emu run` takes them, and what no option has in words."""
        yield f"-host {self.host} -psci {','.join([self.psci, *self.changes])}"
        if self.conduit is not None:
            yield f"-conduit {self.conduit}"
        yield from (f"-fault '{fault}'" for fault in self.faults)
        if self.seed:
            yield f"(seed {self.seed} from the first call on)"  # -seed would draw the schedule before it too
        if self.compatible:
            yield f"(the psci node is compatible with {', '.join(self.compatible)})"
        yield from ("(moved to {} at {})".format(*parse_at(move)) for move in self.moves)
        if self.call_ns != TRAP_NS:
            yield f"(a call takes {self.call_ns} ns)"

    def __str__(self) -> str:
        return " ".join(self.words())

    def simpler(self, reference: Case) -> Iterator[Case]:
        """Yield the same with one thing less, the thing that is most of a case first."""
        for name in _LISTS:
            items = getattr(self, name)
            yield from (self.having(name, items[:at] + items[at + 1 :]) for at in range(len(items)))
        plain = self.plain
        for name in ("compatible", "conduit", "seed", "call_ns"):
            if getattr(self, name) != getattr(plain, name):
                yield self.having(name, getattr(plain, name))
        if (self.host, self.psci) != (reference.host, reference.psci):
            yield self._replace(host=reference.host, psci=reference.psci)
            if self.host != reference.host:
                yield self._replace(host=reference.host)  # which may not have the version: then it is no case

    def as_table(self) -> dict[str, Any]:
        """Return the fields that say something, as TOML has them."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in self._asdict().items()
            if value != Case._field_defaults.get(name, ...)
        }


def parse_at(text: str) -> tuple[str, str]:
    """Split WHAT@call:NAME#N; raise UserError for what is not of that form."""
    match = _AT.fullmatch(text)
    if match is None:
        raise UserError(f"{text!r} is not WHAT@call:NAME#N")
    return match["what"], match["at"]
