"""Build a firmware, make one call, and say what a host's whole reply must look like."""

from __future__ import annotations

from typing import Any, Final

from firmware.abi import MASK64, Version
from firmware.dispatch import Firmware, configuration, rows
from firmware.host import Host
from firmware.hosts import host_named
from firmware.trap import Conduit, Effect, EntryState, Reply, Resume, SystemEvent, SystemEventType, Trap

HOSTS: Final = ("spec", "kvm-6.12", "qemu-7")
RAM: Final = (0x4000_0000, 0x800_0000)
ENTRY: Final = 0x4008_0000
CONTEXT: Final = 0x1122_3344_5566_7788
JUNK: Final = 0xDEAD_BEEF_0000_0000  # an upper half that an SMC32 caller does not know it has

V0_1, V0_2, V1_0, V1_1, V1_2, V1_3 = (Version(0, 1), Version(0, 2), Version(1, 0), Version(1, 1), Version(1, 2), Version(1, 3))
OFFERS: Final = {"spec": (V0_1, V0_2, V1_0, V1_1, V1_2, V1_3), "kvm-6.12": (V0_1, V0_2, V1_0, V1_1), "qemu-7": (V1_1,)}
HOST_VERSIONS: Final = tuple((host, version) for host in HOSTS for version in OFFERS[host])

# x0 to x(n-1) are written by every return: KVM clears what it has no value for, QEMU and TF-A leave it.
RESULT_REGISTERS: Final = {"spec": 1, "kvm-6.12": 4, "qemu-7": 1}

SHUTDOWN, RESET, SUSPEND = (SystemEventType.SHUTDOWN, SystemEventType.RESET, SystemEventType.SUSPEND)


def make(
    host: str | Host = "spec",
    *,
    vcpus: int = 2,
    mpidrs: tuple[int, ...] | None = None,
    psci: Version | None = None,
    seed: int = 0,
    **columns: Any,
) -> Firmware:
    """Return a fresh firmware; MPIDR affinities are 0, 1, 2... unless they are given."""
    modelled = host_named(host) if isinstance(host, str) else host
    affinities = tuple(range(vcpus)) if mpidrs is None else mpidrs
    return Firmware(configuration(modelled, affinities, psci=psci, **{"ram": RAM, **columns}), seed)


def fid_of(firmware: Firmware, name: str, *, smc64: bool = True) -> int:
    """Return a function's ID: under PSCI 0.1 its 0.1 ID, else the SMC64 form where it is asked for and there is one."""
    services = [(service.name, function) for service, function in rows(firmware.config) if function.name == name]
    assert services, name
    wanted = "PSCI 0.1" if firmware.config.offered == V0_1 and any(service == "PSCI 0.1" for service, _ in services) else None
    function = next(function for service, function in services if wanted is None or service == wanted)
    if wanted is None and len(services) > 1:
        function = next(function for service, function in services if service != "PSCI 0.1")
    preferred = (function.fid64, function.fid32) if smc64 else (function.fid32, function.fid64)
    return next(fid for fid in preferred if fid is not None)


def call(
    firmware: Firmware,
    function: str | int,
    *args: int,
    vcpu: int = 0,
    conduit: Conduit = Conduit.HVC,
    smc64: bool = True,
    imm: int = 0,
    big_endian: bool = False,
    time_ns: int = 0,
) -> Reply:
    """Call a function by name or ID with arguments from x1 on, the rest 0."""
    fid = function if isinstance(function, int) else fid_of(firmware, function, smc64=smc64)
    x1, x2, x3 = (*args, 0, 0, 0)[:3]
    return firmware.handle(Trap(vcpu, conduit, (fid, x1, x2, x3), imm, big_endian, time_ns))


def returned(host: str | Firmware, *values: int, effects: tuple[Effect, ...] = (), resume: Resume = Resume.NEXT) -> Reply:
    """Return the whole reply of a call that returns `values` from x0 on."""
    name = host if isinstance(host, str) else host.config.host.name
    registers = RESULT_REGISTERS.get(name, host_named(name).result_registers)
    padded = values + (0,) * (registers - len(values))
    return Reply(tuple((register, value & MASK64) for register, value in enumerate(padded)), resume, effects)


def left(host: str, event: SystemEventType, flags: int = 0, *, regs: tuple[tuple[int, int], ...] | None = None) -> Reply:
    """Return the whole reply of a call that leaves to the VMM; KVM presets INTERNAL_FAILURE in x0 and clears x1 to x3."""
    preset = ((0, -6 & MASK64), (1, 0), (2, 0), (3, 0)) if host == "kvm-6.12" else ()
    return Reply(preset if regs is None else regs, Resume.EXIT, (SystemEvent(event, flags),))


def entered(pc: int, x0: int, *, big_endian: bool = False) -> Reply:
    """Return the whole reply to an event that applies a pending entry."""
    return Reply(entry=EntryState(pc, x0, 0x3C5, big_endian))


def x0(reply: Reply) -> int:
    """Return x0 of a reply as the signed number a return code is."""
    value = dict(reply.regs)[0]
    return value - (value >> 63 << 64)
