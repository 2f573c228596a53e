"""What can be changed in a case, one thing at a time.

1. A change is drawn from what the guest did: only functions that it called can be faulty, only replies that it was given.
2. The draw is the generator's that is handed in: the same seed gives the same cases, on every computer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from random import Random
from typing import Final, NamedTuple

from emu.faultwords import parse_fault
from emu.fuzz.case import Case
from emu.scheduler import TRAP_NS
from firmware.abi import Psci
from firmware.errors import UserError

# By function: how many calls a run made of it.
Profile = tuple[tuple[str, int], ...]

_MOST_CHANGES: Final = 3
_MOST_OF_A_KIND: Final = 4
_MOST_NTH: Final = 8
MOST_SEED: Final = 1 << 16

_ERRORS: Final = tuple(code.name for code in Psci if code)
_VALUES: Final = ("0x0", "0x1", "0x2", "0x1_0000", "0x7fff_ffff", "0xffff_ffff", "0xffff_ffff_ffff_ffff")
_ACTIONS: Final = (
    *(f"x0={code}" for code in _ERRORS),
    *(f"x0={value.replace('_', '')}" for value in _VALUES),
    *(f"{code}={other}" for code in ("NOT_SUPPORTED", "ALREADY_ON") for other in _ERRORS if other != code),
    *("zero-extend", "drop", "undef", "delay=1", "delay=3", "poison=x1-x3", "poison=x4-x17"),
)
_VERSIONS: Final = ("-1", "0.0", "0.1", "0.2", "1.0", "1.1", "1.2", "1.3", "1.4", "2.0", "65535.65535")
_OF_THE_FIRMWARE: Final = (
    *(f"version={version}" for version in _VERSIONS),
    *("features=yes", "features=no", "unknown=undef", "wrong-conduit"),
    *(f"trusted-os=cpu{vcpu}{more}" for vcpu in (0, 1) for more in ("", ",migratable")),
)
_COMPATIBLE: Final = (("arm,psci-1.0",), ("arm,psci-1.0", "arm,psci-0.2"), ("arm,psci-0.2",), ("arm,psci-1.1", "arm,psci-1.0"))
_CALLS_NS: Final = (100, 10_000, 100_000)


class Choice(NamedTuple):
    """What a fuzz run may draw from: hosts with their versions, and the one conduit, None for any."""

    firmware: tuple[tuple[str, tuple[str, ...]], ...]
    conduit: str | None = None


class Mutated(NamedTuple):
    """A new case, and in a word what was changed last."""

    case: Case
    how: str


def mutated(parent: Case, profile: Profile, choice: Choice, draw: Random) -> Mutated:
    """Return a case with one to three things changed."""
    case, how = parent, ""
    for _ in range(draw.choice((1, 1, 1, 2, 2, _MOST_CHANGES))):
        how, change = draw.choice(_CHANGES)
        case = change(case, profile, choice, draw)
    return Mutated(case, how)


def single(base: Case, profile: Profile, choice: Choice) -> Iterator[Mutated]:
    """Yield every case in which one reply of each function, or all of them, or the firmware as a whole, is broken in one way."""
    yield from (Mutated(base._replace(faults=(fault,)), "faults") for fault in _OF_THE_FIRMWARE)
    for name, count in profile:
        for nth in ("", *(f"#{number}" for number in range(1, min(count, 2) + 1) if count > 1)):
            yield from (Mutated(base._replace(faults=(f"{name}{nth}: {action}",)), "faults") for action in _actions(name))
    yield from (Mutated(base._replace(compatible=strings), "compatible") for strings in _COMPATIBLE)
    if choice.conduit is None:
        yield from (Mutated(base._replace(conduit=conduit), "conduit") for conduit in ("hvc", "smc"))


# ---- the changes


def _host(case: Case, _profile: Profile, choice: Choice, draw: Random) -> Case:
    host, versions = draw.choice(choice.firmware)
    return case._replace(host=host, psci=draw.choice(versions))


def _version(case: Case, _profile: Profile, choice: Choice, draw: Random) -> Case:
    return case._replace(psci=draw.choice(_versions(case, choice)))


def _fault(case: Case, profile: Profile, _choice: Choice, draw: Random) -> Case:
    if not profile or draw.random() < 0.2:
        return _added(case, "faults", draw.choice(_OF_THE_FIRMWARE), draw)
    name, reply = _reply(profile, draw)
    return _added(case, "faults", f"{reply}: {draw.choice(_actions(name))}", draw)


def _without(case: Case, _profile: Profile, _choice: Choice, draw: Random) -> Case:
    named = [name for name in ("faults", "changes", "moves") if getattr(case, name)]
    if not named:
        return case._replace(seed=0, call_ns=TRAP_NS)
    name = draw.choice(named)
    items = getattr(case, name)
    at = draw.randrange(len(items))
    return case.having(name, (*items[:at], *items[at + 1 :]))


def _change(case: Case, profile: Profile, choice: Choice, draw: Random) -> Case:
    if not profile:
        return case
    return _added(case, "changes", f"{draw.choice(_versions(case, choice))}@{_point(profile, draw)}", draw)


def _move(case: Case, profile: Profile, choice: Choice, draw: Random) -> Case:
    if not profile:
        return case
    return _added(case, "moves", f"{draw.choice(choice.firmware)[0]}@{_point(profile, draw)}", draw)


def _seed(case: Case, _profile: Profile, _choice: Choice, draw: Random) -> Case:
    return case._replace(seed=draw.randrange(MOST_SEED))


def _call_ns(case: Case, _profile: Profile, _choice: Choice, draw: Random) -> Case:
    return case._replace(call_ns=draw.choice(_CALLS_NS))


def _conduit(case: Case, _profile: Profile, choice: Choice, draw: Random) -> Case:
    return case._replace(conduit=draw.choice(("hvc", "smc", None))) if choice.conduit is None else case


def _compatible(case: Case, _profile: Profile, _choice: Choice, draw: Random) -> Case:
    return case._replace(compatible=draw.choice(((), *_COMPATIBLE)))


_Change = Callable[[Case, Profile, Choice, Random], Case]
# As often as it stands here: what needs another boot of the guest, or takes longer, is rare.
_CHANGES: Final[tuple[tuple[str, _Change], ...]] = (
    *(("faults", _fault),) * 14,
    *(("host", _host),) * 4,
    *(("version", _version),) * 3,
    *(("without", _without),) * 4,
    *(("seed", _seed),) * 4,
    *(("call_ns", _call_ns),) * 3,
    ("version change", _change),
    ("move", _move),
    ("conduit", _conduit),
    ("compatible", _compatible),
)


def _added(case: Case, name: str, item: str, draw: Random) -> Case:
    items: Sequence[str] = getattr(case, name)
    if len(items) >= _MOST_OF_A_KIND:
        items = items[1:]
    at = draw.randrange(len(items) + 1)
    return case.having(name, (*items[:at], item, *items[at:]))


def _reply(profile: Profile, draw: Random) -> tuple[str, str]:
    name, count = draw.choice(profile)
    return name, name if draw.random() < 0.4 else f"{name}#{draw.randint(1, min(count, _MOST_NTH))}"


@cache
def _actions(name: str) -> tuple[str, ...]:
    """Return what a function's replies can suffer: not every one has a success to be feigned."""
    return tuple(action for action in _ACTIONS if _is_fault(f"{name}: {action}"))


def _is_fault(word: str) -> bool:
    try:
        parse_fault(word)
    except UserError:
        return False
    return True


def _versions(case: Case, choice: Choice) -> tuple[str, ...]:
    # The reference, and a case of a folder, may be on a host that was not chosen.
    return dict(choice.firmware).get(case.host, (case.psci,))


def _point(profile: Profile, draw: Random) -> str:
    name, count = draw.choice(profile)
    return f"call:{name}#{draw.randint(1, min(count, _MOST_NTH))}"
