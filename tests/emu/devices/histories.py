"""Histories of accesses to an interrupt controller, run by the same program here and on QEMU."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

from emu.memory import RAM_BASE, UART
from emu.outcome import ExitCode
from emu.registers import SystemRegister
from emu.setup import Choices
from tests import real
from tests.emu.programs import Bench, Label, Part, add, b, cbz, copy, ldr, ldr32, minus, mov, off, store, store8, store32, sub

TIMEOUT_S: Final = 30
READ: Final = RAM_BASE + 0x20_0000  # what was read, a word each
ACKNOWLEDGED: Final = RAM_BASE + 0x30_0000  # a stack

_AND_15: Final = 0x9240_0C00


class Access(NamedTuple):
    """One access, 32 bits of it: a read where there is no value.

    What an acknowledgement reads is kept until an end writes it, the last one first, as a kernel does; an end of nothing is left out.
    """

    where: int | SystemRegister
    value: int | None = None
    is_acknowledgement: bool = False
    is_end: bool = False


def program(accesses: Sequence[Access]) -> list[Part]:
    """Make the accesses, print what is read as eight letters each, and switch off."""
    body = [_access(number, each) for number, each in enumerate(accesses)]
    prints: list[Part] = [
        part for shift in range(28, -4, -4) for part in (_lsr(10, 22, shift), _AND_15 | 10 << 5 | 10, add(10, 10, ord("A")), store8(10, 9))
    ]
    loop: list[Part] = [Label("next"), copy(13, 23), minus(13, 13, 25), cbz(13, "end"), ldr32(22, 25), add(25, 25, 4), prints, b("next")]
    return [mov(23, READ), mov(24, ACKNOWLEDGED), body, mov(9, UART.base), mov(25, READ), loop, Label("end"), off()]


def _access(number: int, access: Access) -> list[Part]:
    after = f"after{number}"
    where = access.where
    if access.value is None and not access.is_end:
        reads: list[Part] = [_system(where, 22, 1 << 21)] if isinstance(where, tuple) else [mov(9, where), ldr32(22, 9)]
        keeps = [store(22, 24, 8), add(24, 24, 8)] if access.is_acknowledgement else []
        return [*reads, *keeps, store32(22, 23), add(23, 23, 4)]
    value: list[Part] = [mov(21, access.value or 0)]
    if access.is_end:
        value = [mov(13, ACKNOWLEDGED), minus(13, 13, 24), cbz(13, after), ldr(21, 24), sub(24, 24, 8)]
    writes: list[Part] = [_system(where, 21)] if isinstance(where, tuple) else [mov(9, where), store32(21, 9)]
    return [*value, *writes, Label(after)]


def _lsr(rd: int, rn: int, shift: int) -> int:
    return 0xD340_0000 | shift << 16 | 63 << 10 | rn << 5 | rd


def _system(register: SystemRegister, rt: int, reads: int = 0) -> int:
    op0, op1, crn, crm, op2 = register
    return 0xD500_0000 | reads | op0 << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5 | rt


def on_qemu(bench: Bench, accesses: Sequence[Access], gic: Literal[2, 3], smp: int) -> list[int]:
    """Return what is read on QEMU."""
    kernel: Path = bench.file(program(accesses))
    machine = ["-M", f"virt,gic-version={gic}", "-cpu", "cortex-a57", "-smp", str(smp), "-nic", "none", "-nographic"]
    command = [real.qemu(), *machine, "-kernel", str(kernel)]
    done = subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S)
    return _values(done.stdout)


def on_model(bench: Bench, accesses: Sequence[Access], gic: Literal[2, 3], smp: int) -> list[int]:
    """Return what is read here."""
    console = bytearray()
    machine = bench.machine(program(accesses), choices=Choices(mpidrs=tuple(range(smp))), gic=gic, output=console)
    assert machine.run() == (ExitCode.OK, "system off")
    return _values(bytes(console))


def _values(letters: bytes) -> list[int]:
    nibbles = "".join("0123456789abcdef"[letter - ord("A")] for letter in letters)
    return [int(nibbles[at : at + 8], 16) for at in range(0, len(nibbles), 8)]
