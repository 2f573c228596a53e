"""Stage 2 translation: which pages may be executed, and what a guest can tell of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from emu.memory import RAM_BASE, GiB, MiB
from emu.outcome import ExitCode
from emu.stage2 import TABLES, Stage2
from tests.emu.programs import ISB, TEXT, VECTORS, Bench, Part, copy, exits, kept, ldr, mov, set_system, store

BLR_X9, RET = 0xD63F_0120, 0xD65F_03C0
MOV_X19_1, MOV_X20_2 = 0xD280_0033, 0xD280_0054
XN = 1 << 54
S2AP, READS, BOTH = 3 << 6, 1 << 6, 3 << 6
_ADDRESS = 0x0000_FFFF_FFFF_F000


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def leaf(stage_2: Stage2, address: int) -> tuple[int, int]:
    """Walk the tables as hardware does; return the descriptor and the size of what it maps."""
    table = 0
    for shift in (30, 21, 12):
        slot = table + (address >> shift & (1023 if shift == 30 else 511))
        descriptor = int.from_bytes(stage_2.memory[8 * slot : 8 * slot + 8], "little")
        if shift == 12 or descriptor & 3 != 3:
            return descriptor, 1 << shift
        table = ((descriptor & _ADDRESS) - TABLES.base) // 8
    raise AssertionError


def maps(stage_2: Stage2, address: int) -> tuple[int, bool]:
    """Return where an address is mapped, and whether it can be executed."""
    descriptor, size = leaf(stage_2, address)
    assert descriptor & 1, hex(address)
    return (descriptor & _ADDRESS) + address % size, not descriptor & XN


ADDRESSES = (0, 0x0900_0000, RAM_BASE, RAM_BASE + 0x20_0000, RAM_BASE + 0x1234_5000, 300 * GiB, 1023 * GiB)


@pytest.mark.parametrize("address", ADDRESSES, ids=hex)
def test_everything_is_mapped_one_to_one_and_execute_never(address: int) -> None:
    assert maps(Stage2(), address) == (address, False)


@pytest.mark.parametrize("address", ADDRESSES, ids=hex)
def test_one_page_becomes_executable(address: int) -> None:
    stage_2 = Stage2()

    stage_2.let_execute(address, address)
    stage_2.let_execute(address + 2 * MiB, address)

    near = [address + distance for distance in (0, 0x1000, 2 * MiB, 2 * MiB + 0x1000, 4 * MiB)]
    assert [maps(stage_2, page) for page in near] == list(zip(near, (True, False, True, False, False), strict=True))
    assert [leaf(stage_2, page)[0] & S2AP for page in near] == [READS, BOTH, READS, BOTH, BOTH]


@pytest.mark.parametrize(
    ("va", "pc", "executes", "executed"),
    [
        (0x8000_0123, 0x9000_0000, False, {}),
        (0x7000_0123, 0x9000_0000, True, {RAM_BASE: 0x7000_0000}),
        (0x8000_0123, 0x7000_0FFC, True, {RAM_BASE: 0x7000_0000}),
    ],
    ids=["by another address", "where it is executed", "by itself"],
)
def test_a_page_that_is_written_is_no_longer_executable_unless_the_engine_sees_it(
    va: int, pc: int, executes: bool, executed: dict[int, int]
) -> None:
    stage_2 = Stage2()
    stage_2.let_execute(RAM_BASE + 0x10, 0x7000_0010)

    stage_2.let_write(RAM_BASE + 0x123, va, pc)

    assert maps(stage_2, RAM_BASE) == (RAM_BASE, executes)
    assert leaf(stage_2, RAM_BASE)[0] & S2AP == BOTH
    assert stage_2.executed == executed


def test_the_tables_are_not_mapped() -> None:
    assert leaf(Stage2(), TABLES.base)[0] == 0


def test_without_a_table_left_a_whole_block_becomes_executable() -> None:
    stage_2 = Stage2()
    pages = [RAM_BASE + number * 2 * MiB for number in range(600)]

    for page in pages:
        stage_2.let_execute(page, page)

    assert [maps(stage_2, page) for page in pages] == [(page, True) for page in pages]
    assert maps(stage_2, pages[0] + 0x1000) == (pages[0] + 0x1000, False)
    assert maps(stage_2, pages[-1] + 0x1000) == (pages[-1] + 0x1000, True)


@pytest.mark.parametrize("address", [TABLES.base, 1 << 40, 1 << 43], ids=hex)
@pytest.mark.parametrize("access", [ldr, store])
def test_a_guest_meets_no_tables_but_memory_that_is_not_there(bench: Bench, access: Callable[[int, int], int], address: int) -> None:
    outcome, _ = bench.run(mov(9, address), access(10, 9), exits(0))

    assert outcome.code == ExitCode.CRASH
    assert f"unmapped address {address:#x}" in outcome.sentence


def test_a_page_is_data_then_code_then_other_code(bench: Bench) -> None:
    page = RAM_BASE + 32 * MiB
    writes: list[Part] = [mov(9, page), mov(10, RET << 32 | MOV_X19_1), store(10, 9), BLR_X9]
    overwrites: list[Part] = [mov(10, RET << 32 | MOV_X20_2), store(10, 9), BLR_X9]

    outcome, machine = bench.run(writes, overwrites, ldr(21, 9), exits(0))

    assert outcome.code == ExitCode.OK
    assert kept(machine)[:3] == (1, 2, RET << 32 | MOV_X20_2)


# A level 1 block of VMSAv8-64 stage 1: AF, inner shareable, attributes 0, EL1 reads and writes; PXN.
BLOCK, PXN = 1 << 10 | 3 << 8 | 1, 1 << 53
TABLE = RAM_BASE + 48 * MiB
ALIAS = 2 * GiB - RAM_BASE


def test_code_that_is_overwritten_through_another_address_is_executed_as_it_is_then(bench: Bench) -> None:
    code = VECTORS
    maps_twice: list[Part] = [
        *(mov(9, TABLE), mov(10, RAM_BASE | BLOCK), store(10, 9, 8), mov(10, RAM_BASE | BLOCK | PXN), store(10, 9, 16)),
        *set_system("MAIR_EL1", 0xFF),
        *set_system("TCR_EL1", 1 << 23 | 3 << 12 | 1 << 10 | 1 << 8 | 25),  # TTBR0 alone, 39 bits of address
        *(set_system("TTBR0_EL1", TABLE), ISB),
        *(set_system("SCTLR_EL1", 0x30D0_0801 | 1 << 12 | 1 << 2), ISB),
    ]
    writes: list[Part] = [mov(9, code), mov(11, code + ALIAS), mov(10, RET << 32 | MOV_X19_1), store(10, 11), BLR_X9, copy(21, 19)]
    overwrites: list[Part] = [mov(10, RET << 32 | MOV_X20_2), store(10, 11), BLR_X9]
    again: list[Part] = [mov(10, RET << 32 | MOV_X19_1), store(10, 11), mov(19, 0), BLR_X9]

    outcome, machine = bench.run(maps_twice, writes, overwrites, again, exits(0))

    assert code // 0x1000 != TEXT // 0x1000
    assert outcome.code == ExitCode.OK
    assert kept(machine)[:3] == (1, 2, 1)
