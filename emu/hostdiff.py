"""In what two hosts differ: found by asking both, not by comparing what is written of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from emu.questions import Answer, Question, ask, questions
from emu.trace import value_in_words
from firmware import fwregs
from firmware.abi import PSCI_0_1, Version
from firmware.dispatch import Firmware, configuration
from firmware.host import Config, Host
from firmware.trap import Conduit, EntryState, Reply, Resume, SystemEvent

_MPIDRS: Final = (0, 1)
_PV_TIME_BASE: Final = 0x0900_0000
_ABOUTS_SHOWN: Final = 3
_RESUMES: Final = {Resume.UNDEF: "UNDEF", Resume.NEVER: "does not return", Resume.SAME: "the same call again", Resume.WAIT: "waits"}


class Row(NamedTuple):
    """Questions to which the hosts' answers differ in one way, and where: PSCI versions and conduits."""

    asked: str
    first: str
    second: str
    places: str


class _Way(NamedTuple):
    """One way in which answers differ: to a call, from one answer to another, at (version, conduit) places."""

    words: str
    first: str
    second: str
    places: tuple[tuple[str, Conduit], ...]


def differences(first: Host, second: Host) -> tuple[Row, ...]:
    """Ask both hosts everything, at every version that both offer and at each one's own default, over both conduits."""
    ways: dict[_Way, list[str]] = {}
    for (question, *answers), places in _found(first, second).items():
        way = _Way(question.words, answers[0], answers[1], tuple(places))
        ways.setdefault(way, []).append(question.about)
    told = [Row(what, *both, "") for what, both in _told(first, second) if both[0] != both[1]]
    return (*told, *(Row(_asked(way.words, abouts), way.first, way.second, _at(way.places)) for way, abouts in ways.items()))


def _found(first: Host, second: Host) -> dict[tuple[Question, str, str], list[tuple[str, Conduit]]]:
    found: dict[tuple[Question, str, str], list[tuple[str, Conduit]]] = {}
    for mine, others in _versions(first, second):
        version = str(mine) if mine == others else f"{mine} against {others}"
        firmwares = Firmware(_config(first, mine)), Firmware(_config(second, others))
        for conduit in Conduit:
            for question, answers in _answers(*firmwares, conduit):
                found.setdefault((question, *answers), []).append((version, conduit))
    return found


def _versions(first: Host, second: Host) -> list[tuple[Version, Version]]:
    pairs = [(version, version) for version in offered(first) if version in offered(second)]
    return pairs if first.latest == second.latest else [*pairs, (first.latest, second.latest)]


def offered(host: Host) -> tuple[Version, ...]:
    """Return the PSCI versions that a guest can be offered."""
    return tuple(sorted({*host.versions, *([PSCI_0_1] if host.offers_0_1 else [])}))


def _config(host: Host, version: Version | None = None) -> Config:
    return configuration(host, _MPIDRS, psci=version, pv_time_base=_PV_TIME_BASE)


def _answers(first: Firmware, second: Firmware, conduit: Conduit) -> Iterator[tuple[Question, tuple[str, str]]]:
    for question in questions(first.config, second.config):
        one, other = ask(first, question, conduit), ask(second, question, conduit)
        if one != other:
            yield question, (in_words(first, question.regs[0], conduit, one), in_words(second, question.regs[0], conduit, other))


def _told(first: Host, second: Host) -> Iterator[tuple[str, tuple[str, str]]]:
    """Compare what a guest is told before it calls, and what a VMM can ask."""
    aspects: tuple[tuple[str, Callable[[Host], str]], ...] = (
        ("PSCI versions", lambda host: ", ".join(map(str, offered(host)))),
        ("PSCI version by default", lambda host: str(host.latest)),
        ("SMCCC versions", lambda host: ", ".join(map(str, host.smccc_versions)) or "none"),
        ("psci node, method", lambda host: str(host.default_conduit.value)),
        ("psci node, strings", lambda host: ", ".join(host.node_compatible(host.latest))),
        ("firmware registers", lambda host: ", ".join(register.name for register in fwregs.of_host(_config(host))) or "none"),
        ("unknown of it", lambda host: ", ".join(sorted(host.unknown_columns)).replace("_", "-") or "nothing"),
        ("after a reset", lambda host: "the VMM ends" if host.reset_ends else "the machine starts again"),
    )
    for what, tell in aspects:
        yield what, (tell(first), tell(second))


# ---- words


def _asked(words: str, abouts: list[str]) -> str:
    shown = [about or "as usual" for about in abouts[:_ABOUTS_SHOWN]]
    more = [f"and {len(abouts) - _ABOUTS_SHOWN} more"] if len(abouts) > _ABOUTS_SHOWN else []
    return words if abouts == [""] else f"{words} [{'; '.join([*shown, *more])}]"


def _at(places: Iterable[tuple[str, Conduit]]) -> str:
    versions: dict[Conduit, list[str]] = {}
    for version, conduit in places:
        versions.setdefault(conduit, []).append(version)
    by_versions: dict[tuple[str, ...], list[str]] = {}
    for conduit, listed in versions.items():
        by_versions.setdefault(tuple(listed), []).append(conduit.name)
    return "; ".join(f"PSCI {', '.join(listed)} by {' and '.join(conduits)}" for listed, conduits in by_versions.items())


def in_words(firmware: Firmware, fid: int, conduit: Conduit, answer: Answer) -> str:
    """Spell an answer: the result, the other registers written, what became of the CPUs; or that it is unknown, and how modelled."""
    host = firmware.config.host
    words = _in_words(firmware, fid, answer)
    is_unknown = "undispatched" in host.unknown_columns and conduit in host.undispatched
    return f"unknown (as if {words})" if is_unknown else words


def _in_words(firmware: Firmware, fid: int, answer: Answer) -> str:
    reply = answer.reply
    parts = [_result(firmware, fid, reply), " ".join(f"x{number}={value:#x}" for number, value in reply.regs[1:])]
    parts.append(_RESUMES.get(reply.resume, ""))
    parts += [f"the other CPU {_begins(answer.other.entry)}"] if answer.other.entry is not None else []
    parts += [f"the caller {_begins(answer.caller.entry)}"] if answer.caller.entry is not None else []
    return ", ".join(part for part in parts if part)


def _result(firmware: Firmware, fid: int, reply: Reply) -> str:
    events = [effect for effect in reply.effects if isinstance(effect, SystemEvent)]
    if events:
        flags = f", flags {events[0].flags:#x}" if events[0].flags else ""
        left = f", x0={reply.regs[0][1]:#x}" if reply.regs else ""
        return f"system {events[0].type.name.lower()}{flags}{left}"
    if not reply.regs:
        return "no register written" if reply.resume is Resume.NEXT else ""
    return value_in_words(firmware.tables.functions.get(fid & firmware.config.host.function_id_mask), reply._replace(regs=reply.regs[:1]))


def _begins(entry: EntryState) -> str:
    return f"begins at {entry.pc:#x} with x0={entry.x0:#x}"
