"""The oracles on runs made up for them: what fires, what does not, which call is to blame, and which two findings are one."""

from __future__ import annotations

from typing import Final

import pytest

from emu.fuzz.judge import CRASH, DEADLOCK, HANG, LOST, RESULT, Suspect, suspects
from emu.lint.trace import Call, Site, Trace, Tree
from emu.outcome import ExitCode
from firmware.abi import MASK32, MASK64
from firmware.dispatch import configuration, functions_by_id
from firmware.hosts.spec import SPEC

NAMES: Final = functions_by_id(configuration(SPEC))
NODE: Final = Tree(("arm,psci-1.0", "arm,psci-0.2"), "hvc", frozenset(), (0x0, 0x1))
VERSION, CPU_ON, CPU_OFF, OFF, SMCCC_VERSION, UNNAMED = 0x8400_0000, 0xC400_0003, 0x8400_0002, 0x8400_0008, 0x8000_0000, 0x8400_0FFF


def called(fid: int, answer: int | None = 0, *, vcpu: int = 0, site: str = "", x1: int = 0) -> Call:
    """Make up a call; without a site it is made where its function is."""
    function = NAMES.get(fid)
    name = None if function is None else function.name
    return Call(
        vcpu=vcpu,
        conduit="hvc",
        imm=0,
        x=(fid, x1, 0, 0),
        function=name,
        returned=None if answer is None else answer & MASK64,
        site=Site(0x4000_0000 + fid & MASK32, site or f"{str(name).lower()}+0x8", 0x4000_0000),
        words="",
    )


def trace(*calls: Call, code: int = 0, sentence: str = "system off", cpus_up: int = 2) -> Trace:
    return Trace(firmware="made up", tree=NODE, calls=calls, cpus_up=cpus_up, console="", code=code, sentence=sentence)


V02: Final = called(VERSION, 2)
ON: Final = called(CPU_ON)
LAST: Final = called(OFF, None)
USUAL: Final = trace(V02, ON, LAST)


def of(run: Trace, reference: Trace = USUAL, *, may_lack: bool = False) -> list[Suspect]:
    return list(suspects(run, reference, may_lack=may_lack))


def only(run: Trace, reference: Trace = USUAL, *, may_lack: bool = False) -> Suspect:
    (suspect,) = of(run, reference, may_lack=may_lack)
    return suspect


# ---- what is wrong

ENDS: Final = [
    (ExitCode.CRASH, CRASH),
    (ExitCode.PANIC, CRASH),
    (ExitCode.NO_PROGRESS, HANG),
    (ExitCode.LIMIT, HANG),
    (ExitCode.DEADLOCK, DEADLOCK),
]


@pytest.mark.parametrize(("code", "oracle"), ENDS, ids=str)
def test_a_run_that_does_not_end_by_itself_is_a_crash_a_hang_or_a_standstill(code: ExitCode, oracle: str) -> None:
    run = trace(V02, called(CPU_ON, -2), code=code, sentence="how it ended")

    assert of(run) == [Suspect(oracle, "cpu_on+0x8", "CPU_ON", "error", "how it ended; on the reference: system off")]


@pytest.mark.parametrize(("code", "oracle"), ENDS, ids=str)
def test_nothing_else_is_said_of_a_run_that_does_not_end(code: ExitCode, oracle: str) -> None:
    run = trace(V02, called(CPU_ON, -2), code=code, cpus_up=1)  # a vCPU is missing too

    assert [suspect.oracle for suspect in of(run)] == [oracle]


@pytest.mark.parametrize("may_lack", [False, True])
def test_a_run_like_the_reference_s_is_right(may_lack: bool) -> None:
    assert of(USUAL, may_lack=may_lack) == []
    assert of(trace(V02, called(CPU_ON, -2), LAST), may_lack=may_lack) == []  # answered otherwise, and taken well
    assert of(trace(V02, ON, LAST, cpus_up=3), may_lack=may_lack) == []


def test_a_vcpu_that_came_up_on_the_reference_is_lost() -> None:
    run = trace(V02, called(CPU_ON, -2), LAST, cpus_up=1)

    assert of(run) == [Suspect(LOST, "cpu_on+0x8", "CPU_ON", "error", "1 vCPU up, on the reference 2; system off")]


def test_another_exit_code_is_another_result() -> None:
    run = trace(V02, called(CPU_ON, -2), code=1, sentence="the guest ended with exit code 1")

    assert of(run) == [
        Suspect(RESULT, "cpu_on+0x8", "CPU_ON", "error", "the guest ended with exit code 1; on the reference: system off"),
    ]


def test_older_firmware_may_start_fewer_vcpus_and_give_another_result_but_not_crash() -> None:
    assert of(trace(V02, called(CPU_ON, -2), cpus_up=1), may_lack=True) == []
    assert of(trace(V02, called(CPU_ON, -2), code=1), may_lack=True) == []
    assert only(trace(V02, code=ExitCode.CRASH), may_lack=True).oracle == CRASH


def test_a_reset_is_no_other_result_and_loses_no_vcpu() -> None:
    assert of(trace(V02, code=ExitCode.RESET, cpus_up=1)) == []


def test_what_is_wrong_on_the_reference_too_is_told() -> None:
    stuck = trace(V02, code=ExitCode.DEADLOCK, sentence="all wait")

    assert of(stuck, stuck) == [Suspect(DEADLOCK, "psci_version+0x8", "PSCI_VERSION", "0.x", "all wait, as on the reference")]
    assert only(trace(V02, code=1), trace(V02, code=1)).oracle == RESULT


