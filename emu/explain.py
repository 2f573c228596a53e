"""What a function is and who serves it, told from its row, its docstring and the hosts' own answers."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
import types
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any, Final, NamedTuple

from emu.hosts import host_of
from firmware.abi import PSCI_0_1, Psci, Smccc, Trng, Version
from firmware.dispatch import check_function_name, configuration, rows
from firmware.host import Config, Host
from firmware.hosts import HOSTS
from firmware.hosts.kvm_releases import RELEASES
from firmware.hosts.spec import SPEC
from firmware.table import Constant, Function, Query, Service, is_offered

_CODES: Final = {code.name: int(code) for family in (Psci, Smccc, Trng) for code in family}
# A name in brackets, as in "2 (ON_PENDING)", is a state and not a code.
_CODE: Final = re.compile(r"(?<!\()\b(" + "|".join(sorted(_CODES, key=len, reverse=True)) + r")\b")
_ARGUMENT: Final = re.compile(r"x(\d+) +(\S+) +(.+)")
_CLAUSE_END: Final = re.compile(r"; |\. |\.$| \(")
_DANGLING: Final = re.compile(r"[\s,;.:]*(\b(or|and|also)\b)?[\s,;.:]*$")

_WIDTH: Final = 118

# Columns that are told by themselves or say nothing about one function.
_NOT_RULES: Final = frozenset({"name", "summary", "sources", "serves", "serves_0_1", "deviations", "latest", "versions"})


class Text(NamedTuple):
    """A handler's docstring, taken apart.

    summary    what the function does, with the standard's section
    presence   when it is there, and in which conventions
    arguments  (name, meaning), from x1 on
    results    what it returns and when
    """

    summary: str
    presence: str
    arguments: tuple[tuple[str, str], ...]
    results: str


def explain(function: str, host: str | None = None) -> str:
    """Tell all about a function, named in any case or by its ID; on one host, or on every modelled one.

    Raises UserError, with the nearest name, for a function nobody knows.
    """
    shown = tuple(HOSTS.values()) if host is None else (host_of(host),)
    config = configuration(SPEC)
    name = _name(config, function)
    forms: dict[str, list[tuple[Service, Function]]] = {}
    for service, row in rows(config):
        if row.name == name:
            forms.setdefault(_docstring(row), []).append((service, row))
    parts = [name, *(_form(form) for form in forms.values())]
    # Releases that follow one another and have the same to tell are told as one.
    # Releases of one thing that have the same to tell are told as one; what else is alike is so by chance.
    alike = [(told, list(hosts)) for (told, _), hosts in groupby(shown, lambda host: (_on_host(host, name), _series(host)))]
    parts.append("on the modelled hosts\n" + "\n".join(_indented(f"{_span(hosts):<10} {told}") for told, hosts in alike))
    return "\n\n".join(parts)


def _name(config: Config, function: str) -> str:
    known = {row.name.upper(): row.name for _, row in rows(config)}
    known |= {f"{fid:#010x}".upper(): row.name for _, row in rows(config) for fid in row.fids}
    return check_function_name(config, known.get(function.upper(), function))


# ---- the row


def _form(form: list[tuple[Service, Function]]) -> str:
    """Tell rows that share a handler: PSCI 0.1's and the standard's IDs of one function, or one row alone."""
    standard = form[-1][1]
    text = parse(standard)
    heads = [line for service, row in form for line in _ids(service, row)]
    paragraphs = [text.summary, "\n".join(["  " + head for head in heads] + [_wrapped("  presence   ", text.presence)])]
    if text.arguments:
        paragraphs.append("  arguments\n" + "\n".join(_argument(standard, *argument) for argument in enumerate(text.arguments, 1)))
    if text.results:
        paragraphs.append("  results\n" + _wrapped("    ", text.results))
    codes = dict.fromkeys(_codes(text.results))
    if codes:
        paragraphs.append("  codes\n" + "\n".join(_wrapped(f"    {code:<19} {_CODES[code]:>3}  ", when) for code, when in codes))
    return "\n\n".join(paragraphs)


def _ids(service: Service, row: Function) -> list[str]:
    since = service.name if service.name.endswith(str(row.since)) else f"{service.name} {row.since}"
    if service.name == "PSCI 0.1":
        return [f"{fid:#010x} is its ID in PSCI 0.1 alone, where the device tree tells the IDs" for fid in row.fids]
    forms = (("SMC32", row.fid32), ("SMC64", row.fid64))
    return [f"{fid:#010x} {convention}, since {since}" for convention, fid in forms if fid is not None]


def _argument(row: Function, number: int, argument: tuple[str, str]) -> str:
    name, meaning = argument
    forms = [register for register, fid in ((f"w{number}", row.fid32), (f"x{number}", row.fid64)) if fid is not None]
    return _wrapped(f"    {'/'.join(forms):<6} {name:<22} ", meaning)


def _wrapped(head: str, text: str) -> str:
    return textwrap.fill(text, _WIDTH, initial_indent=head, subsequent_indent=" " * len(head)) if text else head.rstrip()


def parse(row: Function) -> Text:
    """Take the docstring behind a row apart: first line, presence, a line for each argument, results."""
    summary, _, rest = _docstring(row).partition("\n")
    presence, arguments, results = "", [], ""
    for line in rest.strip().splitlines():
        argument = _ARGUMENT.fullmatch(line.strip())
        if argument is not None and not results:
            arguments.append((argument[2], argument[3]))
        elif results or line.startswith("Returns"):
            results = f"{results} {line.strip()}".strip()
        else:
            presence = f"{presence} {line.strip()}".strip()
    return Text(summary.strip(), presence.removeprefix("Presence: "), tuple(arguments), results)


def _docstring(row: Function) -> str:
    text = inspect.getdoc(_behind(row))
    assert text, row.name
    return text


def _behind(row: Function) -> Callable[..., Any]:
    answer = row.answer
    if isinstance(answer, Constant):
        return answer.answer
    return answer.answers if isinstance(answer, Query) else answer


def _codes(results: str) -> Iterable[tuple[str, str]]:
    """Yield each return code that the results name, with the words that follow it up to the next one or the end of the clause."""
    named = list(_CODE.finditer(results))
    for match, following in zip(named, [*named[1:], None], strict=False):
        when = results[match.end() : None if following is None else following.start()]
        yield match[0], _DANGLING.sub("", _CLAUSE_END.split(when)[0]).strip(" ,")


# ---- the hosts, by asking


def _series(host: Host) -> str:
    return "KVM" if host in RELEASES else host.name


def _span(hosts: list[Host]) -> str:
    return hosts[0].name if len(hosts) == 1 else f"{hosts[0].name} to {hosts[-1].name}"


def _on_host(host: Host, name: str) -> str:
    lines = [_served(host, name)]
    lines += [_wrapped("  ", line) for line in _rules(host, name)]
    for entry in host.deviations:
        if name in (entry.function, entry.discovery):
            lines.append(
                _wrapped("  ", f"{entry.discovery}({entry.function}) answers {entry.value}, other than dispatch does ({entry.cite})")
            )
    return "\n".join(lines)


def _served(host: Host, name: str) -> str:
    by_psci = [(version, configuration(host, psci=version)) for version in _psci_versions(host)]
    by_smccc = [(version, configuration(host, smccc=version)) for version in host.smccc_versions]
    served = [version for version, config in by_psci if _is_served(config, name)]
    if served and len(served) < len(by_psci):
        return f"served at PSCI {_listed(served)}"
    smccc = [version for version, config in by_smccc if _is_served(config, name)]
    if smccc and len(smccc) < len(by_smccc):
        return f"served at SMCCC {_listed(smccc)}"
    if served or smccc:
        return "served"
    if name in host.serves | host.serves_0_1:
        return f"not served as it is by default: {_condition(by_psci[-1][1], name)}"
    return "not served: NOT_SUPPORTED"


def _psci_versions(host: Host) -> list[Version]:
    return sorted({*([PSCI_0_1] if host.offers_0_1 else []), *host.versions})


def _listed(versions: Iterable[Version]) -> str:
    return ", ".join(map(str, versions))


def _is_served(config: Config, name: str) -> bool:
    return any(row.name == name and is_offered(config, service, row) for service, row in rows(config))


def _condition(config: Config, name: str) -> str:
    row = next(row for _, row in rows(config) if row.name == name)
    if row.bitmap is not None and not config.bitmap(row.bitmap[0]) >> row.bitmap[1] & 1:
        return f"needs bit {row.bitmap[1]} of {row.bitmap[0]}"
    capable = dataclasses.replace(config, capabilities=frozenset({"system-suspend"}))
    if row.present is not None and not row.present(config) and row.present(capable):
        return "needs -cap system-suspend"
    return "needs a later version" if row.present is None or row.present(config) else "see its presence"


def _rules(host: Host, name: str) -> list[str]:
    """Tell the columns that the function's code reads and in which this host departs from the standards."""
    if not _known(host, name):
        return []
    lines = []
    for column in sorted(_columns_read(name)):
        own = getattr(host, column)
        if column in host.unknown_columns:
            lines.append(f"{column}: unknown, modelled as {_in_words(own)}")
        elif own != getattr(SPEC, column):
            lines.append(f"{column}: {_in_words(own)} ({host.sources[column]})")
    truncates = name in host.truncates
    if truncates is not (name in SPEC.truncates) and any(row.fid32 is not None and row.args for row in _rows_named(host, name)):
        lines.append(f"truncates: {'yes' if truncates else 'no, an SMC32 call hands on whole X registers'} ({host.sources['truncates']})")
    return lines


