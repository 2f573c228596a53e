"""Random programs that come near all that a checkpoint leaves alone where it was not touched: put back, each runs as it did at first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final, Literal

import pytest

from emu.checkpoint import Checkpoint
from emu.devices.pl011 import DR, IMSC, INT_RX
from emu.devices.pl031 import IMSC as RTC_IMSC
from emu.devices.pl031 import MR, RIS
from emu.machine import Machine
from emu.memory import RTC, UART, MiB
from emu.setup import Choices
from emu.state import capture
from tests.emu.gicprograms import IRQ_CLEAR, IRQ_SET, acknowledges, ends, gic_on, interface_on, sends, timer_after, timer_off
from tests.emu.programs import (
    AFFINITY_INFO,
    CPU_OFF,
    CPU_ON,
    CPU_SUSPEND,
    ERET,
    PSCI_VERSION,
    SCRATCH,
    SYSTEM_RESET,
    WFI,
    Bench,
    Label,
    Part,
    b,
    call,
    call_at,
    ldr32,
    mov,
    off,
    prints,
    skips,
    store,
    store32,
    vector,
    vectors_here,
)
from tests.emu.test_exceptions import mmu_on
from tests.emu.test_interrupts import CURRENT_SPX
from tests.emu.test_interrupts_fuzz import accesses
from tests.emu.test_snapshot import Everything

SETS: Final = range(10)
TRNG_RND: Final = 0xC400_0053
MRS_RNDR: Final = 0xD53B_2409  # mrs x9, rndr
START: Final = 1_516_492_800
Gic = Literal[2, 3]


def poke(address: int, value: int) -> list[Part]:
    return [mov(9, address), mov(10, value), store32(10, 9)]


def peek(address: int) -> list[Part]:
    return [mov(9, address), ldr32(24, 9)]


def pieces(gic: Gic | None) -> list[Callable[[Random], list[Part]]]:
    controllers: list[Callable[[Random], list[Part]]] = []
    if gic is not None:
        controllers = [lambda random: accesses(random, gic), lambda _: sends(gic, 0b11), lambda _: [acknowledges(gic, 24), ends(gic, 24)]]
    return [
        *controllers,
        lambda random: call(random.choice([PSCI_VERSION, TRNG_RND, CPU_OFF + 0x100]), random.randrange(100)),
        lambda random: call(AFFINITY_INFO, random.randrange(3)),
        lambda random: call_at(CPU_ON, random.randrange(1, 3), "second"),
        lambda random: [timer_after(random.randrange(1, 2000)), call(CPU_SUSPEND, 0)],
        lambda random: timer_after(random.randrange(2000)) if random.random() < 0.7 else timer_off(),
        lambda random: [random.choice([IRQ_CLEAR, IRQ_SET])],
        lambda _: prints("hello\n"),
        lambda _: [poke(UART.base + IMSC, INT_RX), peek(UART.base + DR)],
        lambda random: [
            poke(RTC.base + RTC_IMSC, random.randrange(2)),
            poke(RTC.base + MR, START + random.randrange(2)),
            peek(RTC.base + RIS),
        ],
        lambda random: [mov(9, SCRATCH + random.randrange(64) * 0x1000), store(9, 9)],
        lambda _: [MRS_RNDR],
        lambda random: mmu_on(0, 0x4000_0000) if random.random() < 0.2 else [],
        lambda random: call(SYSTEM_RESET) if random.random() < 0.1 else [],
    ]


def program(random: Random, gic: Gic | None) -> list[Part]:
    choices = pieces(gic)
    return [
        [vectors_here(), [] if gic is None else gic_on(gic)],
        [random.choice(choices)(random) for _ in range(40)],
        [off(), Label("second"), vectors_here(), [] if gic is None else interface_on(gic, 1), IRQ_CLEAR],
        [random.choice(choices[-8:-4])(random) for _ in range(8)],
        [WFI, b("second"), vector(0x200), skips()],
        [vector(CURRENT_SPX), *([] if gic is None else [acknowledges(gic, 24), ends(gic, 24)]), timer_off(), ERET],
    ]


def all_of(machine: Machine) -> tuple[object, ...]:
    controller = machine.interrupts.controller
    return (
        [register.get() for register in machine.engine.x],
        (machine.clock.now_ns, machine.clock.traps, machine.instructions),
        machine.firmware.state(),
        machine.console.uart.copy(),
        machine.board.rtc.copy(),
        None if controller is None else controller.copy(),
        machine.memory.content(),
    )


@pytest.mark.parametrize("gic", [None, 2, 3], ids=["no controller", "GICv2", "GICv3"])
@pytest.mark.parametrize("seed", SETS)
def test_a_run_repeats_whatever_it_touches(tmp_path: Path, gic: Gic | None, seed: int) -> None:
    random = Random(seed)
    setup = Bench(tmp_path).setup(
        *program(random, gic), gic=gic, choices=Choices(mpidrs=(0, 1, 2), ram_bytes=2 * MiB), cpu="max", seed=seed % 2, max_insns=60_000
    )
    machine = Machine(setup, typed=lambda limit: b"typed"[: min(limit, seed % 3)])
    seen: list[object] = []
    printed = bytearray()
    Everything(machine, seen, printed)
    for _ in range(random.randrange(1, 8)):
        if machine.step(random.randrange(1, 100)) is not None:
            pytest.skip("it ended before it was kept")
    before, kept = capture(machine), Checkpoint(machine)
    so_far = len(seen), len(printed)
    first = None

    for _ in range(4):
        this = machine.run(), list(seen), bytes(printed), all_of(machine)
        first = first or this
        assert this == first
        kept.restore()
        assert capture(machine) == before
        del seen[so_far[0] :], printed[so_far[1] :]
