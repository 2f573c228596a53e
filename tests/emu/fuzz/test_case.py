"""A case: its words, what is simpler than it, and its table."""

from __future__ import annotations

import tomllib
from typing import Any, Final

import pytest
import tomli_w

from emu.fuzz.case import Case, parse_at
from emu.scheduler import TRAP_NS
from firmware.errors import UserError

REFERENCE: Final = Case("spec", "0.2")
PLAIN: Final = Case("kvm-6.12", "1.0")
EVERYTHING: Final = Case(
    "kvm-6.12",
    "1.0",
    conduit="smc",
    compatible=("arm,psci-1.0", "arm,psci-0.2"),
    faults=("CPU_ON#2: drop", "version=2.0"),
    changes=("0.2@call:CPU_ON#1",),
    moves=("xen@call:CPU_OFF#3",),
    seed=7,
    call_ns=100,
)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (PLAIN, "-host kvm-6.12 -psci 1.0"),
        (PLAIN._replace(conduit="smc"), "-host kvm-6.12 -psci 1.0 -conduit smc"),
        (PLAIN._replace(faults=("CPU_ON#2: drop", "version=2.0")), "-host kvm-6.12 -psci 1.0 -fault 'CPU_ON#2: drop' -fault 'version=2.0'"),
        (PLAIN._replace(changes=("0.2@call:CPU_ON#1",)), "-host kvm-6.12 -psci 1.0,0.2@call:CPU_ON#1"),
        (PLAIN._replace(seed=3), "-host kvm-6.12 -psci 1.0 (seed 3 from the first call on)"),
        (PLAIN._replace(moves=("xen@call:CPU_ON#1",)), "-host kvm-6.12 -psci 1.0 (moved to xen at call:CPU_ON#1)"),
        (PLAIN._replace(call_ns=5), "-host kvm-6.12 -psci 1.0 (a call takes 5 ns)"),
        (
            PLAIN._replace(compatible=("arm,psci-1.0", "arm,psci-0.2")),
            "-host kvm-6.12 -psci 1.0 (the psci node is compatible with arm,psci-1.0, arm,psci-0.2)",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_case_reads_as_the_options_of_run_and_what_no_option_says_stands_in_brackets(case: Case, words: str) -> None:
    assert str(case) == words


def test_simpler_is_one_thing_less_or_one_step_towards_the_reference() -> None:
    assert list(EVERYTHING.simpler(REFERENCE)) == [
        EVERYTHING._replace(faults=("version=2.0",)),
        EVERYTHING._replace(faults=("CPU_ON#2: drop",)),
        EVERYTHING._replace(changes=()),
        EVERYTHING._replace(moves=()),
        EVERYTHING._replace(compatible=()),
        EVERYTHING._replace(conduit=None),
        EVERYTHING._replace(seed=0),
        EVERYTHING._replace(call_ns=TRAP_NS),
        EVERYTHING._replace(host="spec", psci="0.2"),
        EVERYTHING._replace(host="spec"),
    ]


def test_nothing_is_simpler_than_the_reference() -> None:
    assert list(REFERENCE.simpler(REFERENCE)) == []


def test_another_version_of_the_reference_s_host_is_simpler_as_the_reference_alone() -> None:
    assert list(Case("spec", "1.3").simpler(REFERENCE)) == [REFERENCE]


def test_simplifying_ends_whichever_step_is_taken() -> None:
    seen, frontier = {EVERYTHING}, [EVERYTHING]
    while frontier:
        case = frontier.pop()
        for simpler in case.simpler(REFERENCE):
            # Fewer things, or as many on the reference's host: no way leads back.
            assert _size(simpler) < _size(case)
            if simpler not in seen:
                seen.add(simpler)
                frontier.append(simpler)

    assert REFERENCE in seen


def _size(case: Case) -> tuple[int, int]:
    things = sum(bool(value) for value in (*case.faults, *case.changes, *case.moves, case.compatible, case.conduit, case.seed))
    things += case.call_ns != TRAP_NS
    return things, (case.host != REFERENCE.host) + (case.psci != REFERENCE.psci)


@pytest.mark.parametrize("case", [REFERENCE, PLAIN, EVERYTHING], ids=["reference", "plain", "everything"])
def test_a_case_s_table_is_toml_and_gives_the_case_back(case: Case) -> None:
    table = tomllib.loads(tomli_w.dumps(case.as_table()))

    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in table.items()}
    assert Case(**fields) == case


def test_a_table_has_the_host_the_version_and_what_is_not_as_usual() -> None:
    assert PLAIN.as_table() == {"host": "kvm-6.12", "psci": "1.0"}
    assert PLAIN._replace(seed=1, faults=("version=2.0",)).as_table() == {
        "host": "kvm-6.12",
        "psci": "1.0",
        "faults": ["version=2.0"],
        "seed": 1,
    }


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("1.0@call:CPU_ON#1", ("1.0", "call:CPU_ON#1")),
        ("xen@call:CPU_OFF#123456789", ("xen", "call:CPU_OFF#123456789")),
    ],
)
def test_what_happens_at_a_call_is_split(text: str, parts: tuple[str, str]) -> None:
    assert parse_at(text) == parts


@pytest.mark.parametrize(
    "text",
    ["", "1.0", "@call:CPU_ON#1", "1.0@call:CPU_ON", "1.0@call:CPU_ON#0", "1.0@call:CPU_ON#01", "1.0@CPU_ON#1", "1.0@call:#1",
     "a@b@call:CPU_ON#1", "1.0@call:CPU_ON#1\n", "1.0@call:CPU_ON#1234567890", "1.0@call:CPU_ON#\u0661"],
)  # fmt: skip
def test_what_is_not_of_that_form_is_refused_by_name(text: str) -> None:
    with pytest.raises(UserError) as refusal:
        parse_at(text)

    assert str(refusal.value) == f"{text!r} is not WHAT@call:NAME#N"
