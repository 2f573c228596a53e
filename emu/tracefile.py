"""A run as data: JSON lines, one object each, told apart by `kind`; written by `--trace F`, read by `psci-emu replay F`.

Schema 1. Times `t` are virtual nanoseconds. 64-bit values are hexadecimal strings ("0x..."), since JSON numbers are not wide enough.

    header    what the firmware was built from, the device tree the guest was handed, and the schema's number; the first line
    call      a trap and its reply; pc is the address of the HVC or SMC instruction
    event     any other event of the firmware and its reply: Enter, Woken, MpState, Reset
    register  an accepted write to a firmware register
    resumed   the firmware is another one from here on, with a past: a snapshot was loaded, or the guest was moved to another host
    machine   what became of the machine: start, stop, wake-up, reset
    console   what the guest printed since the last such line
    end       the exit code and the sentence; the last line

A reply holds the registers the host wrote, how the vCPU goes on, the effects, and the entry state to apply, if any: the types of
firmware/trap.py, field by field. A field this reader does not know is refused.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import msgspec

from emu.faultwords import parse_fault
from emu.hosts import fingerprint, host_of
from firmware.abi import PowerState, Version
from firmware.dispatch import FirmwareState, check_trusted_os
from firmware.errors import InputError
from firmware.host import SPECTRE_STATES, SSBD_STATES, Config, Mitigations
from firmware.overlay import with_faults
from firmware.power import PowerSnapshot, Statistics, Suspension
from firmware.trap import (
    Conduit,
    Effect,
    EntryState,
    Event,
    MpState,
    MpStateValue,
    Reply,
    Reset,
    Resume,
    Runnable,
    SystemEvent,
    SystemEventType,
    Trap,
    Woken,
    WriteMemory,
)
from firmware.trap import Enter as EnterEvent

SCHEMA: Final = 1
_LONGEST_LINE_BYTES: Final = 16 << 20

Hex: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^0x[0-9a-f]{1,16}$")]
Index: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=512)]
Time: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]


class _Line(msgspec.Struct, forbid_unknown_fields=True, tag_field="kind", tag=str.lower):
    pass


class EntryLine(msgspec.Struct, forbid_unknown_fields=True):
    pc: Hex
    x0: Hex
    pstate: Hex
    big_endian: bool


class Runs(_Line, tag="runnable"):
    vcpu: Index
    entry: EntryLine | None = None


class Leaves(_Line, tag="system_event"):
    type: str
    flags: Time


class Writes(_Line, tag="write_memory"):
    address: Hex
    content: str  # hexadecimal


class ReplyLine(msgspec.Struct, forbid_unknown_fields=True):
    regs: dict[str, Hex]
    resume: str
    effects: list[Runs | Leaves | Writes] = []
    entry: EntryLine | None = None


class MitigationsLine(msgspec.Struct, forbid_unknown_fields=True, array_like=True):
    spectre_v2: str
    spectre_v4: str
    spectre_bhb: str
    ssbs: bool
    ssbd: str | None = None


class Header(_Line):
    """What `Config` holds, and the device tree in base64.

    host_is  tells whether a host of the user's own is still what it was; None in earlier files, which do not say
    """

    schema: int
    host: str
    version: tuple[int, int]
    psci_0_2: bool
    smccc: tuple[int, int] | None
    mpidrs: Annotated[list[Hex], msgspec.Meta(min_length=1, max_length=512)]
    conduits: list[str]
    capabilities: list[str]
    bitmaps: dict[str, Hex]
    mitigations: Annotated[list[MitigationsLine], msgspec.Meta(min_length=1, max_length=512)]
    el2_fast_path: bool
    ram: tuple[Hex, Hex]
    pv_time_base: Hex | None
    seed: Time
    device_tree: str
    ssbd_off: list[Index] = []
    host_is: str | None = None
    faults: Annotated[list[str], msgspec.Meta(max_length=1024)] = []


class Call(_Line):
    t: Time
    vcpu: Index
    conduit: str
    imm: Annotated[int, msgspec.Meta(ge=0, lt=1 << 16)]
    x: tuple[Hex, Hex, Hex, Hex]
    big_endian: bool
    pc: Hex
    function: str | None
    reply: ReplyLine


class Other(_Line, tag="event"):
    t: Time
    event: str
    vcpu: Index
    reply: ReplyLine
    state: str | None = None


class FirmwareLine(msgspec.Struct, forbid_unknown_fields=True):
    """What `FirmwareState` holds beside the registers' values, which are the configuration's.

    ssbd_off  None in earlier files: the configuration's
    """

    has_run: bool
    entropy: tuple[Time, Time]
    states: Annotated[list[str], msgspec.Meta(max_length=512)]
    pending: Annotated[list[EntryLine | None], msgspec.Meta(max_length=512)]
    suspensions: Annotated[list[tuple[Time, Time] | None], msgspec.Meta(max_length=512)]
    statistics: Annotated[list[tuple[Index, Time, Time, Time]], msgspec.Meta(max_length=1 << 17)]
    os_initiated: bool
    memory_protected: bool
    suspended_by_user: list[Index] = []
    ssbd_off: list[Index] | None = None
    skipping: list[Index] = []
    replies: dict[str, Time] = {}


class Resumed(_Line):
    t: Time
    config: Header
    firmware: FirmwareLine


class Register(_Line):
    t: Time
    id: Hex
    value: Hex


class Machine(_Line):
    t: Time
    vcpu: Index
    what: str


class Console(_Line):
    t: Time
    text: str


class End(_Line):
    t: Time
    code: int
    sentence: str


Line: TypeAlias = Header | Call | Other | Resumed | Register | Machine | Console | End

encode: Final = msgspec.json.Encoder().encode
_decoder: Final = msgspec.json.Decoder(Line)


# ---- between the firmware's types and lines


def header(config: Config, seed: int, device_tree: bytes) -> Header:
    return Header(
        schema=SCHEMA,
        host=config.host.name,
        version=(config.version.major, config.version.minor),
        psci_0_2=config.psci_0_2,
        smccc=None if config.smccc is None else (config.smccc.major, config.smccc.minor),
        mpidrs=[hex(mpidr) for mpidr in config.mpidrs],
        conduits=sorted(conduit.value for conduit in config.conduits),
        capabilities=sorted(config.capabilities),
        bitmaps={name: hex(value) for name, value in config.bitmaps},
        mitigations=[MitigationsLine(*each) for each in config.mitigations],
        ssbd_off=sorted(config.ssbd_off),
        host_is=fingerprint(config.host),
        el2_fast_path=config.el2_fast_path,
        ram=(hex(config.ram[0]), hex(config.ram[1])),
        pv_time_base=None if config.pv_time_base is None else hex(config.pv_time_base),
        seed=seed,
        device_tree=b64encode(device_tree).decode(),
        faults=[str(fault) for fault in config.faults],
    )


def config_of(line: Header) -> Config:
    """Return the configuration a header tells of; raise UserError for a host that does not exist, ValueError for what means nothing."""
    for each in line.mitigations:
        states = (each.spectre_v2, each.spectre_v4, each.spectre_bhb)
        if not set(states) <= set(SPECTRE_STATES):
            raise ValueError(f"mitigations {states} are not among {SPECTRE_STATES}")
        if each.ssbd not in (None, *SSBD_STATES):
            raise ValueError(f"ssbd {each.ssbd!r} is not among {SSBD_STATES}")
    if len(set(line.mpidrs)) != len(line.mpidrs):
        raise ValueError("two CPUs have the same MPIDR")
    host = host_of(line.host)
    check_trusted_os(host, len(line.mpidrs))
    config = Config(
        host=host,
        version=Version(*line.version),
        psci_0_2=line.psci_0_2,
        smccc=None if line.smccc is None else Version(*line.smccc),
        mpidrs=tuple(int(mpidr, 16) for mpidr in line.mpidrs),
        conduits=frozenset(Conduit(name) for name in line.conduits),
        capabilities=frozenset(line.capabilities),
        bitmaps=tuple(sorted((name, int(value, 16)) for name, value in line.bitmaps.items())),
        mitigations=tuple(Mitigations(*msgspec.structs.astuple(each)) for each in line.mitigations),
        ssbd_off=frozenset(line.ssbd_off),
        el2_fast_path=line.el2_fast_path,
        ram=(int(line.ram[0], 16), int(line.ram[1], 16)),
        pv_time_base=None if line.pv_time_base is None else int(line.pv_time_base, 16),
    )
    return with_faults(config, tuple(parse_fault(text) for text in line.faults)) if line.faults else config


def check_host(config: Config, host_is: str | None) -> None:
    """Raise ValueError where a host of the user's own is not what a file says that it was; None says nothing."""
    if host_is not in (None, fingerprint(config.host)):
        raise ValueError(f"host {config.host.name} is no longer what it was when this was recorded")


