"""Keep from Python the accesses to system registers that nobody there serves: of a kernel's, fourteen out of fifteen.

The engine calls back at every MRS and MSR, whatever the register. What Python cannot serve is told by its CRn, in a few machine
instructions (`_CODE`) or, where those are not known or not allowed, by Python itself: slower, the same answers.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, Final

from emu.machinecode import executable
from emu.registers import SystemRegister
from emu.unicorn import library

# u32 callback(engine, u32 register, struct {u32 crn; ...} *accessed, struct {callback *python; u32 crns} *sieve):
#     return sieve->crns >> accessed->crn & 1 ? sieve->python(engine, register, accessed, sieve) : 0;
_CODE: Final = {
    "x86_64": bytes.fromhex(
        "8b02"  # mov eax, [rdx]
        "448b4108"  # mov r8d, [rcx + 8]
        "410fa3c0"  # bt r8d, eax
        "7203"  # jc serve
        "31c0"  # xor eax, eax
        "c3"  # ret
        "ff21"  # serve: jmp [rcx]
    ),
    "aarch64": struct.pack(
        "<8I",
        0xB940_0044,  # ldr w4, [x2]
        0xB940_0865,  # ldr w5, [x3, #8]
        0x1AC4_24A5,  # lsr w5, w5, w4
        0x3700_0065,  # tbnz w5, #0, serve
        0x5280_0000,  # mov w0, #0
        0xD65F_03C0,  # ret
        0xF940_0070,  # serve: ldr x16, [x3]
        0xD61F_0200,  # br x16
    ),
}


_CALLBACK: Final = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_void_p)
# uc_arm64_cp_reg: u32 crn, crm, op0, op1, op2; u64 value.
_KEY_BYTES: Final = 20
_VALUE_AT: Final = 24


class _Sieve(ctypes.Structure):
    _fields_ = (("python", ctypes.c_void_p), ("crns", ctypes.c_uint32))


class Sieve:
    """A callback in front of Python's, and the argument that goes with it.

    python  a C function, which answers 0 for what it does not serve
    served  the registers that it serves
    """

    def __init__(self, python: Any, served: Iterable[SystemRegister]) -> None:
        self._python = python
        crns = sum({1 << crn for _op0, _op1, crn, _crm, _op2 in served})
        self._sieve = _Sieve(ctypes.cast(python, ctypes.c_void_p), crns)
        self.argument = ctypes.c_void_p(ctypes.addressof(self._sieve))
        self.callback: Any = _native() or python


@cache
def _native() -> Any | None:
    return executable(_CODE)


def served(
    handle: Any,
    readers: Mapping[SystemRegister, Callable[[], int]],
    writers: Mapping[SystemRegister, Callable[[int], None]],
    may: Callable[[SystemRegister], bool],
    fail: Callable[[BaseException], None],
) -> tuple[Sieve, Sieve]:
    """Return what serves MRS by readers[register]() and MSR by writers[register](value).

    may   whether the current exception level may access the register; where it may not, the engine raises the exception it should
    fail  takes what a reader or writer raises
    """
    by_key_read = {_key(register): (register, reader) for register, reader in readers.items()}
    by_key_write = {_key(register): (register, writer) for register, writer in writers.items()}
    string_at, result, write = ctypes.string_at, ctypes.c_uint64(), library.uc_reg_write
    pointer = ctypes.byref(result)

    def on_mrs(_uc: int, target: int, cp_reg: int, _user: int) -> int:
        found = by_key_read.get(string_at(cp_reg, _KEY_BYTES))
        if found is None or not may(found[0]):
            return 0
        try:
            result.value = found[1]()
            write(handle, ctypes.c_int(target), pointer)
        except BaseException as error:
            fail(error)
        return 1

    def on_msr(_uc: int, _source: int, cp_reg: int, _user: int) -> int:
        found = by_key_write.get(string_at(cp_reg, _KEY_BYTES))
        if found is None or not may(found[0]):
            return 0
        try:
            found[1](ctypes.c_uint64.from_address(cp_reg + _VALUE_AT).value)
        except BaseException as error:
            fail(error)
        return 1

    return Sieve(_CALLBACK(on_mrs), readers), Sieve(_CALLBACK(on_msr), writers)


def _key(register: SystemRegister) -> bytes:
    op0, op1, crn, crm, op2 = register
    return struct.pack("<5I", crn, crm, op0, op1, op2)
