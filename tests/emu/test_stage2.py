"""Stage 2 translation: which pages may be executed, and what a guest can tell of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from emu.memory import RAM_BASE, GiB, MiB
from emu.outcome import ExitCode
from emu.stage2 import TABLES, Stage2
from tests.emu.programs import Bench, Part, exits, kept, ldr, mov, store

BLR_X9, RET = 0xD63F_0120, 0xD65F_03C0
MOV_X19_1, MOV_X20_2 = 0xD280_0033, 0xD280_0054
XN = 1 << 54
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

    stage_2.make_executable(address)
    stage_2.make_executable(address + 2 * MiB)

    near = [address + distance for distance in (0, 0x1000, 2 * MiB, 2 * MiB + 0x1000, 4 * MiB)]
    assert [maps(stage_2, page) for page in near] == list(zip(near, (True, False, True, False, False), strict=True))


def test_the_tables_are_not_mapped() -> None:
    assert leaf(Stage2(), TABLES.base)[0] == 0


def test_without_a_table_left_a_whole_block_becomes_executable() -> None:
    stage_2 = Stage2()
    pages = [RAM_BASE + number * 2 * MiB for number in range(600)]

    for page in pages:
        stage_2.make_executable(page)

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
