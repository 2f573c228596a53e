"""A host of the user's own, in TOML: an existing host with some columns changed. Its name is the file's, as the user gave it.

based-on = "kvm-6.12"                     # the one key that must be there
summary = "..."
latest = "1.1"                            # every column of firmware/host.py, with hyphens; `psci-emu hosts show NAME` prints them all
versions = ["1.0", "1.1"]
serves = ["PSCI_VERSION", "CPU_ON"]       # function names
refuses = { add = ["MIGRATE"] }           # a set may be given by what is added to it and removed from it
affinity-rule = "only_affinity_level_0"   # a rule, by its name
unknown = "UNDEF"                         # a return code, or UNDEF
smccc = "none"                            # none, where a column may have no value
node-compatible = ["arm,psci-1.0"]        # strings, or a rule
deviations = [{ discovery = "PSCI_FEATURES", function = "SMCCC_VERSION", value = -1 }]
"""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from emu.tomlfile import check_keys, choice, convert, listed, read_table, text
from emu.words import MAX_VCPUS, parse_smccc, parse_version
from firmware.abi import MASK32, MASK64, PSCI_0_1, PowerState, Psci, Version
from firmware.dispatch import configuration, function_names
from firmware.errors import InputError, UserError, unknown
from firmware.fwregs import BY_NAME
from firmware.host import Conduits, Deviation, FunctionIds, Host, StandardSecure, TrustedOs
from firmware.hosts import HOSTS, host_named
from firmware.hosts.spec import SPEC
from firmware.trap import Conduit, Reply, Resume

Convert = Callable[[Any], Any]

_LONGEST_TEXT: Final = 135
_FUNCTIONS: Final = function_names(configuration(SPEC))
_WORKAROUNDS: Final = frozenset(name for name in _FUNCTIONS if name.startswith("SMCCC_ARCH_WORKAROUND_"))
_DISCOVERIES: Final = ("PSCI_FEATURES", "SMCCC_ARCH_FEATURES", "TRNG_FEATURES", "PV_TIME_FEATURES")


def read_host(path: Path) -> Host:
    """Read a host; raise InputError with the key and the value that is wrong."""
    table = read_table(path)
    check_keys(path, table, {"based-on": None, **KEYS})
    if "based-on" not in table:
        raise InputError(f"{path}: based-on is missing; it names a host (psci-emu hosts)")
    base = convert(path, "based-on", lambda value: host_named(text(value)), table.pop("based-on"))
    changes = {column_of(key): convert(path, key, _of(base, key), value) for key, value in table.items()}
    host = base.evolve(cite=str(path), **{"name": str(path), "summary": f"as {base.name}, changed", **changes})
    for broken in _contradictions(host):
        raise InputError(f"{path}: {broken}")
    return host


def key_of(column: str) -> str:
    return column.replace("_", "-")


def column_of(key: str) -> str:
    return key.replace("-", "_")


def _contradictions(host: Host) -> list[str]:
    """Say which columns do not go together."""
    served = host.serves | host.refuses
    lacking = sorted((served & _WORKAROUNDS) - host.workaround_answers.keys())
    checks = {
        f"latest: {host.latest} is not among versions": host.latest not in host.versions,
        f"smccc: {host.smccc} is not among smccc-versions": host.smccc not in (*host.smccc_versions, None),
        "offers-0-1: there are no ids-0-1 to offer": host.offers_0_1 and host.ids_0_1 is None,
        "latest: 0.1 has no ids-0-1": host.latest == PSCI_0_1 and host.ids_0_1 is None,
        f"workaround-answers: none for {', '.join(lacking)}, which the host serves": bool(lacking),
    }
    return [sentence for sentence, broken in checks.items() if broken]


# ---- values


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise UserError(f"{value!r} is not true or false")
    return value


