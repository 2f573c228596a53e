"""End a slice after so many instructions, or where interrupts are no longer masked: a callback, called before every block.

1. The engine can count by itself, but calls out before every instruction then: a kernel takes twice as long to start.
2. A block is what the engine translates at once: up to the next branch, system instruction or end of a page. It is a function of the
   guest's code, not of what has been translated before, and so is the place where a slice ends.
3. Whatever unmasks interrupts (MSR DAIF, MSR DAIFClr, ERET) ends a block: watched before each, an interrupt that waits is taken at once.
4. The callback is a few machine instructions of the computer's own (`_CODE`). Where they are not known or not allowed, Python counts:
   much slower, the same slices.
"""

from __future__ import annotations

import ctypes
import struct
from functools import cache
from typing import Any, Final

from emu.machinecode import executable
from emu.registers import PSTATE_I

_ENDLESS: Final = (1 << 63) - 1

# void callback(engine, u64 address, u32 size_bytes, struct budget *budget):
#     if (budget->retries) { budget->retries = 0; return; }
#     if (budget->left <= 0) stop(engine);
#     if (budget->watches) { budget->read(engine, budget->register, &budget->pstate); if (!(budget->pstate & I)) stop(engine); }
#     budget->left -= size_bytes / 4;
# where a stop is the end, by the C calling convention of the platform: System V AMD64 ABI, AAPCS64.
_CODE: Final = {
    "x86_64": bytes.fromhex(
        "4883793000"  # cmp qword [rcx + 48], 0
        "7409"  # je begin
        "48c7413000000000"  # mov qword [rcx + 48], 0
        "c3"  # ret
        "48833900"  # begin: cmp qword [rcx], 0
        "7e24"  # jle stop
        "4883791000"  # cmp qword [rcx + 16], 0
        "7507"  # jne look
        "c1ea02"  # run: shr edx, 2
        "482911"  # sub [rcx], rdx
        "c3"  # ret
        "57"  # look: push rdi
        "52"  # push rdx
        "51"  # push rcx
        "488d5118"  # lea rdx, [rcx + 24]
        "8b7120"  # mov esi, [rcx + 32]
        "ff5128"  # call [rcx + 40]
        "59"  # pop rcx
        "5a"  # pop rdx
        "5f"  # pop rdi
        "f6411880"  # test byte [rcx + 24], 0x80
        "75e3"  # jne run
        "ff6108"  # stop: jmp [rcx + 8]
    ),
    "aarch64": struct.pack(
        "<27I",
        0xF940_1865,  # ldr x5, [x3, #48]
        0xB400_0065,  # cbz x5, begin
        0xF900_187F,  # str xzr, [x3, #48]
        0xD65F_03C0,  # ret
        0xF940_0064,  # begin: ldr x4, [x3]
        0xF100_009F,  # cmp x4, #0
        0x5400_026D,  # b.le stop
        0xF940_0865,  # ldr x5, [x3, #16]
        0xB500_00A5,  # cbnz x5, look
        0x5302_7C42,  # run: lsr w2, w2, #2
        0xCB02_0084,  # sub x4, x4, x2
        0xF900_0064,  # str x4, [x3]
        0xD65F_03C0,  # ret
        0xA9BD_7BFD,  # look: stp x29, x30, [sp, #-48]!
        0xA901_0BE0,  # stp x0, x2, [sp, #16]
        0xA902_13E3,  # stp x3, x4, [sp, #32]
        0x9100_6062,  # add x2, x3, #24
        0xB940_2061,  # ldr w1, [x3, #32]
        0xF940_1470,  # ldr x16, [x3, #40]
        0xD63F_0200,  # blr x16
        0xA942_13E3,  # ldp x3, x4, [sp, #32]
        0xA941_0BE0,  # ldp x0, x2, [sp, #16]
        0xA8C3_7BFD,  # ldp x29, x30, [sp], #48
        0xB940_1865,  # ldr w5, [x3, #24]
        0x373F_FE25,  # tbnz w5, #7, run
        0xF940_0470,  # stop: ldr x16, [x3, #8]
        0xD61F_0200,  # br x16
    ),
}

BLOCK: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_void_p)
_STOP: Final = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
_READ: Final = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


class _Budget(ctypes.Structure):
    _fields_ = (
        ("left", ctypes.c_int64),
        ("stop", ctypes.c_void_p),
        ("watches", ctypes.c_int64),
        ("pstate", ctypes.c_uint64),
        ("register", ctypes.c_uint64),
        ("read", ctypes.c_void_p),
        ("retries", ctypes.c_int64),
    )


class Budget:
    """How many instructions are left until the engine is stopped; without end at first.

    stop    the C function that stops the engine it is given
    read    the C function that reads an engine's register by number, and
    pstate  PSTATE's
    """

    def __init__(self, stop: ctypes.c_void_p, read: ctypes.c_void_p, pstate: int) -> None:
        self._budget = _Budget(_ENDLESS, stop, 0, 0, pstate, read)
        self.argument = ctypes.c_void_p(ctypes.addressof(self._budget))
        self.callback: Any = _native() or BLOCK(self._count)

    @property
    def left(self) -> int:
        """Below 1 where the last block went beyond the budget."""
        return int(self._budget.left)

    @left.setter
    def left(self, instructions: int) -> None:
        self._budget.left = instructions
        self._budget.retries = 0

    @property
    def watches(self) -> bool:
        """Whether the engine is also stopped where interrupts are not masked."""
        return bool(self._budget.watches)

    @watches.setter
    def watches(self, watches: bool) -> None:
        self._budget.watches = watches

    @property
    def run(self) -> int:
        """How many instructions the blocks had that have begun since the budget was lifted."""
        return _ENDLESS - int(self._budget.left)

    def lift(self) -> None:
        """Let the engine run on."""
        self.left = _ENDLESS

    def retry(self) -> None:
        """Let the next block pass: it is the rest of one that has been counted, begun again behind the guest's back."""
        self._budget.retries = 1

    def _count(self, engine: int, _address: int, size_bytes: int, _budget: int) -> None:
        budget = self._budget
        if budget.retries:
            budget.retries = 0
            return
        if budget.left > 0 and budget.watches:
            _READ(budget.read)(engine, budget.register, ctypes.addressof(budget) + _Budget.pstate.offset)
        if budget.left <= 0 or (budget.watches and not budget.pstate & PSTATE_I):
            _STOP(budget.stop)(engine)
        else:
            budget.left -= size_bytes // 4


@cache
def _native() -> Any | None:
    return executable(_CODE)
