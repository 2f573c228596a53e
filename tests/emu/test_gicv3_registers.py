"""The system registers and frames of a GICv3, as a guest's instructions reach them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from emu.devices.gic_bank import IGROUPR, IPRIORITYR, ISENABLER
from emu.devices.gicv3 import FRAME_BYTES, GICD_IROUTER, GICR_TYPER, GICR_WAKER
from emu.memory import GICD, GICR
from emu.setup import Choices
from firmware.abi import ENTRY_PSTATE
from tests.emu.programs import (
    CPU_ON,
    DAIF_CLEAR_ALL,
    UDF,
    WFI,
    XZR,
    Bench,
    Label,
    Part,
    b,
    call_at,
    copy,
    exits,
    exits_with,
    keeps_exception,
    kept,
    ldr,
    ldr32,
    mov,
    mrs,
    msr,
    set_system,
    store,
    store8,
    store32,
    to_el,
    vector,
    vectors_here,
)

MODELS: Final = ("cortex-a53", "cortex-a57", "cortex-a72", "max")
SGI_FRAME: Final = GICR.base + 0x1_0000
IRQ_FROM_EL1: Final = 0x280
TWO: Final = Choices(mpidrs=(0, 1))
SEVENTEEN: Final = Choices(mpidrs=tuple((vcpu >> 4) << 8 | vcpu & 15 for vcpu in range(17)))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def run(bench: Bench, *parts: Part, **changes: Any) -> tuple[int, ...]:
    """Run on a machine with a GICv3 and return x19 to x28."""
    outcome, machine = bench.run(*parts, **{"gic": 3, **changes})
    assert outcome.code in (0, 7), outcome
    return kept(machine)


def sets_up(frame: int = SGI_FRAME) -> list[Part]:
    """Enable group 1 SGIs and PPIs of the vCPU whose frame that is, and its CPU interface; spends x9, x10."""
    return [
        *(mov(9, GICD.base), mov(10, 2), store32(10, 9)),
        *(mov(9, frame + IGROUPR), mov(10, 0xFFFF_FFFF), store32(10, 9)),
        *(mov(9, frame + ISENABLER), store32(10, 9)),
        *(set_system("ICC_PMR_EL1", 0xF0), set_system("ICC_IGRPEN1_EL1", 1)),
    ]


@pytest.mark.parametrize("cpu", MODELS)
def test_el1_reads_and_writes_the_registers_and_identification_tells_of_them(bench: Bench, cpu: str) -> None:
    program: list[Part] = [
        mrs(19, "ICC_SRE_EL1"),
        mrs(20, "ICC_CTLR_EL1"),
        set_system("ICC_PMR_EL1", 0xA7),
        mrs(21, "ICC_PMR_EL1"),
        mrs(22, "ICC_IAR1_EL1"),
        mrs(23, "ID_AA64PFR0_EL1"),
        exits(0),
    ]

    values = run(bench, *program, cpu=cpu)

    assert values[:4] == (7, 0x8C00, 0xA0, 1023)
    assert values[4] >> 24 & 0xF == 1


def test_register_31_reads_as_zero_and_takes_nothing(bench: Bench) -> None:
    program: list[Part] = [
        mov(9, 0xF0),
        msr("ICC_PMR_EL1", 9),
        mrs(19, "ICC_PMR_EL1"),
        msr("ICC_PMR_EL1", XZR),
        mrs(20, "ICC_PMR_EL1"),
        mrs(XZR, "ICC_SRE_EL1"),
        copy(21, XZR),
        exits(0),
    ]

    assert run(bench, *program)[:3] == (0xF0, 0, 0)


@pytest.mark.parametrize(
    ("word", "changes"),
    [
        (mrs(9, "ICC_EOIR1_EL1"), {}),
        (msr("ICC_IAR1_EL1", 9), {}),
        (mrs(9, "ICC_AP1R1_EL1"), {}),
        (mrs(9, "ICC_SRE_EL2"), {}),
        (UDF, {}),
        (mrs(9, "ICC_PMR_EL1"), {"gic": 2}),
        (msr("ICC_PMR_EL1", 9), {"gic": 2}),
        (mrs(9, "ICC_PMR_EL1"), {"gic": None}),
    ],
)
def test_what_is_no_register_of_the_machine_is_undefined(bench: Bench, word: int, changes: dict[str, Any]) -> None:
    values = run(bench, vectors_here(), word, vector(0x200), keeps_exception(), **changes)

    assert values[0] == 0x0200_0000


@pytest.mark.parametrize("word", [mrs(19, "ICC_IAR1_EL1"), msr("ICC_PMR_EL1", 9)])
def test_the_registers_are_undefined_at_el0(bench: Bench, word: int) -> None:
    values = run(bench, vectors_here(), to_el(0, "el0"), Label("el0"), word, vector(0x400), keeps_exception())

    assert values[0] == 0x0200_0000


@pytest.mark.parametrize("gic", [2, None])
def test_without_system_registers_identification_says_so(bench: Bench, gic: int | None) -> None:
    values = run(bench, mrs(19, "ID_AA64PFR0_EL1"), exits(0), gic=gic)

    assert values[0] >> 24 & 0xF == 0


def test_frames_are_accessed_in_bytes_words_and_double_words(bench: Bench) -> None:
    last = 16 * FRAME_BYTES
    program: list[Part] = [
        *(
            mov(9, GICR.base + last),
            ldr(19, 9, GICR_TYPER),
            ldr32(20, 9, GICR_WAKER),
            store32(XZR, 9, GICR_WAKER),
            ldr32(21, 9, GICR_WAKER),
        ),
        *(mov(9, GICD.base + GICD_IROUTER + 8 * 40), mov(10, 0x1_0000_0100), store(10, 9), ldr(22, 9)),
        *(mov(9, SGI_FRAME + last + IPRIORITYR), mov(10, 0xA8), store8(10, 9, 1), ldr32(23, 9)),
        *(mov(9, GICD.base), ldr32(24, 9, 4)),
        *(mov(9, GICR.base + 17 * FRAME_BYTES), ldr(25, 9, GICR_TYPER)),
        exits(0),
    ]

    values = run(bench, *program, choices=SEVENTEEN)

    assert values[:7] == (0x100_0000_1010, 6, 0, 0x1_0000_0100, 0xA800, 0x0378_0008, 0)


def test_an_sgi_to_oneself_is_taken_acknowledged_and_ended(bench: Bench) -> None:
    program: list[Part] = [
        vectors_here(),
        sets_up(),
        mov(9, 5 << 24 | 1),
        msr("ICC_SGI1R_EL1", 9),
        DAIF_CLEAR_ALL,
        exits(1),
        vector(IRQ_FROM_EL1),
        mrs(19, "ICC_IAR1_EL1"),
        mrs(20, "SPSR_EL1"),
        msr("ICC_EOIR1_EL1", 19),
        mrs(21, "ICC_IAR1_EL1"),
        exits(0),
    ]

    assert run(bench, *program)[:3] == (5, ENTRY_PSTATE & ~0x3C0, 1023)


def test_an_sgi_wakes_another_vcpu_that_waits(bench: Bench) -> None:
    program: list[Part] = [
        sets_up(),
        call_at(CPU_ON, 1, "second"),
        Label("first"),
        mov(9, 5 << 24 | 0b10),
        msr("ICC_SGI1R_EL1", 9),  # dropped until the target has put it into group 1
        b("first"),
        Label("second"),
        vectors_here(),
        sets_up(SGI_FRAME + FRAME_BYTES),
        DAIF_CLEAR_ALL,
        WFI,
        exits(1),
        vector(IRQ_FROM_EL1),
        mrs(19, "ICC_IAR1_EL1"),
        exits_with(19),
    ]

    outcome, _ = bench.run(*program, gic=3, choices=TWO)

    assert outcome.code == 5
