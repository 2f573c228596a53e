"""An interrupt controller in a snapshot's header: the fields of emu/devices/gicv2.py or gicv3.py by name, read as hostile input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

import msgspec

from emu.devices import gicv2, gicv3
from emu.devices.gic_bank import PRIORITY_MASK, Bank
from emu.devices.gicv3_interface import CTLR_CBPR, CTLR_EOIMODE, CTLR_FIXED, Interface

if TYPE_CHECKING:
    from emu.interrupts import Controller

Word: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^0x[0-9a-f]{1,72}$")]  # a bit for each of 288 INTIDs
Bytes: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{2}){1,288}$")]
Router: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^0x[0-9a-f]{1,10}$")]
Byte: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=0xFF)]
Word32: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)]
Groups: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=3)]
BinaryPoint: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=7)]

_WORDS: Final = ("group", "enabled", "pending", "active", "level", "edge")
_SGIS: Final = 0xFFFF


class _Named(msgspec.Struct, forbid_unknown_fields=True):
    pass


class BankLine(_Named):
    group: Word
    enabled: Word
    pending: Word
    active: Word
    level: Word
    edge: Word
    priority: Bytes


class InterfaceLine(_Named):
    pmr: Byte
    ctlr: Word32
    enables: Groups
    bpr0: BinaryPoint
    bpr1: BinaryPoint
    ap0: Word32
    ap1: Word32


class CpuLine(_Named):
    bank: BankLine
    sources: Bytes
    ctlr: Word32
    priorities: InterfaceLine


class Gicv2Line(_Named, tag_field="version", tag=2):
    ctlr: Groups
    bank: BankLine
    targets: Bytes
    cpus: Annotated[list[CpuLine], msgspec.Meta(max_length=gicv2.MOST_VCPUS)]


class RedistributorLine(_Named):
    bank: BankLine
    waker: Annotated[int, msgspec.Meta(ge=0, le=7)]
    interface: InterfaceLine


class Gicv3Line(_Named, tag_field="version", tag=3):
    ctlr: Groups
    bank: BankLine
    router: Annotated[list[Router], msgspec.Meta(min_length=gicv3.INTIDS, max_length=gicv3.INTIDS)]
    redistributors: Annotated[list[RedistributorLine], msgspec.Meta(max_length=gicv3.MOST_VCPUS)]


ControllerLine = Gicv2Line | Gicv3Line


def version_of(line: ControllerLine | None) -> Literal[2, 3] | None:
    """Return which controller it is."""
    return None if line is None else 2 if isinstance(line, Gicv2Line) else 3


def line_of(controller: Controller | None) -> ControllerLine | None:
    """Return what a snapshot holds of a controller."""
    if controller is None:
        return None
    bank = _bank_line(controller.bank)
    if isinstance(controller, gicv2.Gicv2):
        cpus = [CpuLine(_bank_line(cpu.bank), cpu.sources.hex(), cpu.ctlr, _interface_line(cpu.priorities)) for cpu in controller.cpus]
        return Gicv2Line(controller.ctlr, bank, controller.targets.hex(), cpus)
    own = [RedistributorLine(_bank_line(each.bank), each.waker, _interface_line(each.interface)) for each in controller.redistributors]
    return Gicv3Line(controller.ctlr, bank, [hex(value) for value in controller.router], own)


def controller_of(line: ControllerLine | None, mpidrs: tuple[int, ...]) -> Controller | None:
    """Return the controller of a machine with these vCPUs; raise ValueError where it cannot be one's."""
    if line is None:
        return None
    if isinstance(line, Gicv2Line):
        _check(len(line.cpus) == len(mpidrs), "CPU interfaces")
        targets = _bytes(line.targets, gicv2.INTIDS)
        _check(not any(each >> len(mpidrs) for each in targets), "targets")
        return gicv2.Gicv2([_cpu(each, len(mpidrs)) for each in line.cpus], line.ctlr, _bank(line.bank, gicv2.Gicv2.new_bank()), targets)
    _check(len(line.redistributors) == len(mpidrs) <= gicv3.MOST_VCPUS, "redistributors")
    own = [_redistributor(each) for each in line.redistributors]
    router = [int(value, 16) for value in line.router]
    _check(not any(router[: gicv3.PRIVATE]) and not any(each & ~gicv3.ROUTER_MASK for each in router), "routers")
    return gicv3.Gicv3(mpidrs, line.ctlr, _bank(line.bank, gicv3.Gicv3.new_bank()), router, own)


def _check(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"its interrupt controller cannot have such {what}")


def _bytes(text: str, count: int) -> bytearray:
    _check(len(text) == 2 * count, "a list of bytes")
    return bytearray.fromhex(text)


def _bank_line(bank: Bank) -> BankLine:
    return BankLine(*(hex(getattr(bank, name)) for name in _WORDS), priority=bank.priority.hex())  # type: ignore[misc]


def _bank(line: BankLine, new: Bank) -> Bank:
    words = {name: int(getattr(line, name), 16) for name in _WORDS}
    _check(not any(word & ~new.implemented for word in words.values()), "interrupts")
    # An SGI is edge-triggered, in a GICv2 enabled as well, and has no input line.
    _check(not (words["level"] & _SGIS or new.edge & ~words["edge"] or new.enabled & ~words["enabled"]), "interrupts")
    priority = _bytes(line.priority, len(new.priority))
    _check(not any(each & ~PRIORITY_MASK for each in priority), "priorities")
    return Bank(new.implemented, priority=priority, **words)


def _interface_line(own: Interface) -> InterfaceLine:
    return InterfaceLine(own.pmr, own.ctlr, own.enables, own.bpr0, own.bpr1, own.ap0, own.ap1)


def _interface(line: InterfaceLine) -> Interface:
    own, new = Interface(line.pmr, line.ctlr, line.enables, line.bpr0, line.bpr1, line.ap0, line.ap1), Interface()
    _check(not own.pmr & ~PRIORITY_MASK and own.bpr0 >= new.bpr0 and own.bpr1 >= new.bpr1, "CPU interfaces")
    _check(own.ctlr & ~(CTLR_CBPR | CTLR_EOIMODE) == CTLR_FIXED, "CPU interfaces")
    return own


def _cpu(line: CpuLine, vcpus: int) -> gicv2.CpuInterface:
    new = gicv2.CpuInterface()
    bank, own = _bank(line.bank, new.bank), _interface(line.priorities)
    sources = _bytes(line.sources, len(new.sources))
    pending = sum(1 << sgi for sgi, senders in enumerate(sources) if senders)
    _check(not any(each >> vcpus for each in sources) and pending == bank.pending & _SGIS, "senders")
    # GICC_CTLR is a GICv2's own; of what a GICv3 keeps elsewhere it has the common binary point.
    common = CTLR_CBPR if line.ctlr & gicv2.CTLR_CBPR else 0
    _check(not line.ctlr & ~gicv2.CTLR_MASK and own.ctlr == CTLR_FIXED | common and not own.enables, "CPU interfaces")
    return gicv2.CpuInterface(bank, sources, line.ctlr, own)


def _redistributor(line: RedistributorLine) -> gicv3.Redistributor:
    _check(line.waker in (0, gicv3.WAKER_ASLEEP), "redistributors")
    return gicv3.Redistributor(_bank(line.bank, gicv3.Redistributor().bank), line.waker, _interface(line.interface))
