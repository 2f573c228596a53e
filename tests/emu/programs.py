"""Tiny AArch64 programs for tests: instruction words by name, labels, and the machine that runs them.

1. A program is a flat image at TEXT, where `-kernel` puts one; x0 holds the device tree's address at its start.
2. A part is a word, a list of parts, a label (`Label`), or a branch to one; `flat` puts them together.
3. `call` uses x0 to x3 as the standard does, everything else here x9 to x15; results are kept in x19 to x28.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from emu.machine import Machine
from emu.memory import RAM_BASE, UART
from emu.outcome import Outcome
from emu.setup import Choices, Setup, make

TEXT: Final = RAM_BASE + 0x8_0000
VECTORS: Final = TEXT + 0x1_0000
SCRATCH: Final = TEXT + 0x2_0000  # a page that programs write to
STACK: Final = TEXT + 0x3_0000
NOWHERE: Final = 0x3000_0000  # an address with nothing behind it

SP: Final = 31
XZR: Final = 31


@dataclass(frozen=True, slots=True)
class Label:
    """A place in a program."""

    name: str


@dataclass(frozen=True, slots=True)
class Reference:
    """A word that depends on how far away a label is, in bytes."""

    name: str
    encode: Callable[[int], int]


@dataclass(frozen=True, slots=True)
class At:
    """Go on at an offset from the start, in bytes; the gap is filled with zeroes, which are undefined instructions."""

    offset: int


Part = int | Label | Reference | At | Sequence["Part"]


def flat(*parts: Part) -> bytes:
    """Put a program together."""
    words: list[int | Reference] = []
    labels: dict[str, int] = {}
    for part in _leaves(parts):
        if isinstance(part, At):
            assert part.offset >= 4 * len(words), part
            words += [0] * (part.offset // 4 - len(words))
        elif isinstance(part, Label):
            assert part.name not in labels, part
            labels[part.name] = 4 * len(words)
        else:
            words.append(part)
    return b"".join(
        (word if isinstance(word, int) else word.encode(labels[word.name] - 4 * index)).to_bytes(4, "little")
        for index, word in enumerate(words)
    )


def _leaves(parts: Iterable[Part]) -> Iterable[int | Label | Reference | At]:
    for part in parts:
        if isinstance(part, int | Label | Reference | At):
            yield part
        else:
            yield from _leaves(part)


# ---- instructions

NOP: Final = 0xD503_201F
YIELD: Final = 0xD503_203F
WFE: Final = 0xD503_205F
WFI: Final = 0xD503_207F
SEV: Final = 0xD503_209F
SEVL: Final = 0xD503_20BF
ISB: Final = 0xD503_3FDF
DSB: Final = 0xD503_3F9F
ERET: Final = 0xD69F_03E0
RET: Final = 0xD65F_03C0
UDF: Final = 0x0000_0000
HLT_SEMIHOSTING: Final = 0xD45E_0000
DAIF_CLEAR_ALL: Final = 0xD503_4FFF  # msr daifclr, #0xf
DAIF_SET_ALL: Final = 0xD503_4FDF
SPSEL_0: Final = 0xD500_40BF
SPSEL_1: Final = 0xD500_41BF


def hvc(imm: int = 0) -> int:
    return 0xD400_0002 | imm << 5


def smc(imm: int = 0) -> int:
    return 0xD400_0003 | imm << 5


def svc(imm: int = 0) -> int:
    return 0xD400_0001 | imm << 5


def brk(imm: int = 0) -> int:
    return 0xD420_0000 | imm << 5


def hlt(imm: int) -> int:
    return 0xD440_0000 | imm << 5


def movz(rd: int, imm16: int, shift: int = 0) -> int:
    return 0xD280_0000 | shift // 16 << 21 | imm16 << 5 | rd


def movk(rd: int, imm16: int, shift: int = 0) -> int:
    return 0xF280_0000 | shift // 16 << 21 | imm16 << 5 | rd


def mov(rd: int, value: int) -> list[Part]:
    """Load a 64-bit constant; always four words, so that programs differ in nothing but the value."""
    return [movz(rd, value & 0xFFFF), *(movk(rd, value >> shift & 0xFFFF, shift) for shift in (16, 32, 48))]


def copy(rd: int, rn: int) -> int:
    return 0xAA00_03E0 | rn << 16 | rd


def set_sp(rn: int) -> int:
    """Encode MOV SP, Xn."""
    return 0x9100_0000 | rn << 5 | SP


def get_sp(rd: int) -> int:
    """Encode MOV Xd, SP."""
    return 0x9100_0000 | SP << 5 | rd


def add(rd: int, rn: int, imm12: int) -> int:
    return 0x9100_0000 | imm12 << 10 | rn << 5 | rd


def sub(rd: int, rn: int, imm12: int) -> int:
    return 0xD100_0000 | imm12 << 10 | rn << 5 | rd


def subs(rd: int, rn: int, imm12: int) -> int:
    return 0xF100_0000 | imm12 << 10 | rn << 5 | rd


def minus(rd: int, rn: int, rm: int) -> int:
    return 0xCB00_0000 | rm << 16 | rn << 5 | rd


def ldr(rt: int, rn: int, offset: int = 0) -> int:
    return 0xF940_0000 | offset // 8 << 10 | rn << 5 | rt


def store(rt: int, rn: int, offset: int = 0) -> int:
    return 0xF900_0000 | offset // 8 << 10 | rn << 5 | rt


def ldr32(rt: int, rn: int, offset: int = 0) -> int:
    return 0xB940_0000 | offset // 4 << 10 | rn << 5 | rt


def store32(rt: int, rn: int, offset: int = 0) -> int:
    return 0xB900_0000 | offset // 4 << 10 | rn << 5 | rt


def store8(rt: int, rn: int, offset: int = 0) -> int:
    return 0x3900_0000 | offset << 10 | rn << 5 | rt


def br(rn: int) -> int:
    return 0xD61F_0000 | rn << 5


def _branch(encoding: int, shift: int, bits: int, distance: int) -> int:
    return encoding | (distance // 4 & (1 << bits) - 1) << shift


def b(name: str) -> Reference:
    return Reference(name, lambda distance: _branch(0x1400_0000, 0, 26, distance))


def cbz(rt: int, name: str) -> Reference:
    return Reference(name, lambda distance: _branch(0xB400_0000 | rt, 5, 19, distance))


def cbnz(rt: int, name: str) -> Reference:
    return Reference(name, lambda distance: _branch(0xB500_0000 | rt, 5, 19, distance))


def tbz(rt: int, bit: int, name: str) -> Reference:
    return Reference(name, lambda distance: _branch(0x3600_0000 | bit << 19 | rt, 5, 14, distance))


def tbnz(rt: int, bit: int, name: str) -> Reference:
    return Reference(name, lambda distance: _branch(0x3700_0000 | bit << 19 | rt, 5, 14, distance))


def b_ne(name: str) -> Reference:
    return Reference(name, lambda distance: _branch(0x5400_0001, 5, 19, distance))


def b_lo(name: str) -> Reference:
    return Reference(name, lambda distance: _branch(0x5400_0003, 5, 19, distance))


def adr(rd: int, name: str) -> Reference:
    return Reference(name, lambda distance: 0x1000_0000 | (distance & 3) << 29 | _branch(0, 5, 19, distance) | rd)


B_SELF: Final = 0x1400_0000  # b .


# System registers by the name of the Arm ARM: op0, op1, CRn, CRm, op2.
SYSTEM_REGISTERS: Final = {
    "MPIDR_EL1": (3, 0, 0, 0, 5),
    "ID_AA64PFR0_EL1": (3, 0, 0, 4, 0),
    "SCTLR_EL1": (3, 0, 1, 0, 0),
    "TTBR0_EL1": (3, 0, 2, 0, 0),
    "TCR_EL1": (3, 0, 2, 0, 2),
    "MAIR_EL1": (3, 0, 10, 2, 0),
    "APIAKEYLO_EL1": (3, 0, 2, 1, 0),
    "APIAKEYHI_EL1": (3, 0, 2, 1, 1),
    "SPSR_EL1": (3, 0, 4, 0, 0),
    "ELR_EL1": (3, 0, 4, 0, 1),
    "SP_EL0": (3, 0, 4, 1, 0),
    "CURRENTEL": (3, 0, 4, 2, 2),
    "ICC_PMR_EL1": (3, 0, 4, 6, 0),
    "ESR_EL1": (3, 0, 5, 2, 0),
    "FAR_EL1": (3, 0, 6, 0, 0),
    "VBAR_EL1": (3, 0, 12, 0, 0),
    "ICC_AP1R1_EL1": (3, 0, 12, 9, 1),
    "ICC_SGI1R_EL1": (3, 0, 12, 11, 5),
    "ICC_IAR1_EL1": (3, 0, 12, 12, 0),
    "ICC_EOIR1_EL1": (3, 0, 12, 12, 1),
    "ICC_BPR1_EL1": (3, 0, 12, 12, 3),
    "ICC_CTLR_EL1": (3, 0, 12, 12, 4),
    "ICC_SRE_EL1": (3, 0, 12, 12, 5),
    "ICC_IGRPEN1_EL1": (3, 0, 12, 12, 7),
    "ICC_SRE_EL2": (3, 4, 12, 9, 5),
    "CNTKCTL_EL1": (3, 0, 14, 1, 0),
    "DAIF": (3, 3, 4, 2, 1),
    "TPIDR_EL0": (3, 3, 13, 0, 2),
    "TPIDR_EL1": (3, 0, 13, 0, 4),
    "CNTFRQ_EL0": (3, 3, 14, 0, 0),
    "CNTPCT_EL0": (3, 3, 14, 0, 1),
    "CNTVCT_EL0": (3, 3, 14, 0, 2),
    "CNTP_TVAL_EL0": (3, 3, 14, 2, 0),
    "CNTP_CTL_EL0": (3, 3, 14, 2, 1),
    "CNTP_CVAL_EL0": (3, 3, 14, 2, 2),
    "CNTV_TVAL_EL0": (3, 3, 14, 3, 0),
    "CNTV_CTL_EL0": (3, 3, 14, 3, 1),
    "CNTV_CVAL_EL0": (3, 3, 14, 3, 2),
}


def _system(name: str) -> int:
    op0, op1, crn, crm, op2 = SYSTEM_REGISTERS[name]
    return op0 << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5


def mrs(rt: int, name: str) -> int:
    return 0xD520_0000 | _system(name) | rt


def msr(name: str, rt: int) -> int:
    return 0xD500_0000 | _system(name) | rt


def set_system(name: str, value: int) -> list[Part]:
    """Write a constant to a system register; spends x9."""
    return [*mov(9, value), msr(name, 9)]


# ---- pieces of programs

PSCI_VERSION: Final = 0x8400_0000
CPU_SUSPEND: Final = 0xC400_0001
CPU_OFF: Final = 0x8400_0002
CPU_ON: Final = 0xC400_0003
AFFINITY_INFO: Final = 0xC400_0004
SYSTEM_OFF: Final = 0x8400_0008
SYSTEM_RESET: Final = 0x8400_0009
PSCI_FEATURES: Final = 0x8400_000A
SYSTEM_SUSPEND: Final = 0xC400_000E
SYSTEM_RESET2: Final = 0xC400_0012
PV_TIME_ST: Final = 0xC500_0021


def call(fid: int, *args: int, conduit: int = hvc()) -> list[Part]:
    """Call the firmware with constant arguments from x1 on; every other argument register is zero."""
    values = (fid, *args, 0, 0, 0)[:4]
    return [*(mov(number, value) for number, value in enumerate(values)), conduit]


def call_at(fid: int, first: int, name: str, last: int = 0, conduit: int = hvc()) -> list[Part]:
    """Call with (first, address of a label, last), as CPU_ON and CPU_SUSPEND want it."""
    return [*mov(0, fid), *mov(1, first), adr(2, name), *mov(3, last), conduit]


def off() -> list[Part]:
    return call(SYSTEM_OFF)


def exits(code: int, reason: int = 0x2_0026) -> list[Part]:
    """End through semihosting; works without any firmware."""
    return [mov(9, SCRATCH), mov(10, reason), store(10, 9), mov(10, code), store(10, 9, 8), mov(0, 0x18), copy(1, 9), HLT_SEMIHOSTING]


def exits_with(register: int) -> list[Part]:
    """End through semihosting with a code that the program has worked out."""
    return [mov(9, SCRATCH), mov(10, 0x2_0026), store(10, 9), store(register, 9, 8), mov(0, 0x18), copy(1, 9), HLT_SEMIHOSTING]


def prints(text: str) -> list[Part]:
    """Write characters to the UART."""
    return [mov(9, UART.base), *([movz(10, ord(character)), store8(10, 9)] for character in text)]


def vectors_here() -> list[Part]:
    """Point VBAR_EL1 at VECTORS."""
    return set_system("VBAR_EL1", VECTORS)


AT_VECTORS: Final = At(VECTORS - TEXT)


def vector(offset: int) -> At:
    """Go on at an entry of the vector table."""
    return At(VECTORS - TEXT + offset)


def keeps_exception() -> list[Part]:
    """Keep ESR, ELR, SPSR and FAR in x19 to x22 and the vector's own stack pointer in x23; end with 7."""
    return [mrs(19, "ESR_EL1"), mrs(20, "ELR_EL1"), mrs(21, "SPSR_EL1"), mrs(22, "FAR_EL1"), get_sp(23), *exits(7)]


