"""Move a running guest for one cell of the matrix, and hold what it then sees against what was worked out.

The guest is `version-loop`: it asks for the version and the mitigations again and again, as no real guest does.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from emu.machine import Machine
from emu.matrix import Answer, Case, Matrix, machine_type_of
from emu.migrate import Moved, move
from emu.outcome import Outcome
from emu.policyfile import policy_of
from emu.setup import Setup
from firmware.migration import Migration
from firmware.view import WORKAROUNDS, View, view
from guests import elf_path

_ROUNDS: Final = 5
_ROUNDS_BEFORE: Final = 2
_STEP_INSTRUCTIONS: Final = 200  # much less than a round takes
_ROUND: Final = re.compile(r"round \d+: PSCI (\S+), SMCCC (\S+), WORKAROUND_1 (.+), WORKAROUND_2 (.+), WORKAROUND_3 (.+)")
_INSTRUCTIONS: Final = 10_000_000  # a hundred times what the guest takes


class Live(NamedTuple):
    """How a live move went: what the guest printed before and after it, and how it ended."""

    moved: Moved
    before: list[str]
    after: list[str]
    outcome: Outcome


_matrix = Matrix()


def check(case: Case) -> str:
    """Move a guest as a cell asks; return what came out otherwise than worked out, "" for nothing."""
    answer = _matrix.answer(case)
    live = run_case(case, answer)
    assert answer.migration is not None
    if live.moved.migration != answer.migration:
        return f"the registers went otherwise: {live.moved.migration.steps}"
    return _otherwise(live, answer.migration)


def run_case(case: Case, answer: Answer) -> Live:
    """Run the guest on the source, move it after two rounds, and let whoever has it then run to its end."""
    source, destination = answer.source.config, answer.destination.config
    assert source is not None
    assert destination is not None
    setup = Setup(
        config=source,
        kernel=elf_path("version-loop"),
        method=source.host.default_conduit.value,
        append=f"rounds={_ROUNDS}",
        ram_bytes=source.ram[1],
        max_insns=_INSTRUCTIONS,
    )
    printed = bytearray()
    machine = Machine(setup, output=printed.extend)
    while len(_rounds(printed)) < _ROUNDS_BEFORE:
        outcome = machine.step(_STEP_INSTRUCTIONS)
        assert outcome is None, f"{case}: the guest ended too early: {outcome.sentence}"
    already = len(printed)
    policy = policy_of(case.policy)
    moved = move(machine, destination, policy, machine_type_of(policy, case.guest), output=printed.extend)
    outcome = (moved.machine or machine).run()
    before = _rounds(printed[:already])
    return Live(moved, before, _rounds(printed)[len(before) :], outcome)


def _rounds(printed: bytearray) -> list[str]:
    """Return the rounds that have been printed to their end."""
    lines = printed.decode("ascii").splitlines(keepends=True)
    return [line.rstrip() for line in lines if line.endswith("\n") and _ROUND.match(line)]


def _otherwise(live: Live, migration: Migration) -> str:
    seen = migration.before if migration.after is None else migration.after
    cannot_power_off = seen.version is None and migration.before.version is not None  # a host of 0.1 alone has no SYSTEM_OFF
    if live.outcome.code and not cannot_power_off:
        return f"the guest did not end well: {live.outcome.sentence}"
    if len(live.after) != _ROUNDS - len(live.before):
        return f"the guest printed {len(live.before)} rounds before and {len(live.after)} after"
    for line in live.after[1:]:  # the first may have begun before the move
        wrong = _differs(line, seen)
        if wrong:
            return wrong
    config = live.moved.migration.config
    if live.moved.machine is not None and config is not None and view(live.moved.machine.config, config.host.default_conduit) != seen:
        return "the destination's firmware answers otherwise"
    return ""


def _differs(line: str, seen: View) -> str:
    match = _ROUND.match(line)
    assert match is not None
    version, _smccc, *workarounds = match.groups()
    if re.fullmatch(r"\d+\.\d+", version) and version != "0.1" and seen.version is not None and version != str(seen.version):
        return f"the guest sees PSCI {version}, not {seen.version}"
    for name, told in zip(WORKAROUNDS, workarounds, strict=True):
        expected = seen.workaround(name)[0]
        if re.fullmatch(r"-?\d+", told) and told != str(expected):
            return f"the guest sees {name} as {told}, not {expected}"
    return ""
