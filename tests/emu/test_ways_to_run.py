"""Random guests that interrupt themselves and one another: however their machine is run, it goes the same way."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import pytest

from emu import snapshot
from emu.devices.gicv3 import FRAME_BYTES
from emu.machine import Machine
from emu.memory import GICC, GICD, GICR, UART, MiB
from emu.outcome import ExitCode, Outcome
from emu.setup import Choices, Setup
from emu.state import MachineState, adopt, capture
from tests.emu.gicprograms import (
    IRQ_CLEAR,
    IRQ_SET,
    acknowledges,
    distributor_on,
    ends,
    interface_on,
    sends,
    timer_after,
    timer_off,
)
from tests.emu.programs import (
    AFFINITY_INFO,
    CPU_OFF,
    CPU_ON,
    CPU_SUSPEND,
    ERET,
    SCRATCH,
    WFE,
    WFI,
    YIELD,
    Bench,
    Label,
    Part,
    add,
    b,
    b_ne,
    call,
    call_at,
    cbnz,
    copy,
    ldr32,
    mov,
    mrs,
    off,
    set_system,
    store,
    store8,
    store32,
    sub,
    subs,
    svc,
    vector,
    vectors_here,
)

ACTIONS: Final = 24
ROUNDS: Final = 6
SEEDS: Final = 24
STOPS: Final = 0.1
MAX_INSNS: Final = 200_000
ENDS: Final = frozenset({ExitCode.OK, ExitCode.CRASH, ExitCode.DEADLOCK, ExitCode.NO_PROGRESS, ExitCode.LIMIT})
STANDBY: Final = 0
UART_IMSC, UART_ICR = 0x38, 0x44

Version = Literal[2, 3]
Seen = tuple[Outcome, bytes, MachineState]


def handler(gic: Version, draw: random.Random) -> list[Part]:
    """Count in x25, quieten the UART, put the timer off, end the interrupt and return; x9 and x10 are kept."""
    timer = draw.choice((timer_after(draw.choice((50, 700, 5_000))), timer_off()))
    quiet: list[Part] = [mov(9, UART.base), mov(10, 0x7FF), store32(10, 9, UART_ICR)]
    return [copy(26, 9), copy(27, 10), acknowledges(gic, 28), add(25, 25, 1), quiet, timer, ends(gic, 28), copy(10, 27), copy(9, 26), ERET]


def frames(gic: Version) -> list[int]:
    """Return where a controller's registers are."""
    own = [GICC.base] if gic == 2 else [GICR.base + vcpu * FRAME_BYTES + half for vcpu in (0, 1) for half in (0, 0x1_0000)]
    return [GICD.base, *own]


def delay(draw: random.Random, name: str) -> list[Part]:
    return [mov(9, draw.randrange(1, 6_000)), Label(name), subs(9, 9, 1), b_ne(name)]


def action(gic: Version, draw: random.Random, name: str) -> list[Part]:
    """Draw something to do; `name` is for its labels."""
    random_register = draw.choice(frames(gic)) + draw.choice((0x0, 0x4, 0x8, 0x80, 0x100, 0x180, 0x200, 0x280, 0x300, 0x380, 0x400, 0x418))
    choices: tuple[Callable[[], list[Part]], ...] = (
        lambda: sends(gic, draw.randrange(4), draw.randrange(16)),
        lambda: timer_after(draw.choice((0, 3, 60, 700, 4_000, 40_000))),
        lambda: [WFI],
        lambda: [timer_after(draw.choice((0, 60, 4_000))), WFI],
        lambda: [timer_after(draw.choice((0, 60, 4_000))), call(CPU_SUSPEND, STANDBY)],
        lambda: [draw.choice((WFE, YIELD))],
        lambda: [IRQ_CLEAR],
        lambda: [IRQ_SET],
        lambda: [IRQ_SET, timer_after(500), WFI, IRQ_CLEAR],
        lambda: delay(draw, name),
        lambda: [mov(9, SCRATCH), mrs(10, "CNTVCT_EL0"), store(10, 9, 8 * draw.randrange(8))],
        lambda: [mov(9, UART.base), mov(10, draw.choice((0, 0x20, 0x30))), store32(10, 9, UART_IMSC), mov(10, 0x41), store8(10, 9)],
        lambda: call(AFFINITY_INFO, 1),
        lambda: call_at(CPU_ON, 1, "second"),
        lambda: [svc(draw.randrange(4))],
        lambda: set_system("CNTP_TVAL_EL0", draw.randrange(5_000)) + set_system("CNTP_CTL_EL0", draw.randrange(4)),
        lambda: [mov(9, random_register), ldr32(10, 9)],
        lambda: [mov(9, random_register), mov(10, draw.getrandbits(32)), store32(10, 9)] if draw.random() < 0.3 else [],
    )
    return draw.choice(choices)()