def skips() -> list[Part]:
    """Return from an exception behind the instruction that took it; spends x9."""
    return [mrs(9, "ELR_EL1"), add(9, 9, 4), msr("ELR_EL1", 9), ERET]


def to_el(pstate: int, name: str) -> list[Part]:
    """Return from an exception into a label with a given PSTATE."""
    return [adr(9, name), msr("ELR_EL1", 9), *set_system("SPSR_EL1", pstate), ERET]


# ---- running


class Bench:
    """Runs programs in a folder of the test's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def file(self, *parts: Part, name: str = "program.bin") -> Path:
        """Write a program and return its path."""
        path = self._folder / name
        path.write_bytes(flat(*parts))
        return path

    def setup(self, *parts: Part, choices: Choices | None = None, **changes: Any) -> Setup:
        """Set up a machine for a program, without an interrupt controller unless one is asked for."""
        return dataclasses.replace(make(choices or Choices()), **{"kernel": self.file(*parts), "gic": None, **changes})

    def machine(self, *parts: Part, choices: Choices | None = None, output: bytearray | None = None, **changes: Any) -> Machine:
        """Build the machine for a program, with a limit so that nothing hangs."""
        changes.setdefault("max_insns", 5_000_000)
        return Machine(self.setup(*parts, choices=choices, **changes), output=(bytearray() if output is None else output).extend)

    def run(self, *parts: Part, choices: Choices | None = None, **changes: Any) -> tuple[Outcome, Machine]:
        """Run a program to its end."""
        machine = self.machine(*parts, choices=choices, **changes)
        return machine.run(), machine


def kept(machine: Machine) -> tuple[int, ...]:
    """Return x19 to x28 of the vCPU that ran last."""
    return tuple(machine.engine.x[number].get() for number in range(19, 29))


def word_at(machine: Machine, address: int, size_bytes: int = 8) -> int:
    """Return a little-endian number from guest memory."""
    content = machine.memory.read(address, size_bytes)
    assert content is not None
    return int.from_bytes(content, "little")
