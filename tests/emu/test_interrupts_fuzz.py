"""Random accesses of every width to the controller's frames and registers, with interrupts unmasked: a run ends, whatever they do."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Final

import pytest

from emu.memory import GICC, GICD, GICR
from emu.outcome import ExitCode
from emu.setup import Choices
from tests.emu.gicprograms import IRQ_CLEAR, acknowledges, ends, gic_on
from tests.emu.programs import CPU_ON, ERET, WFI, Bench, Label, Part, b, call_at, exits, mov, skips, vector, vectors_here
from tests.emu.test_interrupts import CURRENT_SPX, VERSIONS

SETS: Final = range(12)
ACCESSES: Final = {
    "strb": 0x3900_0120,
    "strh": 0x7900_0120,
    "str w": 0xB900_0120,
    "str x": 0xF900_0120,
    "ldrb": 0x3940_0120,
    "ldrh": 0x7940_0120,
    "ldr w": 0xB940_0120,
    "ldr x": 0xF940_0120,
    "stp": 0xA900_2D2A,
    "ldp": 0xA940_2D2A,
    "str q": 0x3D80_0120,
    "ldr q": 0x3DC0_0120,
    "ldaxr": 0xC85F_FD2A,
    "stxr": 0xC80C_7D2A,
}  # of x0 or q0, or of x10 and x11, at [x9]
SYSTEM: Final = 0xD518_0000  # MSR, op0 3, op1 0; with bit 21 MRS


def accesses(random: Random, gic: int) -> list[Part]:
    region = random.choice([GICD, GICC if gic == 2 else GICR])
    size = min(region.size_bytes, 0x6_0000)  # three redistributors
    offset = random.choice(
        [random.randrange(size), random.randrange(0x1000), random.randrange(0, 0x1000, 4), size - random.randrange(1, 17)]
    )
    values = [mov(number, random.choice([0, (1 << 64) - 1, random.getrandbits(64)])) for number in (0, 10, 11)]
    parts: list[Part] = [values, mov(9, region.base + offset), random.choice(list(ACCESSES.values()))]
    if gic == 3 and random.random() < 0.4:
        crn, crm = random.choice([4, 12]), random.choice([6, 8, 9, 11, 12])
        parts.append(SYSTEM | random.randrange(2) << 21 | crn << 12 | crm << 8 | random.randrange(8) << 5 | 10)
    return parts


@VERSIONS
@pytest.mark.parametrize("seed", SETS)
def test_a_run_ends_whatever_is_read_and_written(tmp_path: Path, gic: int, seed: int) -> None:
    random = Random(seed)
    program: list[Part] = [
        [vectors_here(), mov(9, 3 << 20), 0xD518_1049, gic_on(gic), call_at(CPU_ON, 1, "second"), IRQ_CLEAR],  # CPACR_EL1: FP
        [accesses(random, gic) for _ in range(60)],
        [exits(1), Label("second"), vectors_here(), IRQ_CLEAR, WFI, b("second")],
        [vector(0x200), skips(), vector(CURRENT_SPX), acknowledges(gic, 24), ends(gic, 24), ERET],
    ]

    outcome, machine = Bench(tmp_path).run(*program, gic=gic, choices=Choices(mpidrs=(0, 1, 2)), max_insns=200_000, seed=seed)

    assert outcome.code in (1, ExitCode.LIMIT, ExitCode.NO_PROGRESS)
    assert machine.interrupts.controller is not None
    assert machine.interrupts.controller.copy() == machine.interrupts.controller
