"""Which blocks of code a guest has come to: a callback before every block notes the first time, and nothing else.

The callback is a few machine instructions of the computer's own (`_CODE`), which a guest hardly feels. Where they are not known or not
allowed, Python notes: much slower, the same blocks.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from functools import cache
from typing import Any, Final

from emu.budget import BLOCK
from emu.machinecode import executable

# A byte for each instruction's place in 16 MiB: blocks whose addresses are alike in these bits are taken for one.
_PLACES: Final = 1 << 22
_MAP_NORESERVE: Final = getattr(mmap, "MAP_NORESERVE", 0)

# void callback(engine, u64 address, u32 size_bytes, struct coverage *coverage):
#     if (coverage->retries) { coverage->retries = 0; return; }
#     u8 *seen = coverage->seen + (address >> 2 & _PLACES - 1);
#     if (!*seen) { *seen = 1; coverage->blocks[coverage->count++] = address; }
# by the C calling convention of the platform: System V AMD64 ABI, AAPCS64.
_CODE: Final = {
    "x86_64": bytes.fromhex(
        "4883791800"  # cmp qword [rcx + 24], 0
        "7409"  # je look
        "48c7411800000000"  # mov qword [rcx + 24], 0
        "c3"  # ret
        "4889f0"  # look: mov rax, rsi
        "48c1e802"  # shr rax, 2
        "25ffff3f00"  # and eax, 0x3fffff
        "480301"  # add rax, [rcx]
        "803800"  # cmp byte [rax], 0
        "7513"  # jne done
        "c60001"  # mov byte [rax], 1
        "488b5108"  # mov rdx, [rcx + 8]
        "4c8b4110"  # mov r8, [rcx + 16]
        "498934d0"  # mov [r8 + rdx * 8], rsi
        "48ff4108"  # inc qword [rcx + 8]
        "c3"  # done: ret
    ),
    "aarch64": struct.pack(
        "<15I",
        0xF940_0C65,  # ldr x5, [x3, #24]
        0xB400_0065,  # cbz x5, look
        0xF900_0C7F,  # str xzr, [x3, #24]
        0xD65F_03C0,  # ret
        0xF940_0064,  # look: ldr x4, [x3]
        0xD342_5C25,  # ubfx x5, x1, #2, #22
        0x3865_6886,  # ldrb w6, [x4, x5]
        0x3500_00E6,  # cbnz w6, done
        0x5280_0026,  # mov w6, #1
        0x3825_6886,  # strb w6, [x4, x5]
        0xA940_A067,  # ldp x7, x8, [x3, #8]
        0xF827_7901,  # str x1, [x8, x7, lsl #3]
        0x9100_04E7,  # add x7, x7, #1
        0xF900_0467,  # str x7, [x3, #8]
        0xD65F_03C0,  # done: ret
    ),
}


class _Coverage(ctypes.Structure):
    _fields_ = (("seen", ctypes.c_void_p), ("count", ctypes.c_uint64), ("blocks", ctypes.c_void_p), ("retries", ctypes.c_uint64))


class Coverage:
    """The blocks that engines have come to since `forget`; any number of engines share one."""

    def __init__(self) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE  # of which little is ever touched; a fork's are its own
        self._seen, self._list = mmap.mmap(-1, _PLACES, flags=flags), mmap.mmap(-1, 8 * _PLACES, flags=flags)
        self._blocks = memoryview(self._list).cast("Q")
        seen, blocks = (ctypes.addressof(ctypes.c_char.from_buffer(each)) for each in (self._seen, self._list))
        self._coverage = _Coverage(seen, 0, blocks)
        self._taken = 0
        self.argument = ctypes.c_void_p(ctypes.addressof(self._coverage))
        self.callback: Any = _native() or BLOCK(self._note)

    def take(self) -> tuple[int, ...]:
        """Return the addresses of blocks that were come to for the first time since this was last asked, in that order."""
        count = int(self._coverage.count)
        if count == self._taken:
            return ()
        first, self._taken = self._taken, count
        return tuple(self._blocks[first:count])

    def forget(self) -> None:
        """Let every block be new again."""
        for address in self._blocks[: self._coverage.count]:
            self._seen[_place(address)] = 0
        self._coverage.count = self._taken = 0

    def retry(self) -> None:
        """Let the next block pass: it is the rest of one that was noted, begun again behind the guest's back."""
        self._coverage.retries = 1

    def _note(self, _engine: int, address: int, _size_bytes: int, _coverage: int) -> None:
        place, coverage = _place(address), self._coverage
        if coverage.retries:
            coverage.retries = 0
        elif not self._seen[place]:
            self._seen[place] = 1
            self._blocks[coverage.count] = address
            coverage.count += 1


def _place(address: int) -> int:
    return address >> 2 & _PLACES - 1


@cache
def _native() -> Any | None:
    return executable(_CODE)
