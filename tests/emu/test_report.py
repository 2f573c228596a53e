"""The account of a crash, and the words of a log line."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from emu.report import Log, crash, disassemble
from emu.setup import Choices
from tests.emu.programs import (
    AFFINITY_INFO,
    CPU_OFF,
    CPU_ON,
    CPU_SUSPEND,
    NOP,
    NOWHERE,
    PSCI_FEATURES,
    PSCI_VERSION,
    SCRATCH,
    SYSTEM_OFF,
    SYSTEM_RESET,
    TEXT,
    UDF,
    VECTORS,
    WFI,
    Bench,
    Label,
    Part,
    br,
    call,
    cbnz,
    exits,
    hvc,
    ldr,
    mov,
    movz,
    set_system,
    smc,
    store,
    vector,
    vectors_here,
)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_crash_tells_registers_code_and_the_last_ten_calls(bench: Bench) -> None:
    asks = [call(PSCI_FEATURES, number) for number in range(12)]
    _, machine = bench.run(vectors_here(), asks, mov(20, 0x2020), UDF, vector(0x200), UDF)

    text = crash(machine)

    assert text.startswith(f"cpu0 at {VECTORS + 0x200:#x}, PSTATE 0x3c5, virtual time ")
    assert "X20 0000000000002020" in text
    assert f"VBAR_EL1 {VECTORS:016x}" in text
    assert [line for line in text.splitlines() if line.startswith("->")] == [f"-> {VECTORS + 0x200:#014x}  00000000  udf      #0"]
    assert text.count("PSCI_FEATURES(") == 10


@pytest.mark.parametrize("address", [NOWHERE, NOWHERE + 1, 0xFFFF_FFFF_FFFF_FFFC, 0x4800_0000, 0x4000_0000])
def test_a_crash_anywhere_can_be_told(bench: Bench, address: int) -> None:
    _, machine = bench.run(mov(1, address), br(1))

    text = crash(machine)

    assert "it made no call" in text
    assert "Traceback" not in text


def test_words_that_are_no_instruction_are_words(bench: Bench) -> None:
    machine = bench.machine(NOP, 0xFFFF_FFFF, WFI)

    assert [line.split()[1:3] for line in disassemble(machine, TEXT, 3)] == [
        ["d503201f", "nop"],
        ["ffffffff", ".word"],
        ["d503207f", "wfi"],
    ]
    assert disassemble(machine, NOWHERE, 3) == []
    assert len(disassemble(machine, 0x4000_0000 - 8, 4)) == 2


def log_of(bench: Bench, categories: set[str], *program: Part, choices: Choices | None = None) -> list[str]:
    stream = io.StringIO()
    machine = bench.machine(*program, choices=choices)
    Log(machine, frozenset(categories), stream)
    machine.run()
    return stream.getvalue().splitlines()


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (call(PSCI_VERSION), "PSCI_VERSION() = 0x10003 (1.3)"),
        (call(PSCI_FEATURES, CPU_ON), "PSCI_FEATURES(psci_func_id=CPU_ON) = 0x0"),
        (call(PSCI_FEATURES, 0x1234), "PSCI_FEATURES(psci_func_id=0x00001234 (unknown)) = NOT_SUPPORTED"),
        (call(AFFINITY_INFO, 0), "AFFINITY_INFO(target_affinity=0x0, lowest_affinity_level=0x0) = 0 (ON)"),
        (call(AFFINITY_INFO, 9), "AFFINITY_INFO(target_affinity=0x9, lowest_affinity_level=0x0) = INVALID_PARAMETERS"),
        (call(0x8400_0006), "MIGRATE_INFO_TYPE() = 2 (no migration needed)"),
        (call(CPU_ON, 0, TEXT), f"CPU_ON(target_cpu=0x0, entry_point_address={TEXT:#x}, context_id=0x0) = ALREADY_ON"),
        (call(SYSTEM_OFF), "SYSTEM_OFF() = system shutdown; cpu0 ON -> OFF"),
        (call(CPU_OFF), "CPU_OFF() = does not return; cpu0 ON -> OFF"),
        (call(CPU_SUSPEND), "entry_point_address=0x0, context_id=0x0) = SUCCESS, waits; cpu0 ON -> SUSPENDED"),
        (call(0x8200_0000), "0x82000000 (SiP) = NOT_SUPPORTED"),
        (call(0xBF00_0000), "0xbf000000 (unknown) = NOT_SUPPORTED"),
        (call(PSCI_VERSION, conduit=smc()), "PSCI_VERSION() = UNDEFINED: conduit not served"),
        (call(0x8000_0001, 0x8000_7FFF), "SMCCC_ARCH_FEATURES(arch_func_id=SMCCC_ARCH_WORKAROUND_2) = NOT_REQUIRED"),
    ],
)
def test_a_call_is_told_in_the_standards_words(bench: Bench, parts: list[Part], words: str) -> None:
    assert log_of(bench, {"psci"}, parts, exits(0))[0].endswith(f" {words}")


def test_an_immediate_is_told(bench: Bench) -> None:
    assert " hvc#0x7 " in log_of(bench, {"psci"}, call(PSCI_VERSION, conduit=hvc(7)), exits(0))[0]


def test_every_reply_can_be_told(bench: Bench) -> None:
    owners = (0x8000_0000, 0x8400_0000, 0x8600_0000, 0xC400_0000, 0xC500_0000, 0xC600_0000)
    ids = [owner | number for owner in owners for number in (*range(16, 128), 0xFF01) if owner | number not in (0x8400_0015, 0xC400_0015)]
    ids = [fid for fid in ids if fid & 0x3FFF_FFFF != 0x0400_0012]
    calls: list[Part] = [[movz(1, 64), movz(2, 0), movz(3, 0), mov(0, fid), hvc()] for fid in ids]
    for host in ("spec", "kvm-6.12", "qemu-7"):
        assert len(log_of(bench, {"psci"}, calls, exits(0), choices=Choices(host=host))) == len(ids)


def test_a_reset_is_told(bench: Bench) -> None:
    lines = log_of(bench, {"psci"}, mov(9, SCRATCH), ldr(10, 9), store(9, 9), cbnz(10, "end"), call(SYSTEM_RESET), Label("end"), exits(0))

    assert [line.split("] ")[1] for line in lines[1:]] == ["cpu0 system reset"]


def test_a_wake_up_is_told(bench: Bench) -> None:
    sets = [set_system("CNTV_TVAL_EL0", 5000), set_system("CNTV_CTL_EL0", 1)]

    lines = log_of(bench, {"psci"}, sets, call(CPU_SUSPEND), exits(0))

    assert lines[1].endswith("cpu0 wakes up; cpu0 SUSPENDED -> ON")