def rounds(gic: Version, draw: random.Random, name: str) -> list[Part]:
    actions = [action(gic, draw, f"{name}{number}") for number in range(ACTIONS)]
    return [mov(24, ROUNDS), Label(name), actions, sub(24, 24, 1), cbnz(24, name)]


def program(gic: Version, draw: random.Random) -> list[Part]:
    boot: list[Part] = [
        vectors_here(),
        distributor_on(gic),
        interface_on(gic),
        call_at(CPU_ON, 1, "second"),
        rounds(gic, draw, "boot"),
        off(),
    ]
    second: list[Part] = [
        Label("second"),
        vectors_here(),
        interface_on(gic, 1),
        rounds(gic, draw, "other"),
        call(CPU_OFF),
        Label("end"),
        b("end"),
    ]
    vectors: list[Part] = [[vector(offset), b("irq") if offset % 0x200 == 0x80 else ERET] for offset in range(0, 0x800, 0x80)]
    return [boot, second, Label("irq"), handler(gic, draw), vectors]


def setup_of(bench: Bench, seed: int) -> Setup:
    draw = random.Random(seed)
    gic: Version = draw.choice((2, 3))
    choices = Choices(host=draw.choice(("spec", "kvm-6.12", "qemu-7")), mpidrs=(0, 1), ram_bytes=16 * MiB)
    return bench.setup(program(gic, draw), choices=choices, gic=gic, max_insns=MAX_INSNS, seed=draw.choice((0, 0, seed)))


def started(setup: Setup) -> tuple[Machine, bytearray]:
    console = bytearray()
    return Machine(setup, output=console.extend), console


def seen(machine: Machine, outcome: Outcome, console: bytearray) -> Seen:
    machine.open_again()
    return outcome, bytes(console), capture(machine)


def by_itself(setup: Setup) -> Seen:
    machine, console = started(setup)
    return seen(machine, machine.run(), console)


def turn_by_turn(setup: Setup) -> Seen:
    machine, console = started(setup)
    outcome = None
    while outcome is None:
        outcome = machine.step(None)
    return seen(machine, outcome, console)


def with_stops(setup: Setup, folder: Path, draw: random.Random) -> Seen:
    """Run turn by turn, and after some of them go on as another machine, from a file."""
    machine, console = started(setup)
    path = folder / "machine.snapshot"
    outcome = None
    while outcome is None:
        outcome = machine.step(None)
        if outcome is None and draw.random() < STOPS:
            snapshot.take(machine).save(path)
            kept = snapshot.read(path)
            machine = Machine(dataclasses.replace(kept.setup, max_insns=MAX_INSNS), output=console.extend)
            adopt(machine, kept.state)
    return seen(machine, outcome, console)


@pytest.mark.parametrize("part", range(4))
def test_however_a_machine_is_run_it_goes_the_same_way(tmp_path: Path, part: int) -> None:
    bench = Bench(tmp_path)
    for seed in range(part * SEEDS // 4, (part + 1) * SEEDS // 4):
        setup = setup_of(bench, seed)
        expected = by_itself(setup)

        assert expected[0].code in ENDS, seed
        assert by_itself(setup) == turn_by_turn(setup) == expected, seed
        assert with_stops(setup, tmp_path, random.Random(seed)) == expected, seed
