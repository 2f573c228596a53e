"""A running guest moved to another host, at any of its traps; and the command that does it."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from emu.cli import main
from emu.machine import Machine
from emu.migrate import Moved, destination_of, move
from emu.observer import Observer
from emu.outcome import Outcome
from emu.setup import Setup
from emu.trap import Record
from emu.words import CallPoint
from firmware.host import Config
from firmware.hosts import host_named
from firmware.policy import DO_NOTHING, PSEUDO_REGISTER, Policy
from firmware.trap import Conduit
from firmware.view import view
from guests import catalogue, elf_path
from tests.emu.test_snapshot import Everything, Watched, finished, setup_of, undisturbed, watched

GUESTS: Final = catalogue()
MOST_TRAPS: Final = 6


class Stop(Observer):
    """End the turn after the Nth call."""

    def __init__(self, machine: Machine, number: int) -> None:
        self._machine = machine
        self._left = number
        self.done = False
        machine.observe(self, calls=None)

    def call(self, record: Record) -> None:
        del record
        self._left -= 1
        if self._left == 0:
            self.done = True
            self._machine.engine.stop()


def stopped_at(setup: Setup, number: int) -> Watched | None:
    """Run to just after the Nth call; None where the run ends before."""
    run = watched(setup)
    stop = Stop(run.machine, number)
    while not stop.done:
        if run.machine.step(None) is not None:
            return None
    return run


def some_of(calls: int) -> list[int]:
    """Choose traps, the first and the last among them."""
    return sorted({1 + round(index * (calls - 1) / (MOST_TRAPS - 1)) for index in range(MOST_TRAPS)}) if calls else []


def fresh(setup: Setup, destination: str, policy: Policy) -> Config:
    host = host_named(destination)
    like = dataclasses.replace(setup.config, conduits=frozenset({host.default_conduit}))
    return destination_of(like, host, policy, policy.machine_types[0], None)


def moved_to(host: str, machine: Machine, setup: Setup, policy: Policy = PSEUDO_REGISTER) -> Moved:
    return move(machine, fresh(setup, host, policy), policy, policy.machine_types[0])


def going_on(run: Watched, machine: Machine) -> tuple[Outcome, list[object], bytes]:
    seen, printed = list(run.seen), bytearray(run.printed)
    Everything(machine, seen, printed)
    return machine.run(), seen, bytes(printed)


@pytest.mark.parametrize("host", ["spec", "kvm-6.12", "qemu-7"])
@pytest.mark.parametrize("guest", GUESTS)
def test_moved_at_any_trap_between_equal_hosts_a_guest_notices_nothing(guest: str, host: str) -> None:
    setup = setup_of(guest, host)
    calls = sum(isinstance(each, Record) for each in undisturbed(setup)[1])
    for number in some_of(calls):
        unmoved, run = stopped_at(setup, number), stopped_at(setup, number)
        if unmoved is None or run is None or run.machine.is_over:
            continue  # the call ended the run
        expected = finished(unmoved)

        moved = moved_to(host, run.machine, setup)

        assert moved.machine is not None, f"trap {number}"
        assert moved.migration.before == moved.migration.after
        assert going_on(run, moved.machine) == expected, f"trap {number}"


UNEQUAL: Final = (
    ("kvm-4.15", "kvm-4.16", DO_NOTHING),
    ("kvm-4.16", "kvm-4.15", DO_NOTHING),
    ("kvm-4.17", "kvm-4.15", PSEUDO_REGISTER),
    ("kvm-6.12", "kvm-6.15", PSEUDO_REGISTER),
    ("kvm-6.15", "kvm-6.12", PSEUDO_REGISTER),
    ("kvm-4.18", "kvm-5.0", PSEUDO_REGISTER),
)


@pytest.mark.parametrize(("source", "destination", "policy"), UNEQUAL, ids=lambda value: getattr(value, "name", value))
@pytest.mark.parametrize("guest", ["off-on-again", "race", "version-loop", "prober", "suspend-standby"])
def test_between_unequal_hosts_the_move_is_refused_or_the_guest_sees_what_was_said(
    guest: str, source: str, destination: str, policy: Policy
) -> None:
    setup = setup_of(guest, source)
    calls = sum(isinstance(each, Record) for each in undisturbed(setup)[1])
    for number in some_of(calls):
        unmoved, run = stopped_at(setup, number), stopped_at(setup, number)
        if unmoved is None or run is None or run.machine.is_over:
            continue

        moved = moved_to(destination, run.machine, setup, policy)

        if moved.machine is None:
            assert not moved.migration.accepted
            assert finished(run) == finished(unmoved)
        else:
            assert view(moved.machine.config, Conduit.HVC) == moved.migration.after
            outcome, _, _ = going_on(run, moved.machine)
            assert outcome.code in (0, 1), outcome


def test_a_reset_that_waits_is_lost_where_the_host_does_not_read_it_before_it_sends() -> None:
    # Linux before 5.15: user space read the registers of a started vCPU as they were before CPU_ON (kvm.md 7; 6826c6849b46).
    for host, arrives in (("kvm-4.18", True), ("kvm-5.0", False), ("kvm-5.13", False), ("kvm-5.15", True), ("kvm-7.0", True)):
        setup = setup_of("rendezvous", host)
        run = watched(setup)
        run.machine.at_call(CallPoint("CPU_ON", 1), run.machine.engine.stop)
        while not any(isinstance(each, Record) and each.function is not None and each.function.name == "CPU_ON" for each in run.seen):
            run.machine.step(None)

        moved = moved_to(host, run.machine, setup)

        assert moved.machine is not None
        assert (going_on(run, moved.machine)[0].sentence == "system off") is arrives, host


# ---- the command

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def migrate(capfd: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["migrate", *arguments, "-max-insns", "20000000"])
        out, err = capfd.readouterr()
        return code, out, err

    return run


LOOP: Final = ("-kernel", str(elf_path("version-loop")), "-append", "rounds=6", "-at", "call:PSCI_VERSION#3")


def test_an_accepted_move_goes_on_at_the_destination_and_its_exit_code_counts(migrate: Run) -> None:
    code, out, err = migrate(*LOOP, "-from", "kvm-6.12", "-to", "kvm-6.13")

    assert (code, err) == (0, "")
    assert re.search(r"PSCI_VERSION +0x10001 +sent +accepted", out)
    assert "accepted\nversion changed: no\nmitigation lost: no\n" in out
    assert "round 6: PSCI 1.1" in out


def test_every_discovery_call_that_was_or_is_answered_is_told(migrate: Run) -> None:
    _, out, _ = migrate(*LOOP, "-from", "kvm-6.12", "-to", "kvm-6.13", "-psci", "1.0", "-policy", "do-nothing")

    told = re.search(r"what the guest sees +before +after\n(.*?)\n\n", out, re.DOTALL)
    assert told
    rows = dict(re.split(r"  +", line, maxsplit=1) for line in told[1].splitlines()[:-1])
    assert told[1].splitlines()[-1] == "every other discovery call: -1"
    assert {" ".join(rows[name].split()) for name in rows if "FEATURES" not in name} == {"1.0 1.3", "1.1 1.1"}
    assert rows.pop("PSCI_FEATURES(SYSTEM_RESET2 0xc4000012)").split() == ["-1", "0"]  # since 1.1
    assert rows.pop("PSCI_FEATURES(SYSTEM_OFF2 0xc4000015)").split() == ["-1", "1"]  # since 1.3, hibernation
    assert rows["PSCI_FEATURES(SMCCC_VERSION)"].split() == ["0", "0"]
    assert rows["SMCCC_ARCH_FEATURES(SMCCC_ARCH_WORKAROUND_2)"].split() == ["-2", "-2"]


def test_a_refused_move_leaves_the_source_to_its_end_and_says_so(migrate: Run) -> None:
    code, out, err = migrate(*LOOP, "-from", "kvm-6.13", "-to", "kvm-6.12")

    assert code == 100
    assert "refused: PSCI_VERSION EINVAL: PSCI_VERSION does not take 0x10003" in out
    assert "round 6: PSCI 1.3" in out
    assert "the move was refused; the source went on: system off" in err


def test_a_verdict_that_is_true_is_a_failed_check(migrate: Run) -> None:
    code, out, err = migrate(*LOOP, "-from", "kvm-4.16", "-to", "kvm-4.15", "-policy", "do-nothing")

    assert code == 100
    assert "version changed: yes, 1.0 before and 0.2 after" in out
    assert "mitigation lost: SMCCC_ARCH_WORKAROUND_1 on cpu0, 0 before and -1 after: the destination does not offer it" in out
    assert "the guest was changed by the move: system off" in err


def test_the_destinations_cpu_can_be_worse(migrate: Run) -> None:
    code, out, _ = migrate(*LOOP, "-from", "kvm-6.12", "-to", "kvm-6.12", "-to-cpu", "spectre-v2=vulnerable")

    assert code == 100
    assert re.search(r"SMCCC_ARCH_WORKAROUND_1 +0x1 +sent +EINVAL", out)


def test_a_machine_type_asks_for_its_version_on_both_sides(migrate: Run) -> None:
    code, out, _ = migrate(*LOOP, "-from", "kvm-6.12", "-to", "kvm-6.13", "-policy", "straightforward", "-machine-type", "virt-2.12")

    assert code == 0
    assert "round 6: PSCI 1.0" in out


def test_a_version_that_was_asked_for_travels(migrate: Run) -> None:
    code, out, _ = migrate(*LOOP, "-from", "kvm-6.12", "-to", "kvm-7.0", "-psci", "0.2")

    assert code == 0
    assert "round 6: PSCI 0.2" in out


def test_the_trace_of_a_move_replays(migrate: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "moved.jsonl"

    assert migrate(*LOOP, "-from", "kvm-6.12", "-to", "kvm-6.13", "-trace", str(trace))[0] == 0
    assert main(["replay", str(trace)]) == 0
    assert "no difference" in capfd.readouterr().out
    assert sum(json.loads(line)["kind"] == "resumed" for line in trace.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("-from", "kvm-6.12", "-to", "kvm-6.13"), "--at is missing; a move needs --from HOST, --to HOST and --at POINT"),
        (("-to", "kvm-6.13", "-at", "call:CPU_ON"), "--from is missing"),
        (("-from", "kvm-6.12", "-at", "call:CPU_ON"), "--to is missing"),
        (("-from", "kvm-6.12", "-to", "kvm-9.99", "-at", "call:CPU_ON"), "host 'kvm-9.99' is not known"),
        (("-from", "kvm-6.12", "-to", "kvm-6.13", "-at", "CPU_ON"), "--at 'CPU_ON' is neither"),
        (("-from", "kvm-6.12", "-to", "kvm-6.13", "-at", "call:CPU_OM"), "unknown function 'CPU_OM'; did you mean CPU_ON?"),
        (
            ("-from", "kvm-6.12", "-to", "kvm-6.13", "-at", "call:CPU_ON", "-policy", "qemu-12"),
            "unknown policy 'qemu-12'",
        ),
        (("-from", "kvm-6.12", "-to", "kvm-6.13", "-at", "call:CPU_ON", "-machine-type", "pc"), "unknown machine type 'pc'"),
        (("-from", "kvm-6.12", "-to", "kvm-6.13", "-at", "call:CPU_ON", "-to-cpu", "fast"), "unknown CPU property 'fast'"),
    ],
)
def test_a_wrong_word_is_refused_in_one_sentence(migrate: Run, arguments: tuple[str, ...], sentence: str) -> None:
    code, out, err = migrate("-kernel", str(elf_path("version-loop")), *arguments)

    assert (code, out) == (102, "")
    assert err.count("\n") == 1
    assert sentence in err


def test_a_point_that_does_not_come_is_a_failed_check(migrate: Run) -> None:
    code, out, err = migrate("-kernel", str(elf_path("prober")), "-from", "kvm-6.12", "-to", "kvm-6.13", "-at", "call:CPU_FREEZE")

    assert code == 100
    assert err.startswith("psci-emu: --at was not met: system off")
    assert "accepted" not in out


def test_where_the_destinations_vm_cannot_be_created_the_source_goes_on(migrate: Run) -> None:
    move = ("-from", "kvm-6.13", "-to", "kvm-4.16", "-psci", "0.2", "-policy", "qemu-11", "-at", "call:PSCI_VERSION#2")

    code, out, err = migrate("-kernel", str(elf_path("version-loop")), "-append", "rounds=3", *move)

    assert code == 100
    assert (
        "refused: the destination's VM cannot be created as the guest's owner asked: ENOENT: host kvm-4.16 has no version register" in out
    )
    assert out.splitlines()[-1].startswith("round 3: PSCI 0.2")
    assert "the move was refused; the source went on: system off" in err
