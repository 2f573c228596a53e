"""Registers by name: the engine's numbers for them, and one at a time, read and written through C."""

from __future__ import annotations

import ctypes
from typing import Any, Final

from emu import unicorn
from emu.unicorn import library, pointer

SystemRegister = tuple[int, int, int, int, int]  # op0, op1, CRn, CRm, op2

# System registers, as MRS encodes them.
SCR_EL3: Final = (3, 6, 1, 1, 0)
HCR_EL2: Final = (3, 4, 1, 1, 0)
CPTR_EL3: Final = (3, 6, 1, 1, 2)
ZCR_EL3: Final = (3, 6, 1, 2, 0)
ZCR_EL2: Final = (3, 4, 1, 2, 0)
CNTHCTL_EL2: Final = (3, 4, 14, 1, 0)
VMPIDR_EL2: Final = (3, 4, 0, 0, 5)
VTTBR_EL2: Final = (3, 4, 2, 1, 0)
VTCR_EL2: Final = (3, 4, 2, 1, 2)
HPFAR_EL2: Final = (3, 4, 6, 0, 4)
SCTLR_EL1: Final = (3, 0, 1, 0, 0)
SPSR_EL1: Final = (3, 0, 4, 0, 0)

# Registers by the names this project uses.
REGISTERS: Final = {
    **{f"x{number}": unicorn.UC_ARM64_REG_X0 + number for number in range(29)},
    "x29": unicorn.UC_ARM64_REG_X29,
    "x30": unicorn.UC_ARM64_REG_X30,
    "sp": unicorn.UC_ARM64_REG_SP,
    "pc": unicorn.UC_ARM64_REG_PC,
    "pstate": unicorn.UC_ARM64_REG_PSTATE,
    "sp_el0": unicorn.UC_ARM64_REG_SP_EL0,
    "sp_el1": unicorn.UC_ARM64_REG_SP_EL1,
    "elr_el1": unicorn.UC_ARM64_REG_ELR_EL1,
    "esr_el1": unicorn.UC_ARM64_REG_ESR_EL1,
    "far_el1": unicorn.UC_ARM64_REG_FAR_EL1,
    "vbar_el1": unicorn.UC_ARM64_REG_VBAR_EL1,
    "fpcr": unicorn.UC_ARM64_REG_FPCR,
    "fpsr": unicorn.UC_ARM64_REG_FPSR,
}
VECTORS: Final = {f"v{number}": unicorn.UC_ARM64_REG_V0 + number for number in range(32)}


SCTLR_EE: Final = 1 << 25  # SCTLR_EL1.EE
PSTATE_EL: Final = 0xC
PSTATE_I: Final = 1 << 7


class Register:
    """One register of the current vCPU, 64 bits wide."""

    __slots__ = ("_box", "_handle", "_number", "_pointer")

    def __init__(self, handle: Any, number: int) -> None:
        self._handle = handle
        self._number = number
        self._box = ctypes.c_uint64()
        self._pointer = pointer(ctypes.addressof(self._box))

    def get(self) -> int:
        library.uc_reg_read(self._handle, self._number, self._pointer)
        return self._box.value

    def set(self, value: int) -> None:
        self._box.value = value
        library.uc_reg_write(self._handle, self._number, self._pointer)
