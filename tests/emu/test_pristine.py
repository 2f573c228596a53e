"""Memory that is put back as it was: what is told of it, and what it then holds."""

from __future__ import annotations

import mmap
from typing import Final

import pytest

from emu.memory import PAGE_BYTES
from emu.pristine import Pristine

BASE: Final = 0x4000_0000
PAGES: Final = 8
SECOND: Final = BASE + 2 * PAGE_BYTES


@pytest.fixture
def buffer() -> mmap.mmap:
    return mmap.mmap(-1, PAGES * PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def pristine(buffer: mmap.mmap) -> Pristine:
    buffer[2 * PAGE_BYTES : 3 * PAGE_BYTES] = bytes(range(256)) * 16
    return Pristine([(BASE, buffer)], {SECOND: bytes(range(256)) * 16})


def test_what_was_written_is_found_once_and_put_back_each_time(buffer: mmap.mmap) -> None:
    memory = pristine(buffer)
    assert not memory.ranges

    for is_other in (True, False, False):
        buffer[3 * PAGE_BYTES - 1 : 3 * PAGE_BYTES + 1] = b"xy"
        buffer[0] = 1
        assert memory.look() == is_other
        assert memory.ranges == ((BASE, PAGE_BYTES), (SECOND, 2 * PAGE_BYTES))
        memory.restore()
        assert buffer[:] == bytes(2 * PAGE_BYTES) + bytes(range(256)) * 16 + bytes(5 * PAGE_BYTES)


def test_a_difference_grows_and_is_told_only_while_there_is_one(buffer: mmap.mmap) -> None:
    memory = pristine(buffer)
    told = []
    for at, value in ((0, 0), (1024, 9), (1024, 0), (1024, 7), (512, 9), (3000, 9), (600, 9), (4095, 0), (0, 1)):
        buffer[2 * PAGE_BYTES + at] = value
        told.append(memory.difference(SECOND))
        memory.look()
        memory.restore()

    first, large = (SECOND + 1024, 4), (SECOND + 512, 1024 + 4 - 512)
    assert told[:5] == [None, first, None, first, large]
    assert told[5] == told[6] == (SECOND + 512, told[5][1])  # type: ignore[index]
    assert told[7] == (SECOND + 512, PAGE_BYTES - 512)
    assert told[8] == (SECOND, PAGE_BYTES)