def _known(host: Host, name: str) -> bool:
    return name in host.serves | host.serves_0_1


def _rows_named(host: Host, name: str) -> list[Function]:
    return [row for _, row in rows(configuration(host)) if row.name == name]


def _in_words(value: object) -> str:
    if isinstance(value, types.FunctionType):
        return (inspect.getdoc(value) or value.__name__).partition("\n")[0].rstrip(".")
    if isinstance(value, Psci | Smccc):
        return value.name
    name = getattr(value, "name", None)
    return name if isinstance(name, str) else str(value)


def _columns_read(name: str) -> frozenset[str]:
    columns = {field.name for field in dataclasses.fields(Host)} - _NOT_RULES
    code: list[Callable[..., Any]] = []
    for row in _rows_named(SPEC, name):
        code += [_behind(row), *(function for function in (row.features, row.present) if function is not None)]
    return frozenset(columns & _names_read(code))


def _names_read(functions: Iterable[Callable[..., Any]]) -> frozenset[str]:
    """Return every attribute that functions of the firmware read, those that they call included."""
    names: set[str] = set()
    waiting, seen = list(functions), set()
    while waiting:
        function = waiting.pop()
        if not isinstance(function, types.FunctionType) or function in seen or not function.__module__.startswith("firmware."):
            continue
        seen.add(function)
        read = set(function.__code__.co_names)
        names |= read
        waiting += [function.__globals__[name] for name in read if isinstance(function.__globals__.get(name), types.FunctionType)]
    return frozenset(names)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
