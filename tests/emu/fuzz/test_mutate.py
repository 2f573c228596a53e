"""What can be changed in a case: everything drawn is a case, and the draw is the generator's alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random
from typing import Final

import pytest

from emu.faultwords import parse_fault
from emu.fuzz.case import Case, parse_at
from emu.fuzz.mutate import MOST_SEED, Choice, Mutated, Profile, mutated, single
from emu.scheduler import TRAP_NS
from emu.words import parse_call_point, parse_version
from firmware.dispatch import configuration
from firmware.hosts import HOSTS
from firmware.hosts.spec import SPEC

CHOICE: Final = Choice((("spec", ("0.1", "0.2", "1.3")), ("xen", ("1.1",)), ("kvm-6.12", ("0.1", "0.2", "1.0", "1.1"))))
PROFILE: Final[Profile] = (("PSCI_VERSION", 1), ("CPU_ON", 12), ("SYSTEM_OFF", 1))
BASE: Final = Case("spec", "0.2")
STEPS: Final = 1500
OTHERS: Final = ("psci", "conduit", "compatible", "changes", "moves", "seed", "call_ns")  # a host comes with its version
ACTION: Final = re.compile(r"(\w+)(#\d+)?: ")


def walk(seed: int, choice: Choice = CHOICE, profile: Profile = PROFILE, base: Case = BASE) -> Iterator[Mutated]:
    """Mutate a case, and what comes of that, and so on."""
    draw, case = Random(seed), base
    for _ in range(STEPS):
        change = mutated(case, profile, choice, draw)
        yield change
        case = change.case


def checked(case: Case, choice: Choice = CHOICE, profile: Profile = PROFILE) -> None:
    """Fail for a case that no user could have typed, or that has more than was chosen from."""
    config, counts = configuration(SPEC), dict(profile)
    assert case.host in {*dict(choice.firmware), BASE.host}
    for fault in case.faults:
        parse_fault(fault)
        match = ACTION.match(fault)
        assert match is None or int((match[2] or "#1")[1:]) <= counts[match[1]], fault
    for text in (*case.changes, *case.moves):
        point = parse_call_point(config, parse_at(text)[1])
        assert point.number <= counts[point.function], text
    for change in case.changes:
        parse_version(parse_at(change)[0])
    for move in case.moves:
        assert parse_at(move)[0] in dict(choice.firmware)
    assert case.conduit in (None, "hvc", "smc")
    assert 0 <= case.seed < MOST_SEED
    assert case.call_ns in (TRAP_NS, 100, 10_000, 100_000)
    assert max(map(len, (case.faults, case.changes, case.moves))) <= 4


@pytest.mark.parametrize("seed", range(4))
def test_whatever_comes_of_mutating_on_and_on_is_a_case_of_what_was_chosen_and_called(seed: int) -> None:
    for case, _ in walk(seed):
        checked(case)


def test_each_kind_of_change_is_drawn_and_named() -> None:
    cases = [change.case for change in walk(0)]

    assert {change.how for change in walk(0)} == {
        "faults", "host", "version", "without", "seed", "call_ns", "version change", "move", "conduit", "compatible",
    }  # fmt: skip
    for name in Case._fields:
        assert len({getattr(case, name) for case in cases}) > 1, name


def test_the_same_seed_gives_the_same_cases_and_another_others() -> None:
    assert list(walk(1)) == list(walk(1))
    assert list(walk(1)) != list(walk(2))


def test_one_to_three_things_are_changed() -> None:
    changes = [mutated(BASE, PROFILE, CHOICE, Random(seed)).case for seed in range(600)]

    # What is taken from nothing, or drawn as it was, changes nothing; three faults are three things.
    assert {len(case.faults) + sum(getattr(case, name) != getattr(BASE, name) for name in OTHERS) for case in changes} == {0, 1, 2, 3}


def test_what_is_chosen_to_be_the_only_conduit_is_kept() -> None:
    assert {case.conduit for case, _ in walk(0, CHOICE._replace(conduit="smc"))} == {None}


def test_a_guest_that_calls_nothing_has_no_reply_to_break_and_no_call_to_change_at() -> None:
    cases = [case for case, _ in walk(0, profile=())]

    assert not any(case.changes or case.moves for case in cases)
    assert any(case.faults for case in cases)
    assert not any(ACTION.match(fault) for case in cases for fault in case.faults)


def test_a_case_on_a_host_that_was_not_chosen_keeps_its_version_or_gets_one_that_was_chosen() -> None:
    """The reference and the cases of a folder may be on any host."""
    only_xen = Choice((("xen", ("1.1",)),))

    for case, _ in walk(0, only_xen):
        checked(case, only_xen)
        assert (case.host, case.psci) in {("spec", "0.2"), ("xen", "1.1")}


# ---- one thing at a time


def test_every_case_with_one_thing_broken_is_a_case_with_that_alone() -> None:
    cases = [change.case for change in single(BASE, PROFILE, CHOICE)]

    assert len(set(cases)) == len(cases)
    for case in cases:
        checked(case)
        assert sum(bool(value) for value in (*case.faults, case.compatible, case.conduit)) == 1
        assert case._replace(faults=(), compatible=(), conduit=None) == BASE


def test_of_a_function_called_more_than_once_the_first_two_replies_are_broken_and_all_of_them() -> None:
    broken = {fault.partition(":")[0] for case, _ in single(BASE, PROFILE, CHOICE) for fault in case.faults if ":" in fault}

    assert broken == {"PSCI_VERSION", "CPU_ON", "CPU_ON#1", "CPU_ON#2", "SYSTEM_OFF"}


def test_with_one_conduit_chosen_the_other_is_not_tried() -> None:
    conduits = [{case.conduit for case, _ in single(BASE, PROFILE, choice)} for choice in (CHOICE, CHOICE._replace(conduit="hvc"))]

    assert conduits == [{None, "hvc", "smc"}, {None}]


def test_every_host_there_is_can_be_drawn() -> None:
    choice = Choice(tuple((name, tuple(map(str, host.versions))) for name, host in HOSTS.items()))

    assert {case.host for case, _ in walk(0, choice)} == set(HOSTS)
