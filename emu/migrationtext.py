"""A migration in words: the registers in order, what the guest saw and sees, and the verdicts."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Final

from emu.lists import show
from firmware.abi import Version
from firmware.host import Host
from firmware.hosts.kvm_releases import RELEASES
from firmware.migration import Migration, Step
from firmware.view import WORKAROUNDS, Answer, View

_VERSIONS = ("PSCI_VERSION", "SMCCC_VERSION")
_NOT_SUPPORTED = -1
_WIDTH: Final = 80


def tell(migration: Migration) -> None:
    """Print a migration whole."""
    tell_registers(migration)
    print()
    tell_views(migration)
    print()
    for sentence in verdicts(migration):
        print(sentence)


def tell_registers(migration: Migration, destination: Host | None = None) -> None:
    """Print every register in order, with the destination's answer; with a host, also where its rule is from."""
    rows = [(name, f"{value:#x}", "kept back", "the sender's filter", "-") for name, value in migration.withheld]
    for step in migration.steps:
        rows.append((step.register, f"{step.value:#x}", step.when, _outcome(step), _source(step, destination)))
    if not rows:
        print("no register travels, and the destination has none")
    elif destination is None:
        show("register", "value", "", "destination", rows=[row[:-1] for row in rows])
    else:
        # A source is longer than all else in its row: it stands below, once.
        sources = [source for source in dict.fromkeys(row[-1] for row in rows) if source != "-"]
        notes = {source: f"[{number}]" for number, source in enumerate(sources, start=1)}
        show("register", "value", "", "rule", "destination", rows=[(*row[:3], notes.get(row[4], "-"), row[3]) for row in rows])
        for source, note in notes.items():
            print(textwrap.fill(f"{note} {source}", _WIDTH, subsequent_indent=" " * (len(note) + 1)))


def tell_views(migration: Migration) -> None:
    """Print what the guest saw and sees: versions, mitigations, and every discovery call that is not NOT_SUPPORTED both times."""
    before, after = migration.before, migration.after
    rows = []
    for question in dict.fromkeys([*before.answers, *(after.answers if after else ())]):
        pair = [seen.answers.get(question) if seen else None for seen in (before, after)]
        is_version = question.function in _VERSIONS
        is_mitigation = question.function == "SMCCC_ARCH_FEATURES" and question.about in WORKAROUNDS
        if is_version or is_mitigation or any(each and set(each) != {_NOT_SUPPORTED} for each in pair):
            rows.append((str(question), *("-" if each is None else answers(each, is_version) for each in pair)))
    show("what the guest sees", "before", "after", rows=rows)
    if len(rows) < len(before.answers):
        print("every other discovery call: -1")


def verdicts(migration: Migration) -> Iterator[str]:
    """Say accepted or refused, and the two verdicts, a sentence each."""
    if not migration.accepted:
        first = migration.refusals[0]
        yield f"refused: {first.register} {first.errno or 'missing'}: {first.why}"
        return
    yield "accepted"
    yield f"version changed: {_version_verdict(migration)}"
    if not migration.losses:
        yield "mitigation lost: no"
    for loss in migration.losses:
        yield (
            f"mitigation lost: {loss.workaround} on cpu{loss.vcpu}, "
            f"{answer_in_words(loss.before)} before and {answer_in_words(loss.after)} after: {loss.why}"
        )


def _version_verdict(migration: Migration) -> str:
    if not migration.version_changed or migration.after is None:
        return "no"
    return f"yes, {version_in_words(migration.before)} before and {version_in_words(migration.after)} after"


def version_in_words(seen: View) -> str:
    return "none" if seen.version is None else str(seen.version)


def answers(values: tuple[Answer, ...], is_version: bool = False) -> str:
    """Spell the vCPUs' answers: one where all are the same."""
    spelled = [answer_in_words(value, is_version) for value in values]
    return spelled[0] if len(set(spelled)) == 1 else ", ".join(f"cpu{vcpu} {each}" for vcpu, each in enumerate(spelled))


def answer_in_words(answer: Answer, is_version: bool = False) -> str:
    if isinstance(answer, str):
        return answer
    return str(Version.from_word(answer)) if is_version and answer >= 0 else str(answer)


def _outcome(step: Step) -> str:
    if step.errno:
        return f"{step.errno}: {step.why}" + ("" if step.refused else " (ignored)")
    return step.why


# Which of a host's columns decides about a register.
_COLUMNS = {"PSCI_VERSION": "versions"}


def _source(step: Step, host: Host | None) -> str:
    if host is None:
        return "-"
    registers = host.sources.get("registers", "-")
    if step.register in _COLUMNS and step.errno != "ENOENT":
        return host.sources.get(_COLUMNS[step.register], registers)
    # A register's rule came with the register: the column's source is that of the last one that was added.
    came = next((release for release in RELEASES if step.register in release.registers), None)
    if came is None or step.register not in host.registers or registers not in {each.sources["registers"] for each in RELEASES}:
        return registers
    return came.sources["registers"]
