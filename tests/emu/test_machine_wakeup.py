"""What wakes vCPUs that sleep, through an interrupt controller: the real-time clock's alarm, and one another."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final, Literal

import pytest

from emu.devices.pl031 import DR, IMSC, MR, RIS
from emu.machine import Machine
from emu.memory import GICC, GICD, GICR, RTC
from emu.outcome import ExitCode
from emu.setup import Choices
from emu.snapshot import parts, read, take
from emu.state import adopt
from tests.emu.programs import (
    CPU_ON,
    CPU_SUSPEND,
    SCRATCH,
    SYSTEM_SUSPEND,
    WFI,
    Bench,
    Label,
    Part,
    adr,
    b,
    call,
    call_at,
    cbz,
    copy,
    exits,
    kept,
    ldr32,
    mov,
    mrs,
    store32,
)

SECOND: Final = 1_000_000_000
START: Final = 1_516_492_800  # 2018-01-21, midnight
FLAG: Final = SCRATCH + 0x100
ICC: Final = {"PMR": 0xD518_4600, "IGRPEN1": 0xD518_CCE0, "SRE": 0xD518_CCA0, "SGI1R": 0xD518_CBA0}
POWERDOWN: Final = 0x1_0000


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def poke(address: int, value: int) -> list[Part]:
    return [mov(9, address), mov(10, value), store32(10, 9)]


def peek(register: int, address: int) -> list[Part]:
    return [mov(9, address), ldr32(register, 9)]


def rtc_enabled(gic: Literal[2, 3]) -> list[Part]:
    """Let INTID 34 through, to vCPU 0: in group 1, of priority 0."""
    enable = poke(GICD.base + 0x104, 1 << 2)
    if gic == 2:
        cpu = [poke(GICD.base + 0x820, 1 << 16), poke(GICC.base + 4, 0xFF), poke(GICC.base, 1)]
        return [enable, cpu, poke(GICD.base, 1)]
    wake = poke(GICR.base + 0x14, 0)
    registers: list[Part] = [mov(9, 1), ICC["SRE"] | 9, ICC["IGRPEN1"] | 9, mov(9, 0xFF), ICC["PMR"] | 9]
    return [wake, poke(GICD.base + 0x84, 1 << 2), enable, registers, poke(GICD.base, 0x12)]


def alarm_in(seconds: int, mask: int = 1) -> list[Part]:
    return [poke(RTC.base + MR, START + seconds), poke(RTC.base + IMSC, mask)]


TELLS: Final[list[Part]] = [peek(19, RTC.base + DR), peek(20, RTC.base + RIS), mrs(21, "CNTVCT_EL0")]


def assert_woken_after(machine: Machine, seconds: int) -> None:
    assert kept(machine)[:2] == (START + seconds, 1)
    assert kept(machine)[2] * 16 - seconds * SECOND in range(100_000)


@pytest.mark.parametrize("gic", [2, 3])
def test_the_alarm_ends_a_wait_for_interrupt_at_its_second(bench: Bench, gic: Literal[2, 3]) -> None:
    outcome, machine = bench.run(rtc_enabled(gic), alarm_in(3), WFI, TELLS, exits(0), gic=gic, max_insns=100_000)

    assert outcome.code == 0
    assert_woken_after(machine, 3)


@pytest.mark.parametrize("gic", [2, 3])
@pytest.mark.parametrize(("power_state", "code"), [(0, 1), (POWERDOWN, 2)])
def test_the_alarm_ends_cpu_suspend(bench: Bench, gic: Literal[2, 3], power_state: int, code: int) -> None:
    suspend: list[Part] = [call_at(CPU_SUSPEND, power_state, "entry"), TELLS, exits(1), Label("entry"), TELLS, exits(2)]

    outcome, machine = bench.run(rtc_enabled(gic), alarm_in(5), suspend, gic=gic, max_insns=100_000)

    assert outcome.code == code
    assert_woken_after(machine, 5)


@pytest.mark.parametrize("gic", [2, 3])
@pytest.mark.parametrize("host", ["spec", "kvm-6.12"])
def test_the_alarm_ends_system_suspend_at_the_entry_point(bench: Bench, host: str, gic: Literal[2, 3]) -> None:
    suspend: list[Part] = [mov(0, SYSTEM_SUSPEND), adr(1, "entry"), mov(2, 7), mov(3, 0), 0xD400_0002, exits(1)]
    choices = Choices(host=host, cap=("system-suspend",), mpidrs=(0, 1))

    program: list[Part] = [rtc_enabled(gic), alarm_in(2), suspend, Label("entry"), copy(22, 0), TELLS, exits(2)]
    outcome, machine = bench.run(*program, choices=choices, gic=gic, max_insns=100_000)

    assert outcome.code == 2
    assert kept(machine)[3] == 7
    assert_woken_after(machine, 2)


def test_a_gicv3_whose_cpu_interface_was_put_to_sleep_lets_the_alarm_end_system_suspend(bench: Bench) -> None:
    # As Linux leaves it: ICC_IGRPEN1_EL1 clear, ProcessorSleep set.
    asleep: list[Part] = [mov(9, 0), ICC["IGRPEN1"] | 9, poke(GICR.base + 0x14, 2)]
    suspend: list[Part] = [mov(0, SYSTEM_SUSPEND), adr(1, "entry"), mov(2, 7), mov(3, 0), 0xD400_0002, exits(1)]

    outcome, machine = bench.run(rtc_enabled(3), alarm_in(2), asleep, suspend, Label("entry"), TELLS, exits(2), gic=3, max_insns=100_000)

    assert outcome.code == 2
    assert_woken_after(machine, 2)


@pytest.mark.parametrize("alarm", [[], alarm_in(3, mask=0)], ids=["none", "masked"])
@pytest.mark.parametrize("wait", [[WFI], call(CPU_SUSPEND)], ids=["WFI", "CPU_SUSPEND"])
def test_without_an_alarm_nobody_is_woken(bench: Bench, wait: list[Part], alarm: list[Part]) -> None:
    outcome, _ = bench.run(rtc_enabled(2), alarm, wait, exits(9), gic=2, max_insns=100_000)

    assert outcome.code == ExitCode.DEADLOCK


def test_an_alarm_that_the_controller_does_not_let_through_wakes_nobody(bench: Bench) -> None:
    outcome, machine = bench.run(alarm_in(3), WFI, exits(9), gic=2, max_insns=100_000)

    assert outcome.code == ExitCode.DEADLOCK
    assert machine.clock.now_ns >= 3 * SECOND


def test_without_an_interrupt_controller_the_clock_runs_and_its_alarm_is_connected_to_nothing(bench: Bench) -> None:
    outcome, machine = bench.run(alarm_in(3), peek(19, RTC.base + DR), WFI, exits(9), max_insns=100_000)

    assert outcome.code == ExitCode.DEADLOCK
    assert kept(machine)[0] == START


def test_the_clock_begins_at_the_wall_clock_of_the_host_where_there_is_one(bench: Bench) -> None:
    setup = bench.setup(peek(19, RTC.base + DR), exits(0))
    config = dataclasses.replace(setup.config, wall_clock_ns=5 * SECOND + 1)
    machine = Machine(dataclasses.replace(setup, config=config, max_insns=1000))

    assert machine.run().code == 0
    assert kept(machine)[0] == 5


def test_an_alarm_is_kept_in_a_snapshot(bench: Bench, tmp_path: Path) -> None:
    machine = bench.machine(rtc_enabled(2), alarm_in(3), WFI, TELLS, exits(0), gic=2, max_insns=100_000)
    machine.step(200)
    taken, path = take(machine), tmp_path / "machine.snapshot"
    assert taken.state.rtc.alarm_ns == 3 * SECOND
    assert taken.setup.boot is not None
    path.write_bytes(b"".join(parts(taken.setup, taken.setup.boot, taken.state)))

    again = read(path)
    assert again.state == taken.state
    later = Machine(again.setup)
    adopt(later, again.state)

    assert later.run().code == machine.run().code == 0
    assert later.clock.now_ns == machine.clock.now_ns
    assert_woken_after(later, 3)


@pytest.mark.parametrize("gic", [2, 3])
@pytest.mark.parametrize(("power_state", "code"), [(0, 1), (POWERDOWN, 2)])
def test_an_sgi_ends_cpu_suspend(bench: Bench, gic: Literal[2, 3], power_state: int, code: int) -> None:
    if gic == 2:
        prepares: list[Part] = [poke(GICC.base + 4, 0xFF), poke(GICC.base, 1)]
        sends: list[Part] = poke(GICD.base + 0xF00, 1 << 17 | 5)
    else:
        # The interface is off and the redistributor asleep, as Linux leaves them.
        private = GICR.base + 0x3_0000
        prepares = [poke(private + 0x80, 1 << 5), poke(private + 0x100, 1 << 5), mov(9, 0xFF), ICC["PMR"] | 9]
        prepares = [poke(GICR.base + 0x2_0014, 0), *prepares, poke(GICR.base + 0x2_0014, 2)]
        sends = [mov(9, 5 << 24 | 1 << 1), ICC["SGI1R"] | 9]
    program: list[Part] = [
        rtc_enabled(gic),
        call_at(CPU_ON, 1, "second"),
        Label("look"),
        peek(11, FLAG),
        cbz(11, "look"),
        sends,
        Label("wait"),
        WFI,
        b("wait"),
        Label("second"),
        prepares,
        poke(FLAG, 1),
        call_at(CPU_SUSPEND, power_state, "entry", 7),
        exits(1),
        Label("entry"),
        exits(2),
    ]

    outcome, _ = bench.run(*program, choices=Choices(mpidrs=(0, 1)), gic=gic, max_insns=200_000)

    assert outcome.code == code
