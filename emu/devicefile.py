"""The UART and the real-time clock in a snapshot's header: the fields of emu/devices/pl011.py and pl031.py by name."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, TypeAlias

import msgspec

from emu.devices.pl011 import Pl011
from emu.devices.pl031 import Pl031
from firmware.abi import MASK32

if TYPE_CHECKING:
    from emu.setup import Setup

Word32: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MASK32)]


class UartLine(msgspec.Struct, forbid_unknown_fields=True):
    rx: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{2}){0,16}$")]
    tx: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{2})*$")]
    ilpr: Annotated[int, msgspec.Meta(ge=0, le=0xFF)]
    ibrd: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
    fbrd: Annotated[int, msgspec.Meta(ge=0, le=0x3F)]
    lcr_h: Annotated[int, msgspec.Meta(ge=0, le=0xFF)]
    cr: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
    ifls: Annotated[int, msgspec.Meta(ge=0, le=0x3F)]
    imsc: Annotated[int, msgspec.Meta(ge=0, le=0x7FF)]
    ris: Annotated[int, msgspec.Meta(ge=0, le=0x7FF)]
    dmacr: Annotated[int, msgspec.Meta(ge=0, le=0x7)]


class RtcLine(msgspec.Struct, forbid_unknown_fields=True):
    offset: Word32
    mr: Word32
    lr: Word32
    imsc: Annotated[int, msgspec.Meta(ge=0, le=1)]
    ris: Annotated[int, msgspec.Meta(ge=0, le=1)]
    alarm_ns: Annotated[int, msgspec.Meta(ge=0)] | None


def uart_line(uart: Pl011) -> UartLine:
    """Return what a snapshot holds of a UART."""
    return UartLine(**{**dataclasses.asdict(uart), "rx": uart.rx.hex(), "tx": uart.tx.hex()})


def uart_of(line: UartLine) -> Pl011:
    """Return the UART."""
    return Pl011(**{**msgspec.structs.asdict(line), "rx": bytearray.fromhex(line.rx), "tx": bytearray.fromhex(line.tx)})


def rtc_line(rtc: Pl031) -> RtcLine:
    """Return what a snapshot holds of a clock."""
    return RtcLine(**dataclasses.asdict(rtc))


def rtc_of(line: RtcLine | None, setup: Setup) -> Pl031:
    """Return the clock; one as at power-on for a snapshot that says nothing of it."""
    return Pl031(setup.wall_clock_s) if line is None else Pl031(**msgspec.structs.asdict(line))
