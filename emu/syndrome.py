"""What an exception says of itself, ESR and FAR, which the engine's interface does not tell."""

from __future__ import annotations

import ctypes
import struct
from typing import Any, Final

from emu import unicorn
from emu.registers import REGISTERS, Register
from emu.unicorn import Context, check, library

_PAGE: Final = 0x1000
_PAGE_BYTES: Final = 0x1000
_PROGRAM: Final = struct.pack("<2I", 0xD400_0001 | 0x1234 << 5, 0xD420_0000 | 0x4321 << 5)  # SVC #0x1234, BRK #0x4321
_SYNDROMES: Final = (0x5600_1234, 0xF200_4321)
_INTERRUPT: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32)


class Syndrome:
    """The current exception's, read out of a context: there, `env->exception` is {u32 syndrome, u32 fsr, u64 vaddress, u32 target_el}.

    handle  an engine that has not run yet; where a context holds it is found by running one SVC and one BRK
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._context = Context(handle)
        base = self._context.address + _offset(handle, self._context)
        self._esr = ctypes.c_uint32.from_address(base)
        self._far = ctypes.c_uint64.from_address(base + 8)
        self._target_el = ctypes.c_uint32.from_address(base + 16)

    def read(self) -> tuple[int, int, int]:
        """Return (ESR, FAR, target exception level) of the exception whose callback is running."""
        library.uc_context_save(self._handle, self._context.pointer)
        return self._esr.value, self._far.value, self._target_el.value


def daif_syndrome(word: int) -> int:
    """Return the syndrome that the engine loses: of an MSR DAIFSet or DAIFClr that EL0 may not execute.

    None is ever 0, since IL is set: EC 0x18, as for a trapped MSR (Arm ARM, ESR_ELx, "ISS encoding for an exception from MSR, MRS, or
    System instruction execution").
    """
    op1, crm, op2 = word >> 16 & 7, word >> 8 & 15, word >> 5 & 7
    return 0x6200_0000 | op2 << 17 | op1 << 14 | 4 << 10 | 31 << 5 | crm << 1


def _offset(handle: Any, context: Context) -> int:
    images: list[bytes] = []

    def on_interrupt(_uc: int, _number: int) -> None:
        library.uc_context_save(handle, context.pointer)
        images.append(ctypes.string_at(context.pointer, context.size_bytes))
        library.uc_emu_stop(handle)

    before, callback, hook = Context(handle), _INTERRUPT(on_interrupt), ctypes.c_size_t()
    page, size = ctypes.c_uint64(_PAGE), ctypes.c_size_t(_PAGE_BYTES)
    check(library.uc_mem_map(handle, page, size, ctypes.c_uint32(unicorn.UC_PROT_ALL)))
    check(library.uc_mem_write(handle, page, _PROGRAM, ctypes.c_size_t(len(_PROGRAM))))
    everywhere = (ctypes.c_uint64(1), ctypes.c_uint64(0))
    check(library.uc_hook_add(handle, ctypes.byref(hook), ctypes.c_int(unicorn.UC_HOOK_INTR), callback, None, *everywhere))
    for address in (_PAGE, _PAGE + 4):
        Register(handle, REGISTERS["pc"]).set(address)
        library.uc_emu_start(handle, ctypes.c_uint64(address), ctypes.c_uint64(0), ctypes.c_uint64(0), ctypes.c_size_t(1))
    check(library.uc_hook_del(handle, hook))
    check(library.uc_mem_unmap(handle, page, size))
    check(library.uc_ctl(handle, unicorn.control(unicorn.UC_CTL_TB_FLUSH)))
    check(library.uc_context_restore(handle, before.pointer))
    offsets = _places(images[0], _SYNDROMES[0]) & _places(images[1], _SYNDROMES[1])
    assert len(offsets) == 1, f"the engine's context holds the syndrome at {sorted(offsets)}"
    return offsets.pop()


def _places(image: bytes, syndrome: int) -> set[int]:
    needle = struct.pack("<I", syndrome)
    found, at = set(), image.find(needle)
    while at >= 0:
        found.add(at)
        at = image.find(needle, at + 1)
    return {at for at in found if at % 4 == 0}