def resumed_line(time_ns: int, config: Config, seed: int, state: FirmwareState) -> Resumed:
    return Resumed(time_ns, header(config, seed, b""), firmware_line(state))


def firmware_line(state: FirmwareState) -> FirmwareLine:
    power = state.power
    return FirmwareLine(
        has_run=state.has_run,
        entropy=state.entropy,
        states=[each.name for each in power.states],
        pending=[entry_line(entry) for entry in power.pending],
        suspensions=[None if each is None else (each.power_state, each.since_ns) for each in power.suspensions],
        statistics=[(vcpu, power_state, *counted) for (vcpu, power_state), counted in power.statistics],
        os_initiated=power.os_initiated,
        memory_protected=power.memory_protected,
        suspended_by_user=sorted(power.suspended_by_user),
        ssbd_off=sorted(power.ssbd_off),
        skipping=sorted(power.skipping),
        replies=dict(state.replies),
    )


def firmware_of(line: FirmwareLine, config: Config) -> FirmwareState:
    """Return the state a line tells of, under a configuration; raise ValueError or KeyError for one that cannot be."""
    vcpus = len(config.mpidrs)
    if {len(line.states), len(line.pending), len(line.suspensions)} != {vcpus}:
        raise ValueError(f"the firmware's state is of {len(line.states)} CPUs, not of {vcpus}")
    keys = [(vcpu, power_state) for vcpu, power_state, _, _ in line.statistics]
    if keys != sorted(set(keys)) or any(vcpu >= vcpus for vcpu, _ in keys):
        raise ValueError("the statistics are not of these CPUs, or not in order")
    power = PowerSnapshot(
        states=tuple(PowerState[name] for name in line.states),
        pending=tuple(entry_of(entry) for entry in line.pending),
        suspensions=tuple(None if each is None else Suspension(*each) for each in line.suspensions),
        statistics=tuple(((vcpu, power_state), Statistics(*counted)) for vcpu, power_state, *counted in line.statistics),
        os_initiated=line.os_initiated,
        memory_protected=line.memory_protected,
        suspended_by_user=frozenset(line.suspended_by_user),
        ssbd_off=config.ssbd_off if line.ssbd_off is None else frozenset(line.ssbd_off),
        skipping=frozenset(line.skipping),
    )
    replies = tuple(sorted(line.replies.items()))
    return FirmwareState(config.version, config.psci_0_2, config.bitmaps, power, line.entropy, line.has_run, replies)


