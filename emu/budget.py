"""End a slice after so many instructions: a callback that counts them down, called before every block.

1. The engine can count by itself, but calls out before every instruction then: a kernel takes twice as long to start.
2. A block is what the engine translates at once: up to the next branch, system instruction or end of a page. It is a function of the
   guest's code, not of what has been translated before, and so is the place where a slice ends.
3. The callback is a few machine instructions of the computer's own (`_CODE`). Where they are not known or not allowed, Python counts:
   much slower, the same slices.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from functools import cache
from typing import Any, Final

_ENDLESS: Final = (1 << 63) - 1

# void callback(engine, u64 address, u32 size_bytes, struct {i64 left; void (*stop)(engine);} *budget):
#     if (budget->left <= 0) stop(engine); else budget->left -= size_bytes / 4;
# by the C calling convention of the platform: System V AMD64 ABI, AAPCS64.
_CODE: Final = {
    "x86_64": bytes.fromhex(
        "48833900"  # cmp qword [rcx], 0
        "7e07"  # jle stop
        "c1ea02"  # shr edx, 2
        "482911"  # sub [rcx], rdx
        "c3"  # ret
        "ff6108"  # stop: jmp [rcx + 8]
    ),
    "aarch64": struct.pack(
        "<9I",
        0xF940_0064,  # ldr x4, [x3]
        0xF100_009F,  # cmp x4, #0
        0x5400_00AD,  # b.le stop
        0x5302_7C42,  # lsr w2, w2, #2
        0xCB02_0084,  # sub x4, x4, x2
        0xF900_0064,  # str x4, [x3]
        0xD65F_03C0,  # ret
        0xF940_0470,  # stop: ldr x16, [x3, #8]
        0xD61F_0200,  # br x16
    ),
}

BLOCK: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_void_p)
_STOP: Final = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)


class _Budget(ctypes.Structure):
    _fields_ = (("left", ctypes.c_int64), ("stop", ctypes.c_void_p))


class Budget:
    """How many instructions are left until the engine is stopped; without end at first.

    stop  the C function that stops the engine it is given
    """

    def __init__(self, stop: ctypes.c_void_p) -> None:
        self._budget = _Budget(_ENDLESS, stop)
        self.argument = ctypes.c_void_p(ctypes.addressof(self._budget))
        self.callback: Any = _native() or BLOCK(self._count)

    @property
    def left(self) -> int:
        """Below 1 where the last block went beyond the budget."""
        return int(self._budget.left)

    @left.setter
    def left(self, instructions: int) -> None:
        self._budget.left = instructions

    def lift(self) -> None:
        """Let the engine run on."""
        self._budget.left = _ENDLESS

    def _count(self, engine: int, _address: int, size_bytes: int, _budget: int) -> None:
        if self._budget.left <= 0:
            _STOP(self._budget.stop)(engine)
        else:
            self._budget.left -= size_bytes // 4


@cache
def _native() -> Any | None:
    """Return a reference to the callback in machine code, or None where there can be none."""
    code = _CODE.get(os.uname().machine) if os.name == "posix" else None
    if code is None:
        return None
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    page[: len(code)] = code
    first = ctypes.c_char.from_buffer(page)
    mprotect = ctypes.CDLL(None).mprotect
    # Not writable and executable at once; and by this call arm64 Linux makes the instruction cache see what was written.
    refused = mprotect(ctypes.byref(first), ctypes.c_size_t(mmap.PAGESIZE), ctypes.c_int(mmap.PROT_READ | mmap.PROT_EXEC))
    return None if refused else ctypes.byref(first)