def test_a_run_that_is_right_where_the_reference_s_fails_is_right() -> None:
    assert of(USUAL, trace(V02, code=1)) == []
    assert of(USUAL, trace(V02, code=ExitCode.CRASH)) == []


def test_where_the_reference_resets_to_end_otherwise_is_another_result() -> None:
    resets = trace(V02, code=ExitCode.RESET, sentence="system reset")

    assert of(resets, resets) == []
    assert only(trace(V02), resets).oracle == RESULT


# ---- rules


def test_a_broken_rule_is_told_beside_how_the_run_ended() -> None:
    broken = (called(VERSION, -1), called(SMCCC_VERSION, -1))
    ended = {"rule:smccc-version-unguarded"}

    assert {suspect.oracle for suspect in of(trace(*broken))} == ended
    assert {suspect.oracle for suspect in of(trace(*broken, code=ExitCode.CRASH))} == {*ended, CRASH}


def test_a_rule_s_finding_names_the_call_that_broke_it_and_no_answer() -> None:
    suspect = only(trace(called(VERSION, 0x1_0000), called(SMCCC_VERSION, -1)))

    assert suspect == Suspect("rule:smccc-version-unguarded", "smccc_version+0x8", "SMCCC_VERSION", "", suspect.detail)
    assert suspect.detail


# ---- who is to blame


def crash(*calls: Call) -> Suspect:
    return only(trace(*calls, code=ExitCode.CRASH))


def test_the_first_call_that_was_answered_otherwise_is_to_blame_and_not_the_last() -> None:
    assert crash(called(VERSION, 0x1_0003), called(CPU_ON, -2), LAST).function == "PSCI_VERSION"
    assert crash(V02, called(CPU_ON, -2), LAST).function == "CPU_ON"


def test_a_call_that_the_reference_s_run_has_not_is_to_blame() -> None:
    assert crash(V02, ON, called(CPU_OFF, None)).function == "CPU_OFF"


def test_where_all_was_answered_as_usual_the_last_call_is_to_blame() -> None:
    assert crash(V02, ON).function == "CPU_ON"


def test_a_guest_that_made_no_call_has_none_to_blame() -> None:
    assert of(trace(code=ExitCode.CRASH, sentence="it fell")) == [Suspect(CRASH, "", "", "", "it fell; on the reference: system off")]


def test_each_vcpu_s_calls_are_held_against_its_own() -> None:
    other_off, other_version = called(CPU_OFF, None, vcpu=1), called(VERSION, 2, vcpu=1)
    usual = trace(V02, ON, other_version, other_off, LAST)
    # The second vCPU comes in between; it is the first one's CPU_ON that went otherwise.
    run = trace(V02, other_version, called(CPU_ON, -3), other_off, code=ExitCode.CRASH)

    assert only(run, usual).function == "CPU_ON"


def test_the_same_call_from_elsewhere_or_with_other_arguments_is_another() -> None:
    assert crash(V02, called(CPU_ON, x1=5)).function == "CPU_ON"
    assert crash(called(VERSION, 2, site="elsewhere+0x4"), ON).site == "elsewhere+0x4"


# ---- which two are one


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (called(CPU_ON, None), "none"),
        (called(CPU_ON, 0), "0"),
        (called(CPU_ON, 1), "other"),
        (called(CPU_ON, -2), "error"),
        (called(CPU_ON, -2 & MASK32), "error of 32 bits"),
        (called(VERSION, -1), "error"),
        (called(VERSION, 0), "0.0"),
        (called(VERSION, 1), "0.x"),
        (called(VERSION, 0x1_0003), "1.x"),
        (called(VERSION, 0x2_0000), "2.0 or more"),
        (called(VERSION, 0x7FFF_FFFF), "2.0 or more"),
        (called(SMCCC_VERSION, 0x1_0002), "1.x"),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value.returned),
)
def test_of_an_answer_it_is_told_what_matters(call: Call, answer: str) -> None:
    assert next(suspects(trace(call, code=ExitCode.CRASH), USUAL, may_lack=False)).answer == answer


def test_two_places_in_one_function_are_one_cause() -> None:
    by_hvc, by_smc = (crash(V02, called(CPU_ON, -2, site=site)) for site in ("cpu_on+0x40", "cpu_on+0x5c"))

    assert by_hvc != by_smc
    assert by_hvc.cause == by_smc.cause


def test_two_errors_are_one_cause_and_another_kind_of_answer_is_another() -> None:
    causes = [crash(V02, called(CPU_ON, answer)).cause for answer in (-2, -9, 0x1, None, 0x7FFF_FFFF)]

    assert causes[0] == causes[1]
    assert causes[2] == causes[4]
    assert len(set(causes)) == 3


def test_two_oracles_functions_or_callers_are_two_causes() -> None:
    crashed = crash(V02, called(CPU_ON, -2))
    others = [
        only(trace(V02, called(CPU_ON, -2), code=ExitCode.LIMIT)),
        crash(V02, called(CPU_OFF, -2)),
        crash(V02, called(CPU_ON, -2, site="resume+0x40")),
    ]

    assert crashed.cause not in {other.cause for other in others}
    assert len({other.cause for other in others}) == 3


def test_a_call_without_a_name_and_a_place_without_a_symbol_are_told_by_number() -> None:
    nameless = called(UNNAMED, -1)._replace(site=Site(0x4008_0040, None, 0x4008_003C))
    suspect = crash(V02, nameless)

    assert (suspect.site, suspect.function) == ("0x40080040", "")