def reply_line(reply: Reply) -> ReplyLine:
    return ReplyLine(
        regs={f"x{number}": hex(value) for number, value in reply.regs},
        resume=reply.resume.name,
        effects=[_effect_line(effect) for effect in reply.effects],
        entry=entry_line(reply.entry),
    )


def entry_line(entry: EntryState | None) -> EntryLine | None:
    return None if entry is None else EntryLine(hex(entry.pc), hex(entry.x0), hex(entry.pstate), entry.big_endian)


def _effect_line(effect: Effect) -> Runs | Leaves | Writes:
    match effect:
        case Runnable():
            return Runs(effect.vcpu, entry_line(effect.entry))
        case SystemEvent():
            return Leaves(effect.type.name, effect.flags)
        case WriteMemory():
            return Writes(hex(effect.address), effect.content.hex())


def entry_of(line: EntryLine | None) -> EntryState | None:
    return None if line is None else EntryState(int(line.pc, 16), int(line.x0, 16), int(line.pstate, 16), line.big_endian)


def reply_of(line: ReplyLine) -> Reply:
    return Reply(
        tuple(sorted((int(name.removeprefix("x")), int(value, 16)) for name, value in line.regs.items())),
        Resume[line.resume],
        tuple(_effect_of(effect) for effect in line.effects),
        entry_of(line.entry),
    )


