"""Arm semihosting for AArch64: what a bare-metal guest needs to print and to end with a code.

Source: Arm, "Semihosting for AArch32 and AArch64" (abi-aa, semihosting.rst): HLT #0xF000, operation in W0, parameter in X1,
result in X0, block fields of 8 bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from emu.engine import Engine
from emu.outcome import Ended, GuestCrash
from firmware.abi import MASK32, MASK64

HLT_SEMIHOSTING: Final = 0xD45E_0000

SYS_WRITEC: Final = 0x03
SYS_WRITE0: Final = 0x04
SYS_WRITE: Final = 0x05
SYS_EXIT: Final = 0x18
SYS_EXIT_EXTENDED: Final = 0x20

_APPLICATION_EXIT: Final = 0x2_0026
_OUTPUT_HANDLES: Final = (1, 2)
_LONGEST_STRING_BYTES: Final = 1 << 16
HIGHEST_GUEST_CODE: Final = 99


class Semihosting:
    """Serve one guest's semihosting calls; what it prints goes to `console`."""

    def __init__(self, engine: Engine, console: Callable[[bytes], None]) -> None:
        self._engine = engine
        self._console = console

    def call(self) -> None:
        """Serve the call the current vCPU is at, result in x0.

        Raises Ended with the guest's own exit code (0 to 99, larger ones become 99), or GuestCrash for an operation that is not
        served or a pointer that leads nowhere.
        """
        operation, parameter = self._engine.x[0].get() & MASK32, self._engine.x[1].get()
        if operation in (SYS_EXIT, SYS_EXIT_EXTENDED):
            reason, code = self._block(parameter, 2)
            # Any reason but ApplicationExit is a failure (QEMU semihosting/arm-compat-semi.c).
            own = min(code & MASK32, HIGHEST_GUEST_CODE) if reason == _APPLICATION_EXIT else 1
            raise Ended(own, f"the guest ended with exit code {own}")
        if operation == SYS_WRITEC:
            self._console(self._read(parameter, 1))
        elif operation == SYS_WRITE0:
            self._console(self._string(parameter))
        elif operation == SYS_WRITE:
            self._engine.x[0].set(self._write(*self._block(parameter, 3)) & MASK64)
        else:
            raise GuestCrash(f"semihosting operation {operation:#x} is not served; served: 0x3, 0x4, 0x5, 0x18, 0x20")

    def _write(self, handle: int, address: int, size_bytes: int) -> int:
        # Returns how many bytes were not written.
        if handle not in _OUTPUT_HANDLES or size_bytes > _LONGEST_STRING_BYTES:
            return size_bytes
        self._console(self._read(address, size_bytes))
        return 0

    def _block(self, address: int, fields: int) -> tuple[int, ...]:
        block = self._read(address, 8 * fields)
        return tuple(int.from_bytes(block[start : start + 8], "little") for start in range(0, 8 * fields, 8))

    def _string(self, address: int) -> bytes:
        text = bytearray()
        while len(text) < _LONGEST_STRING_BYTES:
            # To the end of the page at most, so that a string that ends before an unmapped page can be read.
            chunk = self._read(address + len(text), 0x1000 - (address + len(text)) % 0x1000)
            before, nul, _ = chunk.partition(b"\0")
            text += before
            if nul:
                return bytes(text)
        raise GuestCrash(f"semihosting string at {address:#x} does not end within {_LONGEST_STRING_BYTES} bytes")

    def _read(self, address: int, size_bytes: int) -> bytes:
        content = self._engine.read_virtual(address, size_bytes)
        if content is None:
            raise GuestCrash(f"semihosting parameter at {address:#x} cannot be read")
        return content
