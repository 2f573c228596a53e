"""A whole machine in one file: `psci-emu snapshot save`, and back.

The file: the line `psci-emu snapshot`; the header's length, 8 bytes little-endian; the header, JSON, its fields by name; a zlib stream;
the SHA-256 of all before it. The stream is what the loader placed, segment by segment, and then every page that is not as the loader
left it. Schema 1; a later one gets a function that turns the earlier header into its own.

1. The file is hostile. The checksum tells damage; that the rest means something is checked field by field, and a field that is not
   known is refused by name.
2. Nothing is allocated that the header merely promises.
"""

from __future__ import annotations

import hashlib
import itertools
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import msgspec

from emu import architecture, tracefile
from emu.announcement import Announcement
from emu.devicefile import RtcLine, UartLine, rtc_line, rtc_of, uart_line, uart_of
from emu.engine import CPU_MODELS
from emu.files import replace
from emu.gicfile import ControllerLine, controller_of, line_of, version_of
from emu.loader import Boot, Kind, Segment, read_file
from emu.machine import Machine
from emu.memory import FLASH, MAX_RAM_BYTES, MIN_RAM_BYTES, PAGE_BYTES, PVTIME, RAM_BASE, GiB, MiB, Region, ram
from emu.setup import Setup
from emu.state import ConsoleState, MachineState, VcpuState, capture
from emu.tracefile import EntryLine, FirmwareLine, Header, Hex, Index, Time
from emu.vcpu import Wait
from firmware.abi import PSCI_0_1, PSCI_VERSIONS, Version
from firmware.errors import InputError, UserError
from firmware.host import Config
from firmware.trap import EntryState, SystemEvent, SystemEventType

_MAGIC: Final = b"psci-emu snapshot\n"
_SCHEMA: Final = 1
_LENGTH_BYTES: Final = 8
_DIGEST_BYTES: Final = 32
_MOST_BYTES: Final = 8 * GiB
_MOST_HEADER_BYTES: Final = 64 * MiB
# What a stream may unpack to: a page of almost nothing packs a thousandfold, whole machines tenfold.
_FREELY_UNPACKED_BYTES: Final = 64 * MiB
_MOST_TIMES: Final = 100
_CHUNK_BYTES: Final = 1 * MiB

_Vector: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^0x[0-9a-f]{1,32}$")]
_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=-1)]
_Said: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[ -~]{0,200}\Z")]
_Word: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]
_RandomLine: TypeAlias = tuple[int, Annotated[list[_Word], msgspec.Meta(min_length=625, max_length=625)], None]


