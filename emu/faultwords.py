"""How a user spells a fault, on the command line and in a file; firmware/faults.py says what each does.

CPU_ON#2: x0=INTERNAL_FAILURE               the second CPU_ON is not done, and answers this
PSCI_FEATURES(x1=0x84000012): x0=0          only where x1 holds this
AFFINITY_INFO: x1=0x5, x2=0x6               done, and these are written beside what it answers
PSCI_FEATURES: NOT_SUPPORTED=DENIED         one code for another
CPU_ON: zero-extend | drop | undef | delay=3 | poison=x1-x3 | poison=x4-x17
version=2.0 | features=yes | features=no | unknown=undef | wrong-conduit | trusted-os=cpu1[,migratable]

A file is TOML: faults = ["...", "..."].
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Final

from emu.words import MAX_VCPUS
from firmware.abi import MASK64, Psci, Smccc, Trng, Version
from firmware.dispatch import configuration, rows
from firmware.errors import InputError, UserError, unknown
from firmware.faults import (
    POISONABLE,
    Action,
    AnyFault,
    Delay,
    Drop,
    Exchange,
    Fault,
    Poison,
    Replace,
    TrustedOsOn,
    Undefined,
    UnknownUndefined,
    WrongConduit,
    ZeroExtend,
)
from firmware.hosts.spec import SPEC

_RESULTS: Final = {function.name: function.result for _, function in rows(configuration(SPEC))}
_CODES: Final = {code.name: int(code) for codes in (Smccc, Trng, Psci) for code in codes}
_ERRORS: Final = {name: code for name, code in _CODES.items() if code < 0}
_MOST_REPLIES: Final = 10**9
_HIGHEST_VERSION_PART: Final = 0xFFFF
_WIDE: Final = ("version=V", "features=yes", "features=no", "unknown=undef", "wrong-conduit", "trusted-os=cpuN")
_PLAIN: Final[dict[str, Action]] = {"zero-extend": ZeroExtend(), "drop": Drop(), "undef": Undefined()}
_ACTIONS: Final = ("x0=VALUE", "NOT_SUPPORTED=VALUE", *_PLAIN, "delay=N", "poison=x1-x3", "poison=x4-x17")


def parse_faults(words: Iterable[str]) -> tuple[AnyFault, ...]:
    """Read faults, each in words or as a file of them (FILE.toml)."""
    found: list[AnyFault] = []
    for word in words:
        found += _read_file(Path(word)) if word.endswith(".toml") else (parse_fault(word),)
    return tuple(found)


def _read_file(path: Path) -> tuple[AnyFault, ...]:
    from emu.tomlfile import check_keys, convert, listed, read_table, text  # noqa: PLC0415  for those who have a file

    table = read_table(path)
    check_keys(path, table, {"faults": None})
    if "faults" not in table:
        raise InputError(f"{path}: faults is missing; it is a list of what -fault takes")
    return convert(path, "faults", listed(lambda value: parse_fault(text(value))), table["faults"])


def parse_fault(word: str) -> AnyFault:
    """Read one fault; raise UserError for what is none."""
    try:
        return _row_fault(word) if ":" in word else _wide(word.strip())
    except UserError as error:
        raise UserError(f"fault {word!r}: {error}") from None


def _row_fault(word: str) -> Fault:
    left, _, right = word.partition(":")
    match = re.fullmatch(r"\s*(?P<name>\w+)\s*(?:\(\s*x1\s*=(?P<x1>[^()]*)\))?(?:#(?P<nth>\w*))?\s*", left, re.ASCII)
    if match is None:
        raise UserError(f"{left.strip()!r} is not NAME, NAME#N or NAME(x1=VALUE)#N")
    name = match["name"]
    if name not in _RESULTS:
        raise unknown("function", name, _RESULTS)
    nth = None if match["nth"] is None else _count("the number of the reply", match["nth"])
    x1 = None if match["x1"] is None else _value(match["x1"].strip()) & MASK64
    return Fault(name, _action(name, right.strip()), nth, x1)


def _action(function: str, word: str) -> Action:
    key, equals, value = word.partition("=")
    if not equals:
        if key not in _PLAIN:
            raise UserError(f"{word!r} is no action; known: {', '.join(_ACTIONS)}")
        if key == "drop" and _RESULTS[function] not in ("status", "none"):
            raise UserError(f"drop is for a function that answers SUCCESS, which {function} does not")
        return _PLAIN[key]
    if key == "delay":
        if function not in ("CPU_ON", "AFFINITY_INFO"):
            raise UserError(f"delay is for CPU_ON and AFFINITY_INFO, which have an ON_PENDING to answer; {function} has none")
        return Delay(_count("delay", value))
    if key == "poison":
        ranges = {f"x{first}-x{last}": Poison(first, last) for first, last in POISONABLE}
        if value not in ranges:
            raise UserError(f"poison is for {' or '.join(ranges)}, not {value!r}: the firmware keeps all others")
        return ranges[value]
    if key in _ERRORS:
        return Exchange(_ERRORS[key], _value(value))
    return _replace(word)


def _replace(word: str) -> Replace:
    values: dict[int, int] = {}
    for part in word.split(","):
        register, _, value = part.strip().partition("=")
        match = re.fullmatch(r"x([0-3])", register)
        if match is None:
            raise UserError(f"{part.strip()!r} is no action; known: {', '.join(_ACTIONS)}")
        if int(match[1]) in values:
            raise UserError(f"{register} is there twice")
        values[int(match[1])] = _value(value)
    return Replace(tuple(sorted(values.items())))


def _value(word: str) -> int:
    """Read a register's value: a code's name, a number, or a version."""
    if word in _CODES:
        return _CODES[word]
    if re.fullmatch(r"\d{1,5}\.\d{1,5}", word, re.ASCII):
        return _version(word)
    number = None
    if re.fullmatch(r"-?0[xX][0-9a-fA-F]{1,16}", word):
        number = int(word, 16)
    elif re.fullmatch(r"-?[0-9]{1,20}", word):
        number = int(word)
    if number is None and re.fullmatch(r"[A-Z_]+", word):
        raise unknown("code", word, _CODES)
    if number is None or not -(1 << 63) <= number <= MASK64:
        raise UserError(f"{word!r} is not a code's name, a 64-bit number or a version")
    return number


def _version(word: str) -> int:
    major, minor = (int(part) for part in word.split("."))
    if max(major, minor) > _HIGHEST_VERSION_PART:
        raise UserError(f"{word} is no version: each part is at most {_HIGHEST_VERSION_PART}")
    return Version(major, minor).word


def _count(what: str, word: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", word, re.ASCII) or not 1 <= int(word) <= _MOST_REPLIES:
        raise UserError(f"{what} is a number from 1 to {_MOST_REPLIES}, not {word!r}")
    return int(word)


# ---- the firmware as a whole


def _wide(word: str) -> AnyFault:
    key, equals, value = word.partition("=")
    fixed: dict[str, Callable[[], AnyFault]] = {
        "wrong-conduit": WrongConduit,
        "unknown=undef": UnknownUndefined,
        "features=yes": partial(Fault, "PSCI_FEATURES", Replace(((0, int(Psci.SUCCESS)),))),
        "features=no": partial(Fault, "PSCI_FEATURES", Replace(((0, int(Psci.NOT_SUPPORTED)),))),
    }
    if word in fixed:
        return fixed[word]()
    if key == "version" and equals:
        if value != "-1" and not re.fullmatch(r"\d{1,5}\.\d{1,5}", value, re.ASCII):
            raise UserError(f"{value!r} is not a version such as 2.0, nor -1")
        return Fault("PSCI_VERSION", Replace(((0, _value(value)),)))
    if key == "trusted-os" and equals:
        match = re.fullmatch(r"cpu([0-9])(,migratable)?", value, re.ASCII)
        if match is None or int(match[1]) >= MAX_VCPUS:
            raise UserError(f"{value!r} is not cpuN or cpuN,migratable, with N from 0 to {MAX_VCPUS - 1}")
        return TrustedOsOn(int(match[1]), migratable=match[2] is not None)
    raise UserError(f"it is neither FUNCTION#N: ACTION nor one of {', '.join(_WIDE)}")
