"""All that is modelled of a host, with its sources: what it answers by each conduit, and each column."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import inspect
from collections.abc import Iterator, Mapping

from emu.hostdiff import in_words, offered
from emu.hostfile import key_of
from emu.lists import show
from emu.questions import Question, ask
from firmware.dispatch import Firmware, configuration
from firmware.errors import errno_name
from firmware.host import Conduits, Host
from firmware.hosts.kvm_releases import mainline_of
from firmware.trap import Conduit, Reply

# What user space alone sees, a guest does not.
_NOT_COLUMNS = frozenset({"name", "summary", "sources", "unknown_columns", "user_interface"})
_FORMS = (
    Question("PSCI_VERSION", (0x8400_0000,)),
    Question("PSCI_VERSION, immediate 1", (0x8400_0000,), imm=1),
    Question("unknown, Standard Secure", (0x8400_0BAD,)),
    Question("unknown, Arm Architecture", (0x8000_0BAD,)),
    Question("unknown, vendor hypervisor", (0x8600_0BAD,)),
    Question("SMCCC_ARCH_WORKAROUND_1", (0x8000_8000,)),
)


def tell(host: Host) -> None:
    """Print a host: what it answers by each conduit, then every column with value and source."""
    print(f"{host.name}: {host.summary}\nPSCI {', '.join(map(str, offered(host)))}; {host.latest} by default")
    print(f"source: {host.sources.get('name', 'the standards')}\n")
    mainline = mainline_of(host)
    if mainline is not None:
        changed = [column for column in columns() if getattr(host, column) != getattr(mainline, column)]
        show("backported", f"in {mainline.name}", f"in {host.name}", rows=[_backport(mainline, host, column) for column in changed])
        print()
    show("call", *(f"by {conduit.name}" for conduit in Conduit), rows=list(_calls(host)))
    print()
    show("column", "value", "source", rows=[(key_of(column), _value(host, column), _source(host, column)) for column in columns()])


def columns() -> tuple[str, ...]:
    """Name every column that models something."""
    return tuple(field.name for field in dataclasses.fields(Host) if field.name not in _NOT_COLUMNS)


def fingerprint(host: Host) -> str:
    """Return what tells a host of the user's own from what its file says another time."""
    told = [(column, in_short(getattr(host, column))) for column in columns()]
    nodes = [host.node_compatible(version) for version in offered(host)]
    return hashlib.sha256(repr((told, nodes)).encode()).hexdigest()


def _calls(host: Host) -> Iterator[tuple[str, ...]]:
    # As if the platform served both conduits, except where the other one is UNDEF by the platform's choice.
    for question in _FORMS:
        cells = []
        for conduit in Conduit:
            firmware = Firmware(configuration(host, (0, 1), conduits=frozenset({host.default_conduit})))
            cells.append(in_words(firmware, question.regs[0], conduit, ask(firmware, question, conduit)))
        yield question.words, *cells


def _backport(mainline: Host, host: Host, column: str) -> tuple[str, str, str]:
    return key_of(column), _value(mainline, column), _value(host, column)


def _value(host: Host, column: str) -> str:
    if column == "unknown_register":
        return errno_name(host.unknown_register)
    if column in host.unknown_columns:
        return f"unknown (as if {in_short(getattr(host, column))})"
    return in_short(getattr(host, column))


def _source(host: Host, column: str) -> str:
    return "unknown" if column in host.unknown_columns else host.sources.get(column, "spec")


def in_short(value: object) -> str:
    """Spell a column's value on one line."""
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case Conduit():
            return value.value
        case Conduits():
            return value.name.lower()
        case enum.Enum():
            return value.name
        case int():
            return f"{value:#x}" if value > 9 else str(value)
        case str():
            return value
        case Reply():
            return f"x0={value.regs[0][1]:#x}" if value.regs else value.resume.value
        case Mapping():
            return ", ".join(f"{in_short(key)}: {in_short(each)}" for key, each in value.items()) or "none"
        case frozenset():
            return ", ".join(sorted(in_short(each) for each in value)) or "none"
        case tuple() if hasattr(value, "_fields") and not hasattr(value, "word"):
            return ", ".join(f"{name} {in_short(each)}" for name, each in zip(value._fields, value, strict=True) if name != "cite")
        case tuple() if not hasattr(value, "word"):
            return "; ".join(map(in_short, value)) or "none"
    return value.__name__ if inspect.isfunction(value) else str(value)