def _integer(low: int, high: int) -> Convert:
    def convert_one(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise UserError(f"{value!r} is not a whole number from {low:#x} to {high:#x}")
        return value

    return convert_one


_WORD: Final = _integer(0, MASK32)
_RESULT: Final = _integer(-1 << 31, MASK64)


def _text(value: Any) -> str:
    line = text(value)
    if len(line) > _LONGEST_TEXT or not (line.isascii() and line.isprintable()):
        raise UserError(f"{line[:_LONGEST_TEXT]!r} is not a line of at most {_LONGEST_TEXT} ASCII characters")
    return line


def _name_of(kind: str, known: Mapping[str, Any] | frozenset[str]) -> Convert:
    def convert_one(value: Any) -> str:
        name = text(value)
        if name not in known:
            raise unknown(kind, name, known)
        return name

    return convert_one


_function: Final = _name_of("function", _FUNCTIONS)


def _version(value: Any) -> Version:
    return parse_version(text(value))


def _smccc(value: Any) -> Version:
    return parse_smccc(text(value))


def _ascending(convert_one: Convert) -> Convert:
    def convert_all(value: Any) -> tuple[Any, ...]:
        values = tuple(sorted(set(listed(convert_one)(value))))
        if not values and convert_one is _version:
            raise UserError("[] names no version")
        return values

    return convert_all


def _each_once(convert_one: Convert) -> Convert:
    def convert_all(value: Any) -> tuple[Any, ...]:
        values = listed(convert_one)(value)
        for each in values:
            if values.count(each) > 1:
                raise UserError(f"{each!r} is there {values.count(each)} times")
        return values

    return convert_all


def _or_none(convert_one: Convert) -> Convert:
    return lambda value: None if value == "none" else convert_one(value)


def _tuple_of(count: int, convert_one: Convert) -> Convert:
    def convert_all(value: Any) -> tuple[Any, ...]:
        values = listed(convert_one)(value)
        if len(values) != count:
            raise UserError(f"{value!r} has {len(values)} values, not {count}")
        return values

    return convert_all


def _table(convert_key: Convert, convert_one: Convert) -> Convert:
    def convert_all(value: Any) -> dict[Any, Any]:
        if not isinstance(value, dict):
            raise UserError(f"{value!r} is not a table")
        return {convert_key(key): convert_one(each) for key, each in value.items()}

    return convert_all


def _fields(kind: Callable[..., Any], required: Mapping[str, Convert], optional: Mapping[str, Convert]) -> Convert:
    """Return what converts a table of named fields, with hyphens."""
    known = {**required, **optional}

    def convert_all(value: Any) -> Any:
        fields = _table(_name_of("key", known), lambda each: each)(value)
        missing = [key for key in required if key not in fields]
        if missing:
            raise UserError(f"{missing[0]} is missing")
        return kind(**{column_of(key): known[key](each) for key, each in fields.items()})

    return convert_all


def _rule(column: str) -> Convert:
    """Return what converts the name of a rule that some host has in this column, or in this column's values."""
    known = rules(column)
    name = _name_of("rule", frozenset(known))
    return lambda value: known[name(value)]


def rules(column: str) -> dict[str, Callable[..., Any]]:
    """Return the rules that hosts choose from in a column, by name."""
    found: dict[str, Callable[..., Any]] = {}
    for host in HOSTS.values():
        value = getattr(host, column)
        for each in value.values() if isinstance(value, Mapping) else (value,):
            if callable(each):
                found[each.__name__] = each
    return dict(sorted(found.items()))


def _strings_or_rule(value: Any) -> Any:
    if isinstance(value, str):
        return _rule("node_compatible")(value)
    strings = listed(_name_of("string", frozenset({"arm,psci-1.0", "arm,psci-0.2", "arm,psci"})))(value)

    def as_the_file_says(_version: Version) -> tuple[str, ...]:
        """List the strings of the user's file."""
        return strings

    return as_the_file_says


_CONDUIT: Final = choice({each.value: each for each in Conduit})
_CODE: Final = choice({each.name: each for each in Psci})
_REPLIES: Final = choice(
    {
        "UNDEF": Reply(resume=Resume.UNDEF),
        "NOT_SUPPORTED": Reply(((0, MASK64),)),
        "next-instruction": Reply(),
        "same-instruction": Reply(resume=Resume.SAME),
    }
)


def _immediate(value: Any) -> int | Resume:
    return Resume.UNDEF if value == "UNDEF" else _RESULT(value)


def _code_or_undef(value: Any) -> Psci | None:
    return None if value == "UNDEF" else _CODE(value)


_DEVIATION: Final = _fields(
    Deviation,
    {"discovery": choice({name: name for name in _DISCOVERIES}), "function": _function, "value": _RESULT},
    {"cite": _text},
)


def _deviations(value: Any) -> tuple[Deviation, ...]:
    return tuple(listed(lambda each: _DEVIATION({"cite": "the user's file", **each} if isinstance(each, dict) else each))(value))


def _set_of(convert_one: Convert) -> Convert:
    return lambda value: frozenset(listed(convert_one)(value))


_SETS: Final = {
    "serves": _function,
    "early": _function,
    "serves-0-1": _function,
    "refuses": _function,
    "refuses-0-1": _function,
    "truncates": _function,
    "words": _function,
    "lacks": _WORD,
}

# Every key but `based-on`, with what converts its value; what has no name in TOML is missing: sources, and what is unknown.
KEYS: Final[Mapping[str, Convert]] = {
    "summary": _text,
    "latest": _version,
    "versions": _ascending(_version),
    "smccc": _or_none(_smccc),
    "smccc-versions": _ascending(_smccc),
    "registers": _each_once(_name_of("firmware register", frozenset(BY_NAME))),
    "bitmap-resets": _table(_name_of("bitmap", frozenset(name for name in BY_NAME if "BMAP" in name)), _integer(0, MASK64)),
    "unknown-register": choice({errno.errorcode[number]: number for number in (errno.ENOENT, errno.EINVAL)}),
    **{key: _set_of(one) for key, one in _SETS.items()},
    "ids-0-1": _or_none(_fields(FunctionIds, {key_of(name): _WORD for name in FunctionIds._fields}, {})),
    "function-id-mask": _integer(0, MASK64),
    "query-mask": _integer(0, MASK64),
    "status-mask": _integer(0, MASK64),
    "result-registers": _integer(1, 4),
    "unknown": _code_or_undef,
    "unknown-rule": _or_none(_rule("unknown_rule")),
    "conduits": choice({each.name.lower(): each for each in Conduits}),
    "default-conduit": _CONDUIT,
    "immediates": _table(_CONDUIT, _immediate),
    "undispatched": _table(_CONDUIT, _REPLIES),
    "pending-seen-as": choice({each.name: each for each in (PowerState.ON, PowerState.OFF, PowerState.ON_PENDING)}),
    "no-such-cpu": _CODE,
    "trusted-os": _or_none(
        _fields(
            TrustedOs,
            {"type": _integer(0, 1), "vcpu": _integer(0, MAX_VCPUS - 1)},
            {"refuses-off": _boolean, "mpidr-bits": _integer(0, MASK64)},
        )
    ),
    "at-el2": _table(_function, _integer(1, 4)),
    "workaround-answers": _table(_name_of("workaround", _WORKAROUNDS), _rule("workaround_answers")),
    "standard-secure": _fields(StandardSecure, {"uid": _tuple_of(4, _WORD), "revision": _tuple_of(2, _WORD)}, {"calls": _WORD}),
    "soc-id": _or_none(_tuple_of(2, _WORD)),
    "soc-name": _text,
    "trng-uuid": _tuple_of(4, _WORD),
    "node-compatible": _strings_or_rule,
    "deviations": _deviations,
    **{
        key_of(name): _rule(name)
        for name in (
            "target_rule",
            "cpu_on_0_1",
            "entry_rule",
            "affinity_rule",
            "suspend_rule",
            "hw_state_rule",
            "workaround_rule",
        )
    },
    **{key_of(column.name): _boolean for column in dataclasses.fields(Host) if column.type == "bool"},
}


def _of(base: Host, key: str) -> Convert:
    """Return what converts a key's value for a host based on another: a set may be given by its difference."""
    if key not in _SETS:
        return KEYS[key]
    whole, before = KEYS[key], getattr(base, column_of(key))

    def convert_set(value: Any) -> frozenset[Any]:
        if not isinstance(value, dict):
            return frozenset(whole(value))
        parts = _table(_name_of("key", frozenset({"add", "remove"})), whole)(value)
        return frozenset((before | parts.get("add", frozenset())) - parts.get("remove", frozenset()))

    return convert_set
