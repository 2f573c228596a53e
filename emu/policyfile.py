"""A migration policy of the user's own, in TOML:

name = "keep-bitmaps-back"
based-on = "pseudo-register"              # every key below may be left out, and is then this policy's
summary = "..."
kernel-default = "newest"                 # or a version: what kernels with a version register offer unasked
asks = "source"                           # who writes the version a user asks for: nobody, source, both
machine-types = { "virt" = "none" }       # the version each asks for on both sides; the first is the default
withholds = ["PSCI_VERSION=0.2", "STD_BMAP"]   # the sender's filter; "*" is every register
unknown = "refuse"                        # the receiver's rule for what its kernel lacks: refuse, ignore
missing = "keep"                          # the receiver's rule for what was not sent: keep, refuse
safe-missing = ["VENDOR_HYP_BMAP_2"]      # what the receiver's kernel may lack all the same
absent-version = "none"                   # or a version: written to PSCI_VERSION when that was not sent

A machine type that hides registers, which are then neither sent nor expected, is a table:

machine-types = { "virt-10.1" = { asks-for = "none", hides = ["VENDOR_HYP_BMAP_2"] } }
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from emu.tomlfile import check_keys, choice, convert, listed, read_table, text
from emu.words import parse_number, parse_version, parse_version_value
from firmware.abi import Version
from firmware.errors import InputError, UserError, unknown
from firmware.fwregs import BY_NAME
from firmware.policy import POLICIES, Asks, MachineType, Missing, Policy, Unknown, Withheld, policy_named


def policy_of(name: str) -> Policy:
    """Return the policy of that name, or the one in that file (FILE.toml)."""
    return read_policy(Path(name)) if name.endswith(".toml") else policy_named(name)


def read_policy(path: Path) -> Policy:
    """Read a policy; raise InputError with the key and the value that is wrong."""
    table = read_table(path)
    check_keys(path, table, {"name": None, "based-on": None, "summary": None, **_COLUMNS})
    if "based-on" not in table:
        raise InputError(f"{path}: based-on is missing; allowed: {', '.join(POLICIES)}")
    policy = convert(path, "based-on", lambda value: policy_named(text(value)), table["based-on"])
    changes: dict[str, Any] = {"name": convert(path, "name", _line, table.get("name", path.stem)), "cite": str(path)}
    if "summary" in table:
        changes["summary"] = convert(path, "summary", _line, table["summary"])
    for key, convert_one in _COLUMNS.items():
        if key in table:
            changes[key.replace("-", "_")] = convert(path, key, convert_one, table[key])
    return dataclasses.replace(policy, **changes)


def _line(value: Any) -> str:
    line = text(value)
    if not line or not line.isprintable():
        raise UserError(f"{line!r} is not a line of printable characters")
    return line


def _version_or(nothing: str) -> Callable[[Any], Version | None]:
    return lambda value: None if value == nothing else parse_version(text(value))


def _machine_types(value: Any) -> tuple[MachineType, ...]:
    if not isinstance(value, dict) or not value:
        raise UserError(f"{value!r} is not a table of machine types and versions")
    return tuple(_machine_type(name, each) for name, each in value.items())


def _machine_type(name: str, value: Any) -> MachineType:
    columns = {"asks-for": value} if isinstance(value, str) else value
    if not isinstance(columns, dict):
        raise UserError(f"{value!r} is neither a version nor a table of asks-for and hides")
    for key in columns:
        if key not in ("asks-for", "hides"):
            raise UserError(f"{name}: unknown key {key!r}; known: asks-for, hides")
    asks_for = _version_or("none")(columns.get("asks-for", "none"))
    return MachineType(name, asks_for, frozenset(listed(_register_name)(columns.get("hides", []))))


def _register_name(value: Any) -> str:
    name = text(value)
    if name not in BY_NAME:
        raise unknown("firmware register", name, BY_NAME)
    return name


def _withheld(value: Any) -> Withheld:
    name, equals, number = text(value).partition("=")
    if name == "*" and not equals:
        return Withheld("*")
    register = _register_name(name)
    if not equals:
        return Withheld(register)
    return Withheld(register, parse_version_value(number) if register == "PSCI_VERSION" else parse_number(register, number))


_COLUMNS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "kernel-default": _version_or("newest"),
    "asks": choice({each.value: each for each in Asks}),
    "machine-types": _machine_types,
    "withholds": listed(_withheld),
    "unknown": choice({each.value: each for each in Unknown}),
    "missing": choice({each.value: each for each in Missing}),
    "safe-missing": lambda value: frozenset(listed(_register_name)(value)),
    "absent-version": _version_or("none"),
}
