"""Hostile guests: whatever instructions there are, a run ends with an outcome, and the same way twice."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emu.engine import CPU_MODELS
from emu.machine import Machine
from emu.memory import PVTIME, RAM_BASE, UART
from emu.outcome import ExitCode, Outcome
from emu.report import Log, crash
from emu.setup import Choices
from tests.emu.programs import (
    B_SELF,
    DAIF_CLEAR_ALL,
    ERET,
    HLT_SEMIHOSTING,
    ISB,
    NOWHERE,
    SCRATCH,
    SPSEL_0,
    TEXT,
    UDF,
    VECTORS,
    WFE,
    WFI,
    Bench,
    Part,
    add,
    brk,
    call,
    exits,
    hvc,
    ldr,
    ldr32,
    mov,
    movz,
    mrs,
    msr,
    smc,
    store,
    store8,
    store32,
    svc,
    vector,
    vectors_here,
)

WORDS: Final = 64
SEEDS: Final = 150
# Every way a guest may end; neither our own mistakes nor the user's.
ENDS: Final = frozenset({*range(100), ExitCode.RESET, ExitCode.CRASH, ExitCode.DEADLOCK, ExitCode.NO_PROGRESS, ExitCode.LIMIT})
ADDRESSES: Final = (
    TEXT,
    VECTORS,
    SCRATCH,
    UART.base,
    UART.end - 4,
    PVTIME.base,
    0x0800_0000,
    0,
    NOWHERE,
    RAM_BASE,
    (1 << 64) - 1,
    1 << 63,
    1,
)
SYSTEM: Final = 0xD500_0000


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


# Half-precision vector arithmetic: unallocated encodings of it, met by -cpu max, abort the process inside the engine.
HALF_PRECISION: Final = ((0x9F60_C400, 0x0E40_0400), (0x8F7E_0C00, 0x0E78_0800))


def aborts(word: int) -> bool:
    return any(word & mask == value for mask, value in HALF_PRECISION)


def instruction(draw: random.Random) -> int:
    """Draw an instruction: noise, a system instruction, a constant, or one that matters here."""
    kind = draw.random()
    if kind < 0.35:
        return next(word for word in iter(lambda: draw.getrandbits(32), None) if not aborts(word))
    if kind < 0.55:
        return SYSTEM | draw.getrandbits(22)
    if kind < 0.7:
        return movz(draw.randrange(8), draw.choice([0, 1, 0x900, 0x4008, 0x8400, 0xC400, draw.getrandbits(16)]), 16 * draw.randrange(4))
    if kind < 0.85:
        return draw.choice([ldr, store, ldr32, store32, store8])(draw.randrange(32), draw.randrange(31))
    return draw.choice([hvc(), smc(), svc(), brk(), WFI, WFE, ERET, HLT_SEMIHOSTING, ISB, UDF, B_SELF, hvc(7), DAIF_CLEAR_ALL, SPSEL_0])


def program(draw: random.Random) -> list[Part]:
    """Write registers, then chance; exceptions are skipped, so that a run gets far."""
    parts: list[Part] = [vectors_here()]
    for register in range(31):
        parts.append(mov(register, draw.choice([draw.choice(ADDRESSES), 0x8400_0000 | draw.randrange(32), draw.getrandbits(64)])))
    parts += [instruction(draw) for _ in range(WORDS)]
    parts.append(B_SELF)
    for offset in range(0, 0x800, 0x80):
        parts += [vector(offset), msr("TPIDR_EL1", 9), mrs(9, "ELR_EL1"), add(9, 9, 4), msr("ELR_EL1", 9), mrs(9, "TPIDR_EL1"), ERET]
    return parts


def end_of(bench: Bench, seed: int) -> tuple[Outcome, bytes, list[int], int]:
    draw = random.Random(seed)
    output = bytearray()
    choices = Choices(
        host=draw.choice(["spec", "kvm-6.12", "qemu-7"]),
        conduit=draw.choice(["hvc", "smc", "both", "none"]),
        mpidrs=tuple(range(draw.choice([1, 2, 8]))),
        cap=("system-suspend",),
    )
    machine = bench.machine(
        program(draw), choices=choices, output=output, max_insns=20_000, cpu=draw.choice(list(CPU_MODELS)), seed=seed % 3
    )
    outcome = machine.run()
    return outcome, bytes(output), [register.get() for register in machine.engine.x], machine.clock.now_ns


@pytest.mark.parametrize("part", range(5))
def test_random_programs_end_with_an_outcome_and_the_same_way_twice(bench: Bench, part: int) -> None:
    for seed in range(part * SEEDS // 5, (part + 1) * SEEDS // 5):
        first = end_of(bench, seed)

        assert first[0].code in ENDS, seed
        assert first == end_of(bench, seed), seed


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.integers(0, 0xFFFF_FFFF), min_size=1, max_size=WORDS))
def test_any_words_end_with_an_outcome(bench: Bench, words: list[int]) -> None:
    assert bench.run(*words, max_insns=20_000)[0].code in ENDS


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    x=st.tuples(*[st.integers(0, (1 << 64) - 1)] * 3),
    fid=st.sampled_from([*range(0x8400_0000, 0x8400_0018), *range(0xC400_0000, 0xC400_0018)]),
)
def test_any_arguments_end_with_an_outcome(bench: Bench, fid: int, x: tuple[int, int, int]) -> None:
    for host in ("spec", "kvm-6.12", "qemu-7"):
        outcome, _ = bench.run(
            call(fid, *x), exits(0), choices=Choices(host=host, mpidrs=(0, 1), cap=("system-suspend",)), max_insns=50_000
        )

        assert outcome.code in ENDS


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(x0=st.integers(0, 0x40), x1=st.sampled_from([*ADDRESSES, TEXT + 8, SCRATCH - 8, 0x47FF_FFFC, 0x47FF_FFF0]))
def test_any_semihosting_call_ends_with_an_outcome(bench: Bench, x0: int, x1: int) -> None:
    assert bench.run(mov(0, x0), mov(1, x1), HLT_SEMIHOSTING, exits(0), max_insns=50_000)[0].code in ENDS


@pytest.mark.parametrize("seed", range(20))
def test_looking_on_with_everything_survives_random_programs_too(bench: Bench, seed: int) -> None:
    draw = random.Random(seed)
    machine: Machine = bench.machine(program(draw), choices=Choices(mpidrs=(0, 1)), max_insns=20_000)
    with Path("/dev/null").open("w", encoding="utf-8") as nowhere:
        Log(machine, frozenset({"psci", "int", "in_asm", "engine"}), nowhere)

        outcome = machine.run()

    assert outcome.code in ENDS
    assert crash(machine).startswith("cpu")


@pytest.mark.parametrize("word", [0x4ED6_2CD9, 0x5EF8_B8BD], ids=hex)
def test_an_unallocated_half_precision_instruction_does_not_take_the_emulator_with_it(bench: Bench, word: int) -> None:
    path = bench.file(word, exits(0))

    ended = subprocess.run(
        [sys.executable, "-m", "emu", "run", "-kernel", str(path), "-cpu", "max"], capture_output=True, timeout=60, check=False
    )

    assert ended.returncode == ExitCode.CRASH
