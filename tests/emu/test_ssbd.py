"""A guest's switch of its Spectre v4 mitigation, wherever a machine goes: files, checkpoints, other hosts, replays."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from emu.checkpoint import Checkpoint
from emu.cli import main
from emu.machine import Machine
from emu.migrate import destination_of, move
from emu.replay import Replay
from emu.setup import Choices, make
from emu.snapshot import read, take
from emu.state import adopt
from emu.words import CallPoint
from firmware.hosts import host_named
from firmware.policy import PSEUDO_REGISTER
from tests.emu.programs import PSCI_VERSION, Bench, Part, call, off
from tests.emu.test_snapshot import with_header

WORKAROUND_2: Final = 0x8000_7FFF
REGISTER: Final = 0x6030_0000_0014_0002
SWITCHABLE: Final = Choices(host="kvm-5.9", host_cpu="ssbs")
SWITCHES: Final[list[Part]] = [*call(WORKAROUND_2, 0), *call(PSCI_VERSION), *call(WORKAROUND_2, 1), *off()]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def switched_off(bench: Bench) -> Machine:
    machine = bench.machine(*SWITCHES, choices=SWITCHABLE)
    assert machine.run(CallPoint("PSCI_VERSION", 1)).code == 0
    return machine


def told(machine: Machine) -> int:
    return machine.firmware.get_one_reg(REGISTER)


def test_a_guest_switches_it_off_and_on(bench: Bench) -> None:
    machine = switched_off(bench)
    between = told(machine)

    machine.run()

    assert (between, told(machine)) == (0x2, 0x12)


def test_a_snapshot_holds_it_and_one_of_before_has_what_its_machine_began_with(bench: Bench, tmp_path: Path) -> None:
    def without(header: dict[str, Any]) -> None:
        del header["firmware"]["ssbd_off"]
        header["config"]["ssbd_off"] = [0]

    now, before = tmp_path / "now.snapshot", tmp_path / "before.snapshot"
    take(switched_off(bench)).save(now)
    before.write_bytes(with_header(without, now.read_bytes()))

    for path in (now, before):
        kept = read(path)
        machine = Machine(kept.setup)
        adopt(machine, kept.state)
        assert told(machine) == 0x2


def test_a_checkpoint_puts_it_back(bench: Bench) -> None:
    machine = switched_off(bench)
    kept = Checkpoint(machine)
    machine.run()

    kept.restore()

    assert told(machine) == 0x2


def test_it_moves_with_the_guest(bench: Bench) -> None:
    machine, kind = switched_off(bench), PSEUDO_REGISTER.machine_types[0]
    fresh = destination_of(machine.config, host_named("kvm-5.3"), PSEUDO_REGISTER, kind, None)

    moved = move(machine, fresh, PSEUDO_REGISTER, kind).machine

    assert moved is not None
    assert told(moved) == 0x2
    assert told(Machine(moved.setup)) == 0x2  # the machine began with it


def test_a_replay_follows_it(bench: Bench, tmp_path: Path) -> None:
    program = str(bench.file(*call(WORKAROUND_2, 0), *off()))
    options = ["run", "-kernel", program, "-host", "kvm-5.9", "-host-cpu", "ssbs", "--trace", str(tmp_path / "trace")]
    assert main(options) == 0

    replay = Replay(tmp_path / "trace")

    assert list(replay.differences()) == []
    assert replay.firmware.get_one_reg(REGISTER) == 0x2


def test_a_register_that_is_written_before_the_first_run_is_there_to_begin_with() -> None:
    setup = make(Choices(host="kvm-5.9", host_cpu="ssbs", fwreg=("SMCCC_ARCH_WORKAROUND_2=0x2",)))

    assert setup.config.ssbd_off == {0}
    assert setup.firmware().get_one_reg(REGISTER) == 0x2
