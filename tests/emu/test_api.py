"""The Python interface, and what must not happen to a machine under control."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from emu import Machine
from emu.outcome import ExitCode
from firmware.errors import RegisterError, UserError
from firmware.trap import Conduit, Reply, Resume, Trap
from guests import elf_path

RACE = elf_path("race")
PASS = "PASS: the target runs once, with the winner's context_id\n"


def race(**options: object) -> Machine:
    return Machine(**{"kernel": RACE, "smp": 5, "host": "kvm-6.12", **options})  # type: ignore[arg-type]


def test_a_machine_runs_to_its_end_and_stays_there() -> None:
    machine = race()

    outcome = machine.run()

    assert (outcome.code, outcome.sentence) == (0, "system off")
    assert machine.console.endswith(PASS)
    assert machine.run() == machine.step() == outcome


def test_a_semihosting_exit_is_an_end_too() -> None:
    machine = race(host="spec", psci="none")

    assert machine.run() == machine.run()
    assert machine.run().code == 2


def test_it_stops_at_calls_one_after_the_other() -> None:
    machine = race()

    for vcpu in (1, 2, 3):
        assert machine.run_until(call="CPU_ON").code == 0
        assert machine.cpu[vcpu].state.name == "ON_PENDING"
        assert machine.calls[-1].args[0] == vcpu
        assert machine.calls[-1].result == 0
    assert machine.run().code == 0


def test_a_point_that_did_not_come_is_forgotten() -> None:
    machine = race()

    assert machine.run_until(call="SYSTEM_RESET").code == ExitCode.CHECK_FAILED
    machine = race()
    machine.run_until(console="race")
    assert machine.run_until(console="never").code == ExitCode.CHECK_FAILED


def test_many_stops_leave_nothing_behind() -> None:
    machine = Machine(kernel=elf_path("version-loop"), append="rounds=200")

    for _ in range(100):
        machine.run_until(call="PSCI_VERSION")

    assert len(machine._inner.trap_path._actions) == 0
    assert len(machine._inner.trap_path._observers) == 1


def test_it_stops_at_output_and_goes_on() -> None:
    machine = race()

    assert machine.run_until(console="winners: .").code == 0
    assert "winners: 1" in machine.console
    assert machine.run().code == 0
    assert machine.console.endswith(PASS)


def test_a_step_is_as_many_instructions_as_asked() -> None:
    machine = race()
    before = machine.cpu[0]["pc"]

    assert machine.step() is None
    assert machine.cpu[0]["pc"] != before
    for instructions in (0, -1):
        with pytest.raises(UserError, match="at least 1 instruction"):
            machine.step(instructions)


def test_registers_and_memory_are_read_and_written() -> None:
    machine = race()
    machine.cpu[3].x[7] = 0x1234
    machine.cpu[0]["x9"] = -1
    machine.memory[0x4100_0000:0x4100_0004] = b"abcd"

    assert (machine.cpu[3].x[7], machine.cpu[0].x[9]) == (0x1234, (1 << 64) - 1)
    assert list(machine.cpu[3].x)[7] == machine.cpu[3].x[7:8][0] == 0x1234
    assert machine.cpu[3].x[-1] == machine.cpu[3].x[30]
    assert machine.memory[0x4100_0000:0x4100_0004] == b"abcd"


@pytest.mark.parametrize(
    "where", [0x4000_0000, slice(None, 4), slice(4, None), slice(0x4100_0000, 0x4000_0000), slice(0, 4, 2), slice(0, 4)]
)
def test_memory_that_cannot_be_had_is_refused(where: slice) -> None:
    with pytest.raises(UserError):
        race().memory[where]


def test_a_hook_answers_in_the_firmwares_place() -> None:
    machine = race()
    machine.hook("CPU_ON", lambda trap: -6 if trap.regs[1] == 1 else None)

    machine.run()

    assert "INTERNAL_FAILURE" in machine.console
    assert machine.cpu[1].state.name == "OFF"


def test_a_hook_may_look_at_any_vcpu() -> None:
    machine, seen = race(), []

    def look(_trap: Trap) -> None:
        seen.append([cpu.x[0] for cpu in machine.cpu])

    machine.hook("CPU_ON", look)

    assert machine.run().code == 0
    assert machine.console.endswith(PASS)
    assert len(seen) == 7


@pytest.mark.parametrize("asked", ["run", "step"])
def test_a_hook_cannot_run_the_machine(asked: str) -> None:
    machine = race()
    machine.hook("CPU_ON", lambda _trap: getattr(machine, asked)())

    with pytest.raises(UserError, match="the machine is running"):
        machine.run()


@pytest.mark.parametrize("answer", ["", 1.5, Reply(resume=Resume.NEVER)])
def test_an_answer_that_is_none_is_refused(answer: object) -> None:
    machine = race()
    machine.hook("CPU_ON", lambda _trap: answer)  # type: ignore[arg-type,return-value]

    with pytest.raises(UserError, match="a hook"):
        machine.run()


def test_a_hook_has_to_be_a_function_of_a_row() -> None:
    with pytest.raises(UserError, match="unknown function"):
        race().hook("CPU_UP", lambda _trap: None)
    with pytest.raises(UserError, match="a hook is a function"):
        race().hook("CPU_ON", 5)  # type: ignore[arg-type]


def test_calls_tell_what_the_guest_asked_and_got() -> None:
    machine = race(conduit="smc")
    machine.run_until(call="CPU_ON")

    call = machine.calls[-1]

    assert (call.name, call.vcpu, call.conduit, call.site.partition("+")[0]) == ("CPU_ON", 0, Conduit.SMC, "cpu_on")


def test_firmware_registers_go_by_name_or_id() -> None:
    machine = race()
    machine.set_one_reg("PSCI_VERSION", 0x2)

    assert machine.get_one_reg("KVM_REG_ARM_PSCI_VERSION") == machine.get_one_reg(0x6030_0000_0014_0000) == 0x2
    with pytest.raises(RegisterError, match="EINVAL"):
        machine.set_one_reg("PSCI_VERSION", 0x1)
    with pytest.raises(UserError, match="unknown firmware register"):
        machine.get_one_reg("PSCI_VERSIONS")


@pytest.mark.parametrize(
    "options",
    [
        {"mpidrs": (0, 0)},
        {"mpidrs": ()},
        {"smp": None, "mpidrs": (1 << 31,)},
        {"smp": 4, "mpidrs": (0, 1)},
        {"smp": 124},
        {"max_insns": 0},
        {"max_insns": -1},
        {"seed": -1},
        {"cpu": "cortex-a9"},
        {"psci": "9"},
        {"host": "kvm"},
        {"memory": "0"},
        {"kernel": Path("/nonexistent")},
        {"fwreg": "PSCI_VERSION=7"},
    ],
    ids=str,
)
def test_what_the_command_line_refuses_is_refused_here(options: dict[str, object]) -> None:
    with pytest.raises(UserError):
        race(**options)


def test_a_context_ends_the_run() -> None:
    with race() as machine:
        machine.run_until(call="CPU_ON")

    assert machine.run().code == ExitCode.INTERRUPTED


# ---- kept and moved


def test_a_machine_goes_on_from_a_file_in_another_machine(tmp_path: Path) -> None:
    machine = race()
    machine.run_until(call="CPU_ON")
    printed = machine.console

    machine.snapshot().save(str(tmp_path / "race.snapshot"))
    other = Machine.load(tmp_path / "race.snapshot")

    assert other.cpu[1].state is machine.cpu[1].state
    assert (machine.run(), machine.console) == (other.run(), printed + other.console)


def test_a_machine_goes_back_to_a_snapshot_and_to_a_checkpoint() -> None:
    machine = race()
    machine.run_until(call="CPU_ON")
    kept, instant, time_ns = machine.snapshot(), machine.checkpoint(), machine.time_ns
    first = machine.run()

    machine.restore(kept)
    assert (machine.time_ns, machine.cpu[1].state.name) == (time_ns, "ON_PENDING")
    assert machine.run() == first
    instant.restore()
    assert (machine.time_ns, machine.cpu[1].state.name) == (time_ns, "ON_PENDING")
    assert machine.run() == first


def test_a_machine_is_moved_and_everything_seen_stays_seen() -> None:
    machine = Machine(kernel=elf_path("version-loop"), host="kvm-4.16", append="rounds=4")
    machine.run_until(call="PSCI_VERSION")

    moved = machine.migrate("kvm-4.15", "do-nothing")

    assert (moved.accepted, moved.version_changed, moved.mitigation_lost) == (True, True, True)
    assert machine.run().sentence == "system off"
    assert [call.result for call in machine.calls if call.name == "PSCI_VERSION"] == [0x1_0000, 0x2, 0x2, 0x2]
    assert "round 4: PSCI 0.2" in machine.console


def test_a_machine_whose_move_is_refused_goes_on_where_it_was() -> None:
    machine = Machine(kernel=elf_path("version-loop"), host="kvm-6.13", append="rounds=4")
    machine.run_until(call="PSCI_VERSION")

    moved = machine.migrate("kvm-6.12")

    assert [(step.register, step.errno) for step in moved.refusals] == [("PSCI_VERSION", "EINVAL")]
    assert machine.run().sentence == "system off"
    assert "round 4: PSCI 1.3" in machine.console


def test_a_destination_is_asked_for_the_version_that_the_source_was_where_the_policy_has_it_so(tmp_path: Path) -> None:
    machine = Machine(kernel=elf_path("version-loop"), host="kvm-6.13", append="rounds=4", psci="1.3")
    machine.run_until(call="PSCI_VERSION")
    machine.snapshot().save(tmp_path / "kept")
    refused = "EINVAL: PSCI_VERSION does not take 0x10003; allowed: 0.2"

    for asked in (machine, Machine.load(tmp_path / "kept")):
        with pytest.raises(RegisterError, match=refused):
            asked.migrate("kvm-6.12", "qemu-11")
        assert [step.errno for step in asked.migrate("kvm-6.12").refusals] == ["EINVAL"]
        assert asked.migrate("kvm-6.15", "qemu-11", machine_type="virt-10.1").accepted
        with pytest.raises(RegisterError, match=refused):
            asked.migrate("kvm-6.12", "qemu-11")  # and so is the next one

    assert machine.run().sentence == "system off"


@pytest.mark.parametrize("asked", [{"psci": "0.1"}, {"fwreg": ("PSCI_VERSION=0.1",)}], ids=["psci", "fwreg"])
def test_a_guest_of_0_1_finds_vcpus_of_0_1(asked: dict[str, Any], tmp_path: Path) -> None:
    machine = Machine(kernel=elf_path("version-loop"), host="kvm-6.12", append="rounds=3", **asked)
    machine.step()
    machine.snapshot().save(tmp_path / "kept")

    assert Machine.load(tmp_path / "kept").migrate("kvm-6.13").accepted
    assert machine.migrate("kvm-6.13").accepted
    assert not machine._inner.config.psci_0_2


@pytest.mark.parametrize(
    "other",
    [
        {"kernel": elf_path("race"), "smp": 5, "host": "kvm-6.12"},
        {"kernel": elf_path("version-loop"), "host": "kvm-4.16"},
        {"kernel": elf_path("version-loop"), "host": "kvm-6.12", "memory": "64M"},
        {"kernel": elf_path("version-loop"), "host": "kvm-6.12", "cpu": "max"},
    ],
    ids=["program", "host", "memory", "cpu"],
)
def test_a_snapshot_of_another_machine_makes_this_one_that(other: dict[str, Any]) -> None:
    first = Machine(kernel=elf_path("version-loop"), host="kvm-6.12", append="rounds=3")
    first.run_until(call="PSCI_VERSION")
    kept = first.snapshot()
    second = Machine(**other)

    second.restore(kept)

    assert (second.run(), second.console) == (first.run(), first.console)
    assert len(second.cpu) == 1


def test_a_snapshot_from_before_a_move_goes_back_to_the_source() -> None:
    machine = Machine(kernel=elf_path("version-loop"), host="kvm-4.16", append="rounds=3")
    machine.run_until(call="PSCI_VERSION")
    kept = machine.snapshot()
    assert machine.migrate("kvm-4.15", "do-nothing").accepted

    machine.restore(kept)

    machine.run()
    assert machine.console.splitlines()[-1].startswith("round 3: PSCI 1.0, SMCCC 1.1")
