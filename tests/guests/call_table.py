"""A guest made of a table of calls: it makes each one and prints what came back.

The program is machine code, so that no compiler is needed; each word has its disassembly beside it, which a test checks. It is a flat
binary, which QEMU and the emulator both place 0x8_0000 above the start of RAM. Every call prints one line of six words in hex:
x0 to x3, the sum of x4 to x17 (which were 4 to 17), and ESR_EL1 if the instruction was UNDEFINED, 0 if not.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

IMAGE_BASE: Final = 0x4008_0000
SECOND_ENTRY: Final = IMAGE_BASE + 0x400
REPORT: Final = IMAGE_BASE + 0x1000
UNTOUCHED: Final = sum(range(4, 18))

_VECTOR: Final = 0xA00  # VBAR_EL1 + 0x200: synchronous, from the current EL with SP_ELx
_HEADER: Final = 0xFF0  # offset of the table and number of its entries
_STUBS: Final = 0x1100
_RET: Final = 0xD65F_03C0
_ENTRY: Final = struct.Struct("<6Q")


# Capstone writes numbers above 9 in hex.
def _number(value: int) -> str:
    return f"{value:#x}" if value > 9 else str(value)


# x19 image, x20 next entry, x21 entries left, x22 UART, x24 REPORT, x25 stub, x26 delay, x28 ESR_EL1 of an UNDEFINED call.
Listing = tuple[tuple[int, str], ...]
MAIN: Final[Listing] = (
    (0x1000_0013, "adr x19, #0"),
    (0xD2A1_2016, "mov x22, #0x9000000"),
    (0x9120_0269, "add x9, x19, #0x800"),
    (0xD518_C009, "msr vbar_el1, x9"),
    (0xD503_3FDF, "isb"),
    (0x9140_0678, "add x24, x19, #1, lsl #12"),
    (0xF947_FA74, "ldr x20, [x19, #0xff0]"),
    (0xF947_FE75, "ldr x21, [x19, #0xff8]"),
    (0x8B14_0274, "add x20, x19, x20"),
    # 0x24: the next call
    (0xB400_0815, "cbz x21, #0x124"),
    (0xD100_06B5, "sub x21, x21, #1"),
    (0xA8C1_6A99, "ldp x25, x26, [x20], #0x10"),
    (0xA8C1_0680, "ldp x0, x1, [x20], #0x10"),
    (0xA8C1_0E82, "ldp x2, x3, [x20], #0x10"),
    *((0xD280_0000 | register << 5 | register, f"mov x{register}, #{_number(register)}") for register in range(4, 18)),
    (0xD280_001C, "mov x28, #0"),
    (0x8B19_0279, "add x25, x19, x25"),
    (0xD63F_0320, "blr x25"),
    *((0x8B00_0084 | register << 16, f"add x4, x4, x{register}") for register in range(5, 18)),
    (0xA908_0700, "stp x0, x1, [x24, #0x80]"),
    (0xA909_0F02, "stp x2, x3, [x24, #0x90]"),
    (0xA90A_7304, "stp x4, x28, [x24, #0xa0]"),
    (0x9102_0309, "add x9, x24, #0x80"),
    (0xD280_00CA, "mov x10, #6"),
    # 0xC4: the next word
    (0xF840_852B, "ldr x11, [x9], #8"),
    (0xD280_078C, "mov x12, #0x3c"),
    # 0xCC: the next digit
    (0x9ACC_256D, "lsr x13, x11, x12"),
    (0x9240_0DAD, "and x13, x13, #0xf"),
    (0xF100_29BF, "cmp x13, #0xa"),
    (0x9100_C1AE, "add x14, x13, #0x30"),
    (0x9101_5DAD, "add x13, x13, #0x57"),
    (0x9A8D_31CD, "csel x13, x14, x13, lo"),
    (0x9400_000C, "bl #0x114"),
    (0xF100_118C, "subs x12, x12, #4"),
    (0x54FF_FF0A, "b.ge #0xcc"),
    (0x5280_040D, "mov w13, #0x20"),
    (0x9400_0008, "bl #0x114"),
    (0xD100_054A, "sub x10, x10, #1"),
    (0xB5FF_FE4A, "cbnz x10, #0xc4"),
    (0x5280_014D, "mov w13, #0xa"),
    (0x9400_0004, "bl #0x114"),
    # 0x108: the delay
    (0xB4FF_F8FA, "cbz x26, #0x24"),
    (0xD100_075A, "sub x26, x26, #1"),
    (0x17FF_FFFE, "b #0x108"),
    # 0x114: print w13
    (0xB940_1ACE, "ldr w14, [x22, #0x18]"),
    (0x372F_FFEE, "tbnz w14, #5, #0x114"),
    (0xB900_02CD, "str w13, [x22]"),
    (_RET, "ret"),
    # 0x124: SYSTEM_OFF
    (0xD280_0100, "mov x0, #8"),
    (0xF2B0_8000, "movk x0, #0x8400, lsl #16"),
    (0xD400_0002, "hvc #0"),
    (0xD400_0003, "smc #0"),
    (0x17FF_FFFC, "b #0x124"),
)
# What a started CPU does: it writes down how it was started, counts, and goes off.
SECOND: Final[Listing] = (
    (0x1000_0009, "adr x9, #0x400"),
    (0xD110_0129, "sub x9, x9, #0x400"),
    (0x9140_0529, "add x9, x9, #1, lsl #12"),
    (0xD538_4241, "mrs x1, currentel"),
    (0xA900_0520, "stp x0, x1, [x9]"),
    (0xD53B_4220, "mrs x0, daif"),
    (0xD538_4201, "mrs x1, spsel"),
    (0xA901_0520, "stp x0, x1, [x9, #0x10]"),
    (0xD538_00A0, "mrs x0, mpidr_el1"),
    (0xD538_1001, "mrs x1, sctlr_el1"),
    (0xA902_0520, "stp x0, x1, [x9, #0x20]"),
    (0xF940_1920, "ldr x0, [x9, #0x30]"),
    (0x9100_0400, "add x0, x0, #1"),
    (0xF900_1920, "str x0, [x9, #0x30]"),
    (0xD280_0040, "mov x0, #2"),
    (0xF2B0_8000, "movk x0, #0x8400, lsl #16"),
    (0xD400_0002, "hvc #0"),
    (0xF900_1D20, "str x0, [x9, #0x38]"),
    (0x1400_0000, "b #0x448"),
)
# An UNDEFINED instruction is skipped, and x28 says what it was.
UNDEFINED: Final[Listing] = (
    (0xD538_521C, "mrs x28, esr_el1"),
    (0xD538_403B, "mrs x27, elr_el1"),
    (0x9100_137B, "add x27, x27, #4"),
    (0xD518_403B, "msr elr_el1, x27"),
    (0xD69F_03E0, "eret"),
)
# Instead of an instruction that calls: read 16 bytes at x1; or two calls with nothing between them, the first one's x0 in x3.
READ: Final[Listing] = ((0xA940_0420, "ldp x0, x1, [x1]"),)
THEN_AFFINITY_INFO: Final[Listing] = (
    (0xD400_0002, "hvc #0"),
    (0xAA00_03E3, "mov x3, x0"),
    (0xD280_0080, "mov x0, #4"),
    (0xF2B0_8000, "movk x0, #0x8400, lsl #16"),
    (0xD280_0002, "mov x2, #0"),
    (0xD400_0002, "hvc #0"),
)
TWICE: Final[Listing] = (
    (0xAA00_03FB, "mov x27, x0"),
    (0xD400_0002, "hvc #0"),
    (0xAA00_03FD, "mov x29, x0"),
    (0xAA1B_03E0, "mov x0, x27"),
    (0xD400_0002, "hvc #0"),
    (0xAA1D_03E3, "mov x3, x29"),
)
_HVC: Final[Listing] = ((0xD400_0002, "hvc #0"),)
LISTINGS: Final = {0x0: MAIN, 0x400: SECOND, _VECTOR: UNDEFINED}
SNIPPETS: Final = (READ, THEN_AFFINITY_INFO, TWICE)


def hvc(imm: int = 0) -> Listing:
    return ((0xD400_0002 | imm << 5, f"hvc #{_number(imm)}"),)


def smc(imm: int = 0) -> Listing:
    return ((0xD400_0003 | imm << 5, f"smc #{_number(imm)}"),)


@dataclass(frozen=True, slots=True)
class Call:
    """One entry of the table.

    x      x0 to x3 before the call; those left out are 0
    by     the instructions that make it
    delay  turns of a two-instruction loop after its line has been printed
    """

    x: tuple[int, ...]
    by: Listing = _HVC
    delay: int = 0

    def __str__(self) -> str:
        return f"{'; '.join(text for _, text in self.by)} with {', '.join(f'x{number}={value:#x}' for number, value in enumerate(self.x))}"


def image(calls: Sequence[Call]) -> bytes:
    """Build the guest that makes these calls and then powers off."""
    stubs: dict[Listing, int] = {}
    code = bytearray(_STUBS)
    for offset, listing in LISTINGS.items():
        _place(code, offset, listing)
    for listing in dict.fromkeys(call.by for call in calls):
        stubs[listing] = len(code)
        _place(code, len(code), (*listing, (_RET, "ret")))
    code += bytes(-len(code) % 8)
    struct.pack_into("<2Q", code, _HEADER, len(code), len(calls))
    for call in calls:
        code += _ENTRY.pack(stubs[call.by], call.delay, *call.x, *[0] * (4 - len(call.x)))
    return bytes(code)


def _place(code: bytearray, offset: int, listing: Listing) -> None:
    words = struct.pack(f"<{len(listing)}I", *(word for word, _ in listing))
    code[offset : offset + len(words)] = words