def _effect_of(line: Runs | Leaves | Writes) -> Effect:
    match line:
        case Runs():
            return Runnable(line.vcpu, entry_of(line.entry))
        case Leaves():
            return SystemEvent(SystemEventType[line.type], line.flags)
        case Writes():
            return WriteMemory(int(line.address, 16), bytes.fromhex(line.content))


def trap_of(line: Call) -> Trap:
    x0, x1, x2, x3 = (int(value, 16) for value in line.x)
    return Trap(line.vcpu, Conduit(line.conduit), (x0, x1, x2, x3), line.imm, line.big_endian, line.t)


def event_line(time_ns: int, event: Event, reply: Reply) -> Other:
    state = event.state.name if isinstance(event, MpState) else None
    vcpu = 0 if isinstance(event, Reset) else event.vcpu
    return Other(time_ns, type(event).__name__, vcpu, reply_line(reply), state)


def event_of(line: Other) -> Event:
    match line.event:
        case "Enter":
            return EnterEvent(line.vcpu)
        case "Woken":
            return Woken(line.vcpu, line.t)
        case "MpState":
            return MpState(line.vcpu, MpStateValue[line.state or "RUNNABLE"])
        case "Reset":
            return Reset()
        case _:
            raise ValueError(f"unknown event {line.event!r}")


# ---- reading


def read(path: Path) -> Iterator[tuple[int, Line]]:
    """Yield (line number from 1, line) of a trace; raise InputError for what is not one, as soon as it is met."""
    vcpus, line = 0, None
    for number, text in _lines(path):
        try:
            line = _decoder.decode(text)
            _check(line)
        except (msgspec.DecodeError, ValueError, KeyError, RecursionError) as error:
            raise InputError(f"{path}: line {number} is not a line of a trace: {error}") from None
        if isinstance(line, Header) is not (number == 1):
            raise InputError(f"{path}: line {number} is {'not a' if number == 1 else 'another'} header; a trace has one, at its beginning")
        if isinstance(line, Header):
            if line.schema != SCHEMA:
                raise InputError(f"{path} has schema {line.schema}; {SCHEMA} is read")
            vcpus = len(line.mpidrs)
        elif isinstance(line, Resumed) and len(line.config.mpidrs) != vcpus:
            raise InputError(f"{path}: line {number} goes on with {len(line.config.mpidrs)} CPUs; the header has {vcpus}")
        elif isinstance(line, Call | Other | Machine) and line.vcpu >= vcpus:
            raise InputError(f"{path}: line {number} names cpu{line.vcpu}; the header has {vcpus}")
        yield number, line
    if not isinstance(line, End):
        raise InputError(f"{path} has no end: it was cut off, or its run was")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        with path.open("rb") as stream:
            while text := stream.readline(_LONGEST_LINE_BYTES):
                number += 1
                if len(text) == _LONGEST_LINE_BYTES:
                    raise InputError(f"{path}: line {number} has more than {_LONGEST_LINE_BYTES} bytes")
                yield number, text
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    if not number:
        raise InputError(f"{path} is empty; a trace begins with its header")


def _check(line: Line) -> None:
    """Raise ValueError or KeyError for a line whose fields do not mean anything."""
    if isinstance(line, Header):
        b64decode(line.device_tree, validate=True)
        config_of(line)
    elif isinstance(line, Resumed):
        firmware_of(line.firmware, config_of(line.config))
    elif isinstance(line, Call):
        trap_of(line)
        reply_of(line.reply)
    elif isinstance(line, Other):
        event_of(line)
        reply_of(line.reply)
