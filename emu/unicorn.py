"""Unicorn by its C interface: the library, the numbers of its headers, an engine's handle and its contexts.

Unicorn's own Python binding is not used: with all that it imports it takes as long as QEMU takes to start. What is here has the
headers' names (unicorn/unicorn.h, unicorn/arm64.h), and a test holds the numbers against the binding's.
"""

from __future__ import annotations

import ctypes
import os
from importlib.util import find_spec
from typing import Any, Final

UC_ARCH_ARM64: Final = 2
UC_MODE_ARM: Final = 0

UC_CPU_ARM64_A57: Final = 0
UC_CPU_ARM64_A53: Final = 1
UC_CPU_ARM64_A72: Final = 2
UC_CPU_ARM64_MAX: Final = 3

UC_ERR_OK: Final = 0
UC_ERR_READ_UNMAPPED: Final = 6
UC_ERR_WRITE_UNMAPPED: Final = 7
UC_ERR_FETCH_UNMAPPED: Final = 8

UC_HOOK_INTR: Final = 1 << 0
UC_HOOK_INSN: Final = 1 << 1
UC_HOOK_BLOCK: Final = 1 << 3
UC_HOOK_MEM_INVALID: Final = 0x3F << 4

UC_PROT_READ: Final = 1
UC_PROT_WRITE: Final = 2
UC_PROT_ALL: Final = 7

UC_CTL_UC_USE_EXITS: Final = 4
UC_CTL_CPU_MODEL: Final = 7
UC_CTL_TB_REMOVE_CACHE: Final = 9
UC_CTL_TB_FLUSH: Final = 10
UC_CTL_TLB_FLUSH: Final = 11
UC_CTL_IO_WRITE: Final = 1

UC_ARM64_INS_MRS: Final = 1
UC_ARM64_INS_MSR: Final = 2

UC_ARM64_REG_X29: Final = 1
UC_ARM64_REG_X30: Final = 2
UC_ARM64_REG_SP: Final = 4
UC_ARM64_REG_X0: Final = 199
UC_ARM64_REG_V0: Final = 228
UC_ARM64_REG_PC: Final = 260
UC_ARM64_REG_PSTATE: Final = 265
UC_ARM64_REG_ELR_EL1: Final = 267
UC_ARM64_REG_SP_EL0: Final = 270
UC_ARM64_REG_SP_EL1: Final = 271
UC_ARM64_REG_ESR_EL1: Final = 277
UC_ARM64_REG_FAR_EL1: Final = 281
UC_ARM64_REG_VBAR_EL1: Final = 287
UC_ARM64_REG_CP_REG: Final = 290
UC_ARM64_REG_FPCR: Final = 291
UC_ARM64_REG_FPSR: Final = 292


def _library() -> str:
    package = find_spec("unicorn")
    for place in (package and package.submodule_search_locations) or ():
        path = f"{place}/lib/libunicorn.so.2"
        if os.path.exists(path):
            return path
    # Another system, or another way of installing: the binding knows.
    from unicorn.unicorn_py3.unicorn import uclib  # noqa: PLC0415

    return str(uclib._name)


library: Final = ctypes.PyDLL(_library())  # keeps the GIL: a callback is several times cheaper, and a slice is short
library.uc_strerror.restype = ctypes.c_char_p


def check(error: int) -> None:
    assert error == UC_ERR_OK, described(error)


def described(error: int) -> str:
    """Return the library's words for an error."""
    text: bytes = library.uc_strerror(ctypes.c_int(error))
    return text.decode("ascii")


def pointer(address: int) -> Any:
    """Return an address as an argument that is ready: of anything else ctypes makes such an object, at every call."""
    return ctypes.c_void_p.from_param(address)


def control(kind: int, arguments: int = 0) -> ctypes.c_int:
    """Return uc_ctl's number for writing a control that takes so many arguments."""
    return ctypes.c_int(kind | arguments << 26 | UC_CTL_IO_WRITE << 30)


class Context:
    """A CPU's registers, as the engine keeps them: `size_bytes` at `address`."""

    _free = library.uc_context_free  # not looked for when the interpreter ends

    def __init__(self, handle: Any) -> None:
        allocated = ctypes.c_void_p()
        check(library.uc_context_alloc(handle, ctypes.byref(allocated)))
        self.address = allocated.value or 0
        self.pointer = pointer(self.address)
        self.size_bytes = int(library.uc_context_size(handle))
        check(library.uc_context_save(handle, self.pointer))
        self._handle = handle

    def copy(self) -> Context:
        """Return another one like it."""
        other = Context(self._handle)
        other.become(self)
        return other

    def become(self, other: Context) -> None:
        """Take on what another one holds."""
        ctypes.memmove(self.address, other.address, self.size_bytes)

    def __del__(self) -> None:
        self._free(self.pointer)


class Uc:
    """An engine of one of the CPU models, which runs until it is stopped and not up to an address."""

    _close = library.uc_close

    def __init__(self, cpu: int) -> None:
        self.handle: Any = None
        opened = ctypes.c_void_p()
        check(library.uc_open(ctypes.c_int(UC_ARCH_ARM64), ctypes.c_int(UC_MODE_ARM), ctypes.byref(opened)))
        self.handle = pointer(opened.value or 0)
        check(library.uc_ctl(self.handle, control(UC_CTL_CPU_MODEL, 1), ctypes.c_int(cpu)))
        check(library.uc_ctl(self.handle, control(UC_CTL_UC_USE_EXITS, 1), ctypes.c_int(1)))

    def __del__(self) -> None:
        if self.handle:
            self._close(self.handle)
