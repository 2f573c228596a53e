"""Exceptions the guest takes to its own EL1 vectors, and what becomes of a guest that has none."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from emu.memory import UART
from emu.outcome import ExitCode
from emu.setup import Choices
from tests.emu.programs import (
    B_SELF,
    CPU_ON,
    ERET,
    ISB,
    NOP,
    NOWHERE,
    SCRATCH,
    SPSEL_0,
    STACK,
    TEXT,
    UDF,
    VECTORS,
    WFI,
    At,
    Bench,
    Label,
    Part,
    b,
    br,
    brk,
    call_at,
    cbz,
    copy,
    exits,
    flat,
    get_sp,
    hlt,
    keeps_exception,
    kept,
    ldr,
    mov,
    mrs,
    msr,
    set_sp,
    set_system,
    store,
    svc,
    tbnz,
    to_el,
    vector,
    vectors_here,
    word_at,
)

ENTRY: Final = 0x3C5  # EL1h, everything masked
EL1T: Final = 0x3C4
EL0: Final = 0x3C0


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


SOURCES: Final = [(ENTRY, 0x200), (EL1T, 0x000), (EL0, 0x400)]
TAKEN: Final = [
    ("UDF", UDF, 0x200_0000, 0),
    ("HLT", hlt(1), 0x200_0000, 0),
    ("SVC", svc(0x1234), 0x5600_1234, 4),
    ("BRK", brk(0x4321), 0xF200_4321, 0),
    ("a register of EL2", 0xD53C_1100, 0x200_0000, 0),  # mrs x0, hcr_el2
    ("an unknown register", 0xD53F_FFE0, 0x200_0000, 0),
]


@pytest.mark.parametrize(("pstate", "offset"), SOURCES, ids=["SP_ELx", "SP_EL0", "EL0"])
@pytest.mark.parametrize("row", TAKEN, ids=[row[0] for row in TAKEN])
def test_an_exception_goes_to_the_vector_for_where_it_came_from(
    bench: Bench, pstate: int, offset: int, row: tuple[str, int, int, int]
) -> None:
    _, instruction, esr, return_offset = row
    program: list[Part] = [vectors_here(), to_el(pstate, "here"), At(0x1000), Label("here"), instruction, UDF]
    program += [vector(offset), keeps_exception()]

    outcome, machine = bench.run(*program)

    assert outcome.code == 7
    assert kept(machine)[:3] == (esr, TEXT + 0x1000 + return_offset, pstate)
    assert machine.engine.pstate.get() == ENTRY


def test_the_stack_pointers_are_banked_on_the_way_in_and_out(bench: Bench) -> None:
    program: list[Part] = [
        vectors_here(),
        mov(9, STACK),
        set_sp(9),
        set_system("SP_EL0", STACK + 0x1000),
        to_el(EL0, "el0"),
        Label("el0"),
        get_sp(24),
        mov(9, STACK + 0x2000),
        set_sp(9),
        svc(),
        get_sp(26),
        svc(1),
        vector(0x400),
        get_sp(25),
        mrs(27, "SP_EL0"),
        mrs(10, "ESR_EL1"),
        tbnz(10, 0, "end"),
        ERET,
        Label("end"),
        exits(0),
    ]

    outcome, machine = bench.run(*program)

    assert outcome.code == 0
    assert [machine.engine.x[number].get() for number in (24, 25, 26, 27)] == [STACK + 0x1000, STACK, STACK + 0x2000, STACK + 0x2000]


def test_from_sp_el0_the_vector_runs_on_sp_el1_and_eret_goes_back(bench: Bench) -> None:
    program: list[Part] = [
        vectors_here(),
        mov(9, STACK),
        set_sp(9),
        set_system("SP_EL0", STACK + 0x1000),
        SPSEL_0,
        svc(),
        get_sp(24),
        exits(0),
        vector(0x000),
        get_sp(23),
        ERET,
    ]

    _, machine = bench.run(*program)

    assert (machine.engine.x[23].get(), machine.engine.x[24].get()) == (STACK, STACK + 0x1000)


def test_registers_and_flags_survive_an_exception_and_its_return(bench: Bench) -> None:
    marked: list[Part] = [mov(number, 0x100 + number) for number in range(31)]
    machine = bench.machine(vectors_here(), marked, svc(), B_SELF, vector(0x200), ERET)
    machine.engine.set_pstate(0x6000_03C5)

    outcome = machine.run()

    assert outcome.code == ExitCode.DEADLOCK
    assert [register.get() for register in machine.engine.x] == [0x100 + number for number in range(31)]
    assert machine.engine.pstate.get() == 0x6000_03C5


# ---- translation


VALID_BLOCK: Final = 0x401  # valid, AF, EL1 read-write


def mmu_on(*mapped: int) -> list[Part]:
    """Map 1 GiB blocks, VA = PA, from a table at SCRATCH (39 bits of VA, level 1)."""
    entries: list[Part] = []
    for address in mapped:
        entries += [mov(9, address | VALID_BLOCK), mov(10, SCRATCH + 8 * (address >> 30)), store(9, 10)]
    return [
        *entries,
        *mov(9, SCRATCH),
        0xD518_2009,  # msr ttbr0_el1, x9
        *mov(9, 25),
        0xD518_2049,  # msr tcr_el1, x9
        ISB,
        mrs(9, "SCTLR_EL1"),
        0xB240_0129,  # orr x9, x9, #1
        msr("SCTLR_EL1", 9),
        ISB,
    ]


@pytest.mark.parametrize(
    ("instruction", "esr"),
    [(ldr(0, 1), 0x9600_0005), (store(0, 1), 0x9600_0045), (br(1), 0x8600_0005)],
    ids=["read", "write", "fetch"],
)
def test_an_address_without_translation_is_an_abort_with_its_syndrome_and_address(bench: Bench, instruction: int, esr: int) -> None:
    missing = 0x8000_1008  # the third GiB, which the table leaves invalid
    program: list[Part] = [vectors_here(), mmu_on(0x4000_0000), mov(1, missing), Label("here"), instruction]

    outcome, machine = bench.run(*program, vector(0x200), keeps_exception())

    here = TEXT + len(flat(vectors_here(), mmu_on(0x4000_0000), mov(1, missing)))
    assert outcome.code == 7
    assert kept(machine)[:4] == (esr, missing if instruction == br(1) else here, ENTRY, missing)


def test_a_fault_leaves_far_alone_where_there_is_no_address(bench: Bench) -> None:
    program: list[Part] = [vectors_here(), set_system("FAR_EL1", 0x1234), svc(), vector(0x200), keeps_exception()]

    _, machine = bench.run(*program)

    assert kept(machine)[3] == 0x1234


def test_an_unaligned_exclusive_is_a_data_abort(bench: Bench) -> None:
    program: list[Part] = [vectors_here(), mov(1, SCRATCH + 1), 0xC85F_7C20, vector(0x200), keeps_exception()]  # ldxr x0, [x1]

    _, machine = bench.run(*program)

    assert kept(machine)[0] >> 26 == 0x25
    assert kept(machine)[3] == SCRATCH + 1


# ---- PC alignment


@pytest.mark.parametrize("address", [TEXT + 0x1002, TEXT + 0x1001])
def test_a_branch_to_a_misaligned_address_is_a_pc_alignment_exception(bench: Bench, address: int) -> None:
    program: list[Part] = [vectors_here(), mov(1, address), br(1), vector(0x200), keeps_exception()]

    _, machine = bench.run(*program)

    assert kept(machine)[:4] == (0x8A00_0000, address, ENTRY, address)


# ---- crashes


UNMAPPED: Final = [
    (ldr(0, 1), "read from", 0x9600_0010),
    (store(0, 1), "write to", 0x9600_0050),
    (br(1), "instruction fetch from", 0x8600_0010),
]


@pytest.mark.parametrize(("instruction", "what", "esr"), UNMAPPED, ids=["read", "write", "fetch"])
def test_a_physical_address_with_nothing_behind_it_is_an_external_abort(bench: Bench, instruction: int, what: str, esr: int) -> None:
    del what
    outcome, machine = bench.run(vectors_here(), mov(1, NOWHERE), instruction, vector(0x200), keeps_exception())

    assert outcome.code == 7
    assert (kept(machine)[0], kept(machine)[3]) == (esr, NOWHERE)


@pytest.mark.parametrize(("instruction", "what", "esr"), UNMAPPED, ids=["read", "write", "fetch"])
def test_an_external_abort_that_cannot_be_taken_is_a_guest_crash(bench: Bench, instruction: int, what: str, esr: int) -> None:
    del esr
    outcome, _ = bench.run(mov(1, NOWHERE), instruction)

    sentence = (
        f"{what} unmapped address {NOWHERE:#x}, and its vector 0x200 cannot be executed: instruction fetch from unmapped address 0x200"
    )
    assert outcome == (ExitCode.CRASH, f"guest crash: {sentence}")


@pytest.mark.parametrize(
    "address",
    [UART.end, UART.base - 8, 0x0800_0000, 0x4800_0000, 0x4000_0000 - 8, 0, 0xFFFF_FFFF_FFFF_FFF8, 1 << 48],
    ids=hex,
)
def test_the_edges_of_the_map_crash_on_every_kind_of_access(bench: Bench, address: int) -> None:
    for instruction in (ldr(0, 1), store(0, 1), br(1)):
        outcome, _ = bench.run(mov(1, address), instruction)

        assert outcome.code == ExitCode.CRASH


def test_code_in_a_device_is_a_guest_crash(bench: Bench) -> None:
    outcome, _ = bench.run(mov(1, UART.base), br(1))

    assert outcome.code == ExitCode.CRASH


@pytest.mark.parametrize(("instruction", "what"), [(UDF, "undefined instruction"), (svc(), "SVC"), (brk(), "BRK")])
def test_without_a_usable_vector_an_exception_is_a_guest_crash(bench: Bench, instruction: int, what: str) -> None:
    outcome, _ = bench.run(instruction)

    sentence = f"{what} at {TEXT:#x}, and its vector 0x200 cannot be executed: instruction fetch from unmapped address 0x200"
    assert outcome == (ExitCode.CRASH, f"guest crash: {sentence}")


@pytest.mark.parametrize(("instruction", "what"), [(UDF, "undefined instruction"), (brk(), "BRK")])
def test_an_exception_at_the_first_instruction_of_its_own_vector_is_a_guest_crash(bench: Bench, instruction: int, what: str) -> None:
    outcome, machine = bench.run(vectors_here(), svc(), vector(0x200), instruction)

    assert outcome.code == ExitCode.CRASH
    assert outcome.sentence.endswith(f"and its vector {VECTORS + 0x200:#x} cannot be executed: {what} at {VECTORS + 0x200:#x}")
    assert machine.engine.pc.get() == VECTORS + 0x200


def test_an_exception_later_in_a_vector_is_taken_again_and_again(bench: Bench) -> None:
    outcome, _ = bench.run(vectors_here(), svc(), vector(0x200), NOP, UDF, max_insns=30_000)

    assert outcome.code == ExitCode.NO_PROGRESS


def test_two_vcpus_each_have_their_own_vectors(bench: Bench) -> None:
    program: list[Part] = [
        vectors_here(),
        call_at(CPU_ON, 1, "second"),
        Label("wait"),
        mov(9, SCRATCH + 0x100),
        ldr(10, 9),
        cbz(10, "wait"),
        svc(1),
        Label("second"),
        set_system("VBAR_EL1", VECTORS + 0x800),
        svc(2),
        vector(0x200),
        keeps_exception(),
        vector(0xA00),
        mrs(10, "ESR_EL1"),
        mov(9, SCRATCH + 0x100),
        store(10, 9),
        Label("stay"),
        WFI,
        b("stay"),
    ]

    outcome, machine = bench.run(*program, choices=Choices(mpidrs=(0, 1)))

    assert outcome.code == 7
    assert kept(machine)[0] == 0x5600_0001
    assert word_at(machine, SCRATCH + 0x100) == 0x5600_0002


@pytest.mark.xfail(strict=True, reason="the engine never traps floating point, whatever CPACR_EL1 says")
@pytest.mark.parametrize("cpu", ["cortex-a57", "max"])
def test_floating_point_traps_until_the_guest_enables_it(bench: Bench, cpu: str) -> None:
    program: list[Part] = [vectors_here(), 0x1E6E_1000, exits(0), vector(0x200), keeps_exception()]  # fmov d0, #1.0

    outcome, machine = bench.run(*program, cpu=cpu)

    assert outcome.code == 7
    assert kept(machine)[0] == 0x1FE0_0000  # EC 0x07


def test_a_return_to_aarch32_is_a_guest_crash(bench: Bench) -> None:
    outcome, _ = bench.run(vectors_here(), to_el(0x3D0, "a32"), Label("a32"), NOP, vector(0x200), exits(4))

    assert outcome.code == ExitCode.CRASH


def test_pointer_authentication_is_the_guests_own(bench: Bench) -> None:
    program: list[Part] = [
        vectors_here(),
        *(set_system("APIAKEYLO_EL1", 0x1234_5678_9ABC_DEF0), set_system("APIAKEYHI_EL1", 0x0F1E_2D3C_4B5A_6978)),
        *(mrs(19, "APIAKEYLO_EL1"), mrs(20, "APIAKEYHI_EL1")),
        *(mrs(9, "SCTLR_EL1"), 0xB261_0129, msr("SCTLR_EL1", 9), ISB),  # orr x9, x9, #EnIA
        *(mov(21, TEXT), mov(10, 7), 0xDAC1_0155, copy(22, 21)),  # pacia x21, x10
        0xDAC1_1155,  # autia x21, x10
        exits(0),
        vector(0x200),
        keeps_exception(),
    ]

    outcome, machine = bench.run(*program, cpu="max")

    assert outcome.code == 0
    low, high, authenticated, signed = kept(machine)[:4]
    assert (low, high, authenticated) == (0x1234_5678_9ABC_DEF0, 0x0F1E_2D3C_4B5A_6978, TEXT)
    assert signed != TEXT
    assert signed & 0xFFFF_FFFF_FFFF == TEXT