class _Named(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    pass


class VcpuLine(_Named):
    registers: dict[str, _Vector]
    wait: str
    virtual: tuple[Hex, Hex]
    physical: tuple[Hex, Hex]
    resume: EntryLine | None
    stolen_at: Hex | None
    stolen_ns: Time
    ready_ns: Time


class SegmentLine(_Named):
    address: Hex
    size_bytes: Time
    stored_bytes: Time


class PagesLine(_Named):
    address: Hex
    pages: Annotated[int, msgspec.Meta(ge=1)]


class SnapshotLine(_Named):
    """The header.

    host_is  where earlier files have what is the configuration's now
    asked    earlier files do not say; a VM whose vCPUs lack PSCI_0_2 was asked for 0.1 all the same
    """

    schema: int
    config: Header
    cpu: str
    psci: bool
    method: str
    no_reboot: bool
    kind: str
    entry: tuple[Hex, Hex]
    dtb: tuple[Hex, Hex]
    initrd: tuple[Hex, Hex] | None
    segments: Annotated[list[SegmentLine], msgspec.Meta(max_length=64)]
    firmware: FirmwareLine
    now_ns: Time
    traps: Time
    instructions: Time
    seen: tuple[_Count, _Count, Time]
    last: Annotated[int, msgspec.Meta(ge=-1, lt=512)]
    started: Annotated[list[Index], msgspec.Meta(max_length=512)]
    schedule: _RandomLine | None
    numbers: _RandomLine | None
    vcpus: Annotated[list[VcpuLine], msgspec.Meta(max_length=512)]
    current: Index
    uart: UartLine
    kept: str
    printed_bytes: Time
    entered: dict[str, tuple[Hex, str]]
    system_event: tuple[str, Time] | None
    pages: list[PagesLine]
    gic: ControllerLine | None = None
    rtc: RtcLine | None = None
    asked: tuple[int, int] | None = None
    host_is: str | None = None
    spun: tuple[Time, Time] = (0, 0)
    announced: tuple[Annotated[str, msgspec.Meta(max_length=1024)], _Said | None, _Said | None, bool] = ("", None, None, False)


_decoder: Final = msgspec.json.Decoder(SnapshotLine)


# ---- writing


def parts(setup: Setup, boot: Boot, state: MachineState) -> Iterator[bytes]:
    """Yield a snapshot's file, part by part."""
    runs = list(_runs(state.pages))
    header = msgspec.json.encode(_header(setup, boot, state, runs))
    stored = sum(len(segment.content) for segment in boot.segments) + len(state.pages) * PAGE_BYTES
    body = _packed(boot, runs, 6)
    if stored > _most_unpacked(len(body)):
        body = _packed(boot, runs, 0)
    digest = hashlib.sha256()
    for part in (_MAGIC, len(header).to_bytes(_LENGTH_BYTES, "little"), header, body):
        digest.update(part)
        yield part
    yield digest.digest()


def _packed(boot: Boot, runs: list[tuple[int, list[bytes]]], level: int) -> bytes:
    stream = zlib.compressobj(level)
    packed = [stream.compress(bytes(segment.content)) for segment in boot.segments]
    packed += [stream.compress(page) for _, pages in runs for page in pages]
    return b"".join([*packed, stream.flush()])


def _most_unpacked(packed_bytes: int) -> int:
    return _FREELY_UNPACKED_BYTES + packed_bytes * _MOST_TIMES


def _runs(pages: dict[int, bytes]) -> Iterator[tuple[int, list[bytes]]]:
    run: list[bytes] = []
    start = 0
    for address in sorted(pages):
        if run and address != start + len(run) * PAGE_BYTES:
            yield start, run
            run = []
        if not run:
            start = address
        run.append(pages[address])
    if run:
        yield start, run


def _header(setup: Setup, boot: Boot, state: MachineState, runs: list[tuple[int, list[bytes]]]) -> SnapshotLine:
    return SnapshotLine(
        schema=_SCHEMA,
        config=tracefile.header(setup.config, setup.seed, b""),
        cpu=setup.cpu,
        psci=setup.psci,
        method=setup.method,
        no_reboot=setup.no_reboot,
        kind=boot.kind.name,
        entry=(hex(boot.pc), hex(boot.x0)),
        dtb=_region_line(boot.dtb),
        initrd=None if boot.initrd is None else _region_line(boot.initrd),
        segments=[
            SegmentLine(address=hex(each.address), size_bytes=each.size_bytes, stored_bytes=len(each.content)) for each in boot.segments
        ],
        firmware=tracefile.firmware_line(state.firmware),
        now_ns=state.now_ns,
        traps=state.traps,
        instructions=state.instructions,
        seen=(*state.seen[0], state.seen[1]),
        last=state.last,
        started=list(state.started),
        schedule=_random_line(state.schedule),
        numbers=_random_line(state.numbers),
        vcpus=[_vcpu_line(vcpu) for vcpu in state.vcpus],
        current=state.current,
        uart=uart_line(state.console.uart),
        kept=state.console.kept.hex(),
        printed_bytes=state.console.printed_bytes,
        entered={str(vcpu): (hex(vector), why) for vcpu, (vector, why) in state.entered.items()},
        system_event=None if state.system_event is None else (state.system_event.type.name, state.system_event.flags),
        gic=line_of(state.controller),
        rtc=rtc_line(state.rtc),
        asked=None if setup.asked is None else (setup.asked.major, setup.asked.minor),
        spun=state.spun,
        announced=(state.announced.line.hex(), state.announced.panic, state.announced.oops, state.announced.is_end),
        pages=[PagesLine(address=hex(address), pages=len(pages)) for address, pages in runs],
    )


def _region_line(region: Region) -> tuple[str, str]:
    return hex(region.base), hex(region.size_bytes)


def _random_line(state: tuple[Any, ...] | None) -> Any:
    return None if state is None else (state[0], list(state[1]), state[2])


def _vcpu_line(vcpu: VcpuState) -> VcpuLine:
    return VcpuLine(
        registers={name: hex(value) for name, value in vcpu.registers.items()},
        wait=vcpu.wait.name,
        virtual=(hex(vcpu.virtual[0]), hex(vcpu.virtual[1])),
        physical=(hex(vcpu.physical[0]), hex(vcpu.physical[1])),
        resume=tracefile.entry_line(vcpu.resume),
        stolen_at=None if vcpu.stolen_at is None else hex(vcpu.stolen_at),
        stolen_ns=vcpu.stolen_ns,
        ready_ns=vcpu.ready_ns,
    )


# ---- reading


class Snapshot:
    """A snapshot that was read: the setup of its machine, which has what the loader placed, and its state."""

    def __init__(self, setup: Setup, state: MachineState) -> None:
        self.setup = setup
        self.state = state

    def save(self, path: str | Path) -> None:
        """Write the file, whole or not at all; raise UserError where that cannot be."""
        assert self.setup.boot is not None
        replace(Path(path), parts(self.setup, self.setup.boot, self.state))


def take(machine: Machine) -> Snapshot:
    """Return a snapshot of a machine that is between two turns."""
    return Snapshot(machine.setup_as_it_is, capture(machine))


def read(path: Path) -> Snapshot:
    """Read a snapshot; raise InputError, in one sentence, for a file that is none."""
    content = read_file(path, _MOST_BYTES).content
    head = len(_MAGIC) + _LENGTH_BYTES
    if content[: len(_MAGIC)] != _MAGIC:
        raise InputError(f"{path} is not a snapshot")
    if len(content) < head + _DIGEST_BYTES or hashlib.sha256(memoryview(content)[:-_DIGEST_BYTES]).digest() != content[-_DIGEST_BYTES:]:
        raise InputError(f"{path} is damaged: its checksum is not that of its content")
    length = int.from_bytes(content[len(_MAGIC) : head], "little")
    if length > min(_MOST_HEADER_BYTES, len(content) - head - _DIGEST_BYTES):
        raise InputError(f"{path} is not a snapshot: its header does not fit")
    try:
        line = _decoder.decode(content[head : head + length])
        if line.schema != _SCHEMA:
            raise ValueError(f"it has schema {line.schema}; {_SCHEMA} is read")
        return _snapshot(line, content[head + length : -_DIGEST_BYTES])
    except (UserError, msgspec.DecodeError, ValueError, KeyError, OverflowError, RecursionError) as error:
        raise InputError(f"{path} cannot be used: {error}") from None


def _snapshot(line: SnapshotLine, body: bytes) -> Snapshot:
    config = tracefile.config_of(line.config)
    tracefile.check_host(config, line.config.host_is if line.host_is is None else line.host_is)
    vcpus = len(config.mpidrs)
    base, ram_bytes = config.ram
    if base != RAM_BASE or not MIN_RAM_BYTES <= ram_bytes <= MAX_RAM_BYTES or ram_bytes % PAGE_BYTES:
        raise ValueError(f"there is no machine with RAM at {base:#x}, {ram_bytes:#x} bytes")
    if line.cpu not in CPU_MODELS or line.method not in ("hvc", "smc"):
        raise ValueError(f"there is no CPU model {line.cpu!r}, or no conduit {line.method!r}")
    if len(line.vcpus) != vcpus or max([line.current, line.last, *line.started]) >= vcpus:
        raise ValueError(f"it names CPUs beyond the {vcpus} it has")
    kind = Kind[line.kind]
    regions = [ram(ram_bytes), PVTIME] + ([FLASH] if kind is Kind.BIOS else [])
    segments, pages = _memory(line, body, regions)
    entry, x0 = (int(value, 16) for value in line.entry)
    initrd = None if line.initrd is None else _region_of(line.initrd)
    dtb = _region_of(line.dtb)
    if dtb not in [segment.region for segment in segments]:
        raise ValueError("it has no device tree where it says")
    boot = Boot(kind, segments, entry, x0, dtb, initrd, None)
    setup = Setup(
        config=config,
        asked=_asked(line, config),
        boot=boot,
        cpu=line.cpu,
        psci=line.psci,
        method=line.method,  # type: ignore[arg-type]
        no_reboot=line.no_reboot,
        gic=version_of(line.gic),
        ram_bytes=ram_bytes,
        seed=line.config.seed,
    )
    return Snapshot(setup, _state(line, setup, pages))


def _asked(line: SnapshotLine, config: Config) -> Version | None:
    if line.asked is None:
        return None if config.psci_0_2 else PSCI_0_1
    if line.asked not in PSCI_VERSIONS:
        raise ValueError(f"its user asked for PSCI {Version(*line.asked)}, which does not exist")
    return Version(*line.asked)


def _memory(line: SnapshotLine, body: bytes, regions: list[Region]) -> tuple[tuple[Segment, ...], dict[int, bytes]]:
    taken: list[Region] = []
    for each in line.segments:
        region = Region(int(each.address, 16), each.size_bytes)
        if each.stored_bytes > each.size_bytes or not any(known.contains(region.base, region.size_bytes) for known in regions):
            raise ValueError(f"its segment at {region.base:#x} is not in memory")
        taken.append(region)
    ranges = [Region(int(each.address, 16), each.pages * PAGE_BYTES) for each in line.pages]
    for region in ranges:
        if region.base % PAGE_BYTES or not any(known.contains(region.base, region.size_bytes) for known in regions):
            raise ValueError(f"its pages at {region.base:#x} are not in memory")
    if any(a.end > b.base for a, b in itertools.pairwise(ranges)):
        raise ValueError("its pages are not in order")
    content = _unpacked(body, sum(each.stored_bytes for each in line.segments) + sum(region.size_bytes for region in ranges))
    segments, offset = [], 0
    for each, region in zip(line.segments, taken, strict=True):
        segments.append(Segment(region.base, bytes(content[offset : offset + each.stored_bytes]), region.size_bytes))
        offset += each.stored_bytes
    pages = {}
    for region in ranges:
        for address in range(region.base, region.end, PAGE_BYTES):
            pages[address] = bytes(content[offset : offset + PAGE_BYTES])
            offset += PAGE_BYTES
    return tuple(segments), pages


def _unpacked(body: bytes, expected_bytes: int) -> memoryview:
    if expected_bytes > _most_unpacked(len(body)):
        raise ValueError(f"it says that {len(body)} bytes unpack to {expected_bytes}")
    stream, content = zlib.decompressobj(), bytearray()
    try:
        while not stream.eof and len(content) <= expected_bytes:
            more = stream.decompress(body, _CHUNK_BYTES)
            body = stream.unconsumed_tail
            if not more and not body:
                break
            content += more
    except zlib.error as error:
        raise ValueError(f"its memory cannot be unpacked: {error}") from None
    if len(content) != expected_bytes or not stream.eof or stream.unused_data:
        raise ValueError(f"its memory is not the {expected_bytes} bytes it says")
    return memoryview(content)


def _region_of(line: tuple[str, str]) -> Region:
    return Region(int(line[0], 16), int(line[1], 16))


def _state(line: SnapshotLine, setup: Setup, pages: dict[int, bytes]) -> MachineState:
    traps, printed_bytes, at = line.seen
    if any(int(vcpu) not in range(len(line.vcpus)) for vcpu in line.entered):
        raise ValueError("it has exceptions of CPUs that it does not have")
    return MachineState(
        firmware=tracefile.firmware_of(line.firmware, setup.config),
        now_ns=line.now_ns,
        traps=line.traps,
        instructions=line.instructions,
        seen=((traps, printed_bytes), at),
        spun=line.spun,
        announced=Announcement(bytes.fromhex(line.announced[0]), *line.announced[1:]),
        last=line.last,
        started=tuple(line.started),
        schedule=_random_of(line.schedule),
        numbers=_random_of(line.numbers),
        vcpus=tuple(_vcpu_of(vcpu, line.cpu) for vcpu in line.vcpus),
        current=line.current,
        console=ConsoleState(uart_of(line.uart), bytes.fromhex(line.kept), line.printed_bytes),
        entered={int(vcpu): (int(vector, 16), why) for vcpu, (vector, why) in line.entered.items()},
        system_event=None if line.system_event is None else SystemEvent(SystemEventType[line.system_event[0]], line.system_event[1]),
        controller=controller_of(line.gic, setup.config.mpidrs),
        rtc=rtc_of(line.rtc, setup),
        pages=pages,
    )


def _random_of(line: Any) -> tuple[Any, ...] | None:
    if line is None:
        return None
    version, numbers, gauss = line
    if version != 3 or numbers[-1] > 624:
        raise ValueError("it holds a draw that is none")
    return version, tuple(numbers), gauss


# PSTATE's mode of EL0t, EL1t and EL1h; bit 4 would be AArch32.
_MODES: Final = (0x0, 0x4, 0x5)


def _vcpu_of(line: VcpuLine, cpu: str) -> VcpuState:
    known = architecture.register_names(cpu)
    for name in line.registers.keys() ^ known:
        raise ValueError(f"a CPU has a register {name!r} too {'few' if name in known else 'many'}")
    registers = {name: int(value, 16) for name, value in line.registers.items()}
    for name, value in registers.items():
        if value >> 64 and not architecture.is_vector(name):
            raise ValueError(f"register {name} is wider than 64 bits")
    if registers["pstate"] & 0x1F not in _MODES:
        raise ValueError(f"pstate {registers['pstate']:#x} is not of EL0 or EL1")
    ctl = [int(each[0], 16) for each in (line.virtual, line.physical)]
    if max(ctl) > 3:
        raise ValueError("a timer's control register has bits that it does not have")
    resume: EntryState | None = tracefile.entry_of(line.resume)
    return VcpuState(
        registers=registers,
        wait=Wait[line.wait],
        virtual=(ctl[0], int(line.virtual[1], 16)),
        physical=(ctl[1], int(line.physical[1], 16)),
        resume=resume,
        stolen_at=None if line.stolen_at is None else int(line.stolen_at, 16),
        stolen_ns=line.stolen_ns,
        ready_ns=line.ready_ns,
    )
