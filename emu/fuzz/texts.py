"""What a user reads of a fuzz run: a line that says how far it is, each finding, and a summary."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from emu.fuzz.again import Again
from emu.fuzz.campaign import Progress
from emu.fuzz.files import Written
from emu.fuzz.job import Found
from emu.fuzz.judge import CRASH, DEADLOCK, HANG, LOST, RESULT
from emu.lint.rules import RULES
from emu.lists import counted
from emu.printable import printable_text

_TITLES = {
    CRASH: "the guest crashes",
    HANG: "the guest hangs",
    DEADLOCK: "the guest comes to a standstill",
    LOST: "a vCPU is lost that came up on the reference",
    RESULT: "the guest ends with a wrong result",
}
_RULES = {rule.id: rule for rule in RULES}


def as_text(number: int, found: Found, path: Path | None) -> Iterator[str]:
    """Yield a finding in lines."""
    return map(printable_text, _lines(number, found, path))


def _lines(number: int, found: Found, path: Path | None) -> Iterator[str]:
    suspect = found.suspect
    whose = "correct firmware" if found.is_legal else "broken firmware"
    yield f"{number}. {title(suspect.oracle)}, on {whose}"
    if suspect.site:
        yield f"   at        {suspect.site}" + (f", {suspect.function}" if suspect.function else "")
    yield f"   what      {suspect.detail}"
    yield f"   firmware  {found.case}"
    for position, call in enumerate(found.calls):
        yield f"   {'' if position else 'calls':<9} {call}"
    if path is not None:
        yield f"   again     psci-emu replay '{path}'"
    yield ""


def again_as_text(written: Written, again: Again) -> Iterator[str]:
    """Yield in lines what came of running a finding again."""
    yield f"{title(written.suspect.oracle)}, on {'correct' if written.is_legal else 'broken'} firmware"
    if written.suspect.site:
        yield f"at        {written.suspect.site}" + (f", {written.suspect.function}" if written.suspect.function else "")
    yield f"what      {written.suspect.detail}"
    yield f"firmware  {written.case}"
    trace = again.execution.trace
    for position, call in enumerate(() if trace is None else trace.calls):
        yield f"{'' if position else 'calls':<9} cpu{call.vcpu} {call.conduit} {call.site}: {call.words}"
    yield f"end       {again.execution.sentence}"
    yield from (f"differs   {difference}" for difference in again.differences)
    if not again.differences:
        yield "the same run, to the byte"


def title(oracle: str) -> str:
    """Say in a clause what an oracle has found."""
    kind, _, rule = oracle.partition(":")
    return f"a rule is broken: {_RULES[rule].title if rule in _RULES else rule} ({rule})" if kind == "rule" else _TITLES.get(oracle, oracle)


def progress_line(progress: Progress, seconds: float) -> str:
    """Say how far it is, in a line."""
    legal = sum(found.is_legal for found in progress.found.values())
    rate = f"{progress.executions / seconds:,.0f}/s" if seconds > 0 else "-"
    parts = (
        f"{seconds:.0f} s",
        f"{progress.executions:,} runs ({rate})",
        f"{len(progress.blocks):,} blocks",
        f"{len(progress.corpus):,} cases",
        f"{legal} bugs, {len(progress.found) - legal} robustness",
    )
    return " | ".join(parts)


def summary(progress: Progress) -> Iterator[str]:
    """Yield what a run came to."""
    legal = sum(found.is_legal for found in progress.found.values())
    broken = len(progress.found) - legal
    yield f"{progress.executions:,} runs, {len(progress.blocks):,} blocks of code after the first call, {len(progress.corpus):,} cases kept"
    yield f"held against {progress.reference}"
    if not progress.corpus:
        yield "the guest makes no call: there was no reply to change"
    if legal:
        yield f"{counted(legal, 'bug')}: what the guest does wrong on firmware that is correct"
    else:
        yield "no bug: the guest was right on all firmware that is correct"
    if broken:
        yield f"{counted(broken, 'robustness finding')}: what it does wrong on firmware that is broken"
    else:
        yield "no robustness finding: it was right on firmware that is broken too"
