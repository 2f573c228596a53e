"""The two registers that a guest's console uses for every character, served in machine code.

Before each character the flag register is read, and then the character is written to the data register. Where nobody types and no
interrupt is asked for, the one reads as it always does and the other only has to be noted: a few machine instructions of the computer's
own (`_READ`, `_WRITE`). All else goes to Python, as does everything where they are not known or not allowed.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from functools import cache
from typing import Any, Final

from emu.machinecode import executable

_ROOM_BYTES: Final = 4096

# u64 read(engine, u64 offset, u32 size, struct teletype *teletype):
#     return offset == UARTFR && teletype->flags ? teletype->flags : teletype->python_read(engine, offset, size, teletype);
_READ: Final = {
    "x86_64": bytes.fromhex(
        "4883fe18"  # cmp rsi, 0x18
        "7509"  # jne python
        "488b01"  # mov rax, [rcx]
        "4885c0"  # test rax, rax
        "7401"  # je python
        "c3"  # ret
        "ff6128"  # python: jmp [rcx + 40]
    ),
    "aarch64": struct.pack(
        "<8I",
        0xF100_603F,  # cmp x1, #0x18
        0x5400_00A1,  # b.ne python
        0xF940_0064,  # ldr x4, [x3]
        0xB400_0064,  # cbz x4, python
        0xAA04_03E0,  # mov x0, x4
        0xD65F_03C0,  # ret
        0xF940_1470,  # python: ldr x16, [x3, #40]
        0xD61F_0200,  # br x16
    ),
}

# void write(engine, u64 offset, u32 size, u64 value, struct teletype *teletype):
#     if (offset == UARTDR && teletype->notes && teletype->count < teletype->room) teletype->paper[teletype->count++] = value;
#     else teletype->python_write(engine, offset, size, value, teletype);
_WRITE: Final = {
    "x86_64": bytes.fromhex(
        "4885f6"  # test rsi, rsi
        "751d"  # jne python
        "4983780800"  # cmp qword [r8 + 8], 0
        "7416"  # je python
        "498b4010"  # mov rax, [r8 + 16]
        "493b4018"  # cmp rax, [r8 + 24]
        "730c"  # jae python
        "498b5020"  # mov rdx, [r8 + 32]
        "880c02"  # mov [rdx + rax], cl
        "49ff4010"  # inc qword [r8 + 16]
        "c3"  # ret
        "41ff6030"  # python: jmp [r8 + 48]
    ),
    "aarch64": struct.pack(
        "<13I",
        0xB500_0161,  # cbnz x1, python
        0xF940_0485,  # ldr x5, [x4, #8]
        0xB400_0125,  # cbz x5, python
        0xA941_1C86,  # ldp x6, x7, [x4, #16]
        0xEB07_00DF,  # cmp x6, x7
        0x5400_00C2,  # b.hs python
        0xF940_1088,  # ldr x8, [x4, #32]
        0x3826_6903,  # strb w3, [x8, x6]
        0x9100_04C6,  # add x6, x6, #1
        0xF900_0886,  # str x6, [x4, #16]
        0xD65F_03C0,  # ret
        0xF940_1890,  # python: ldr x16, [x4, #48]
        0xD61F_0200,  # br x16
    ),
}
_FLAGS, _NOTES, _COUNT = range(3)  # of the structure's 64-bit fields


class _Teletype(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("notes", ctypes.c_uint64),
        ("count", ctypes.c_uint64),
        ("room", ctypes.c_uint64),
        ("paper", ctypes.c_void_p),
        ("python_read", ctypes.c_void_p),
        ("python_write", ctypes.c_void_p),
    )


class Teletype:
    """What stands between a guest and its UART."""

    def __init__(self) -> None:
        self._paper = mmap.mmap(-1, _ROOM_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # a fork's is its own
        paper = ctypes.addressof(ctypes.c_char.from_buffer(self._paper))
        self._teletype = _Teletype(0, 0, 0, _ROOM_BYTES, paper, None, None)
        self._fields = memoryview(self._teletype).cast("B").cast("Q")
        self.argument = ctypes.c_void_p(ctypes.addressof(self._teletype))

    def in_front_of(self, read: Any, write: Any) -> tuple[Any, Any]:
        """Return the callbacks that are to stand in the place of two of Python's."""
        front_read, front_write = _native()
        if front_read is None or front_write is None:
            return read, write
        self._teletype.python_read, self._teletype.python_write = (ctypes.cast(each, ctypes.c_void_p) for each in (read, write))
        return front_read, front_write

    def serve(self, flags: int, *, notes: bool) -> None:
        """Let the flag register read so, 0 for Python to say; and note what is written, or leave it to Python."""
        self._fields[_FLAGS], self._fields[_NOTES] = flags, notes

    def take(self) -> bytes:
        """Take what has been noted since the last call."""
        count = self._fields[_COUNT]
        if not count:
            return b""
        self._fields[_COUNT] = 0
        return self._paper[:count]


@cache
def _native() -> tuple[Any | None, Any | None]:
    return executable(_READ), executable(_WRITE)
