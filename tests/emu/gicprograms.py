"""Pieces of programs that use the interrupt controller, alike for GICv2 and GICv3; they spend x9 and x10."""

from __future__ import annotations

from typing import Final

from emu.memory import GICC, GICD, GICR
from tests.emu.programs import ISB, Part, ldr32, mov, mrs, msr, set_system, store32

SGI: Final = 5
TIMER_PPI: Final = 27
UART_SPI: Final = 33

IRQ_CLEAR: Final = 0xD503_42FF  # msr daifclr, #2
IRQ_SET: Final = 0xD503_42DF  # msr daifset, #2

_RD_BYTES: Final = 0x2_0000
_SGI_FRAME: Final = 0x1_0000


def _set(address: int, value: int) -> list[Part]:
    return [mov(9, address), mov(10, value), store32(10, 9)]


def distributor_on(version: int) -> list[Part]:
    """Enable the distributor, with the UART's interrupt going to the first vCPU."""
    word, bit = UART_SPI // 32 * 4, 1 << UART_SPI % 32
    common = _set(GICD.base + 0x100 + word, bit)
    if version == 2:
        return [_set(GICD.base, 1), _set(GICD.base + 0x800 + UART_SPI // 4 * 4, 0x0101_0101), common]
    return [_set(GICD.base, 2), _set(GICD.base + 0x80 + word, bit), common]


def interface_on(version: int, vcpu: int = 0) -> list[Part]:
    """Enable a vCPU's SGIs, PPIs and CPU interface; that vCPU has to do it."""
    if version == 2:
        return [_set(GICD.base + 0x100, 0xFFFF_FFFF), _set(GICC.base + 4, 0xF0), _set(GICC.base, 1)]
    frame = GICR.base + vcpu * _RD_BYTES
    return [
        _set(frame + 0x14, 0),
        _set(frame + _SGI_FRAME + 0x80, 0xFFFF_FFFF),
        _set(frame + _SGI_FRAME + 0x100, 0xFFFF_FFFF),
        set_system("ICC_PMR_EL1", 0xF0),
        set_system("ICC_IGRPEN1_EL1", 1),
        ISB,
    ]


def gic_on(version: int) -> list[Part]:
    """Enable all that the first vCPU needs."""
    return [distributor_on(version), interface_on(version)]


def acknowledges(version: int, rd: int) -> list[Part]:
    """Read the interrupt acknowledge register."""
    return [mov(9, GICC.base), ldr32(rd, 9, 0xC)] if version == 2 else [mrs(rd, "ICC_IAR1_EL1")]


def ends(version: int, rn: int) -> list[Part]:
    """Write the end of interrupt register."""
    return [mov(9, GICC.base), store32(rn, 9, 0x10)] if version == 2 else [msr("ICC_EOIR1_EL1", rn)]


def sends(version: int, targets: int, sgi: int = SGI) -> list[Part]:
    """Generate an SGI for the vCPUs that have a bit in `targets`."""
    if version == 2:
        return _set(GICD.base + 0xF00, targets << 16 | sgi)
    return set_system("ICC_SGI1R_EL1", sgi << 24 | targets)


def timer_after(ticks: int) -> list[Part]:
    """Let the virtual timer fire in so many ticks."""
    return [set_system("CNTV_TVAL_EL0", ticks), set_system("CNTV_CTL_EL0", 1)]


def timer_off() -> list[Part]:
    return set_system("CNTV_CTL_EL0", 0)
