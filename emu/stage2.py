"""Stage 2 translation: everything one to one, and no page executable before it is first executed.

1. The engine takes a slow way at every store to a page that could be executed, whether there is code or not. With the MMU off, and where
   a kernel maps itself writable and executable, as Linux does at its start, that is every store. Stage 2 is EL2's, so a guest at EL1
   sees nothing of it.
2. The engine notices that code is overwritten only where the store goes through the virtual address that the code is executed at. A
   kernel patches its text through another, and a page that held code may hold other code later. So what is executed cannot be written.
3. The first fetch from a page, and the first store to one that is executed, are stage 2 permission faults, of some microseconds each.
   After such a store, what was translated of the page is forgotten, and the next fetch is the first. A page that is written through the
   address it is executed at is both from then on: there the engine notices. So is one whose own code writes to it, or neither would end.
4. What the tables do not map is refused as memory that is not there: addresses above 40 bits, and the gigabyte of the tables themselves.
"""

from __future__ import annotations

import mmap
from array import array
from typing import Final

from emu.memory import PAGE_BYTES, GiB, MiB, Region

# Above all RAM, within the 40 bits that every CPU model has.
TABLES: Final = Region(512 * GiB, 1 * MiB)

# Arm ARM, VTCR_EL2: RES1; PS 40 bits; inner shareable, write-back tables; start at level 1; T0SZ 24.
VTCR: Final = 1 << 31 | 2 << 16 | 3 << 12 | 1 << 10 | 1 << 8 | 1 << 6 | 24
VTTBR: Final = TABLES.base

# Arm ARM, VMSAv8-64 stage 2 descriptors: AF, inner shareable, read and write, normal write-back memory; XN.
_ATTRIBUTES: Final = 1 << 10 | 3 << 8 | 3 << 6 | 0xF << 2
_WRITE: Final = 2 << 6  # S2AP
_XN: Final = 1 << 54
_BLOCK: Final = 1
_TABLE: Final = 3  # also a page, at level 3
_ADDRESS: Final = 0x0000_FFFF_FFFF_F000

_OFFSET: Final = PAGE_BYTES - 1
_LEVEL_SHIFTS: Final = (30, 21, 12)
_ENTRIES: Final = 512
_FIRST_LEVEL_ENTRIES: Final = 1024  # two tables, concatenated


class Stage2:
    """The tables, in memory of their own."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, TABLES.size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # a fork's are its own
        self._descriptors = memoryview(self.memory).cast("Q")
        own = TABLES.base // GiB
        self._fill(0, [0 if index == own else index * GiB | _ATTRIBUTES | _XN | _BLOCK for index in range(_FIRST_LEVEL_ENTRIES)])
        self._used = _FIRST_LEVEL_ENTRIES
        self.executed: dict[int, int] = {}  # by page: the virtual page from which it was first executed
        self.changes = 0  # of these

    def _fill(self, start: int, descriptors: list[int]) -> None:
        self._descriptors[start : start + len(descriptors)] = memoryview(array("Q", descriptors))

    def let_execute(self, address: int, va: int) -> None:
        """Let the page of a physical address be executed, and not be written; the engine's TLB has to be flushed then.

        Where no tables are left, whatever the page is a part of becomes executable with it, and can still be written.
        """
        self.executed[address & ~_OFFSET] = va & ~_OFFSET
        self.changes += 1
        self._change(address, clear=_XN | _WRITE, if_whole=_XN)

    def let_write(self, address: int, va: int, pc: int) -> None:
        """Let a page that is executed be written, by the instruction at pc, after what was translated of it has been forgotten."""
        page = address & ~_OFFSET
        if self.executed[page] in (va & ~_OFFSET, pc & ~_OFFSET):
            self._change(page, put=_WRITE)
        else:
            del self.executed[page]
            self.changes += 1
            self._change(page, put=_WRITE | _XN)

    def _change(self, address: int, *, clear: int = 0, put: int = 0, if_whole: int = 0) -> None:
        table = 0
        for level, shift in enumerate(_LEVEL_SHIFTS):
            slot = table + (address >> shift & (_ENTRIES - 1 if level else _FIRST_LEVEL_ENTRIES - 1))
            descriptor = self._descriptors[slot]
            is_page = shift == _LEVEL_SHIFTS[-1]
            is_table = not is_page and descriptor & 3 == _TABLE
            if not is_table and (is_page or self._used == len(self._descriptors)):
                self._descriptors[slot] = descriptor & ~(clear if is_page else if_whole) | put
                return
            if not is_table:
                descriptor = self._descriptors[slot] = self._split(descriptor, _LEVEL_SHIFTS[level + 1])
            table = ((descriptor & _ADDRESS) - TABLES.base) // 8

    def _split(self, block: int, shift: int) -> int:
        # The block's parts, with all that it says; the descriptor of their table.
        first, kind = block & ~3, _TABLE if 1 << shift == PAGE_BYTES else _BLOCK
        table, self._used = self._used, self._used + _ENTRIES
        self._fill(table, [first + (index << shift) | kind for index in range(_ENTRIES)])
        return TABLES.base + 8 * table | _TABLE
