"""What a user may ask of a machine, and how each answer is spelled; nothing here runs anything."""

from __future__ import annotations

import dataclasses
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from emu.devicetree import Method, PsciIds, PsciNode, Spec, amend, build, psci_node
from emu.engine import CPU_MODELS
from emu.hosts import host_of
from emu.loader import Boot, read_file
from emu.memory import DEFAULT_RAM_BYTES, PVTIME, RAM_BASE, MiB, Region, ram
from firmware import fwregs
from firmware.abi import AFFINITY_MASK, PSCI_0_1, PSCI_VERSIONS, SMCCC_VERSIONS, Version
from firmware.dispatch import Firmware, check_function_name, configuration
from firmware.errors import UserError, unknown
from firmware.host import SPECTRE_STATES, SSBD_STATES, Config, Host, Mitigations
from firmware.trap import Conduit

MAX_VCPUS: Final = 8
DEFAULT_CPU: Final = "cortex-a57"
CAPABILITIES: Final = ("system-suspend",)
_GUEST_RAM_BYTES: Final = 16 * MiB  # what the guests that come along need is a hundredth of it

_NS: Final = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}


class CallPoint(NamedTuple):
    """The instant after the Nth trap of a function, counted over all vCPUs from 1."""

    function: str
    number: int


class VersionChange(NamedTuple):
    """A write to the version register while the guest runs."""

    version: Version
    at: CallPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """A machine to be built.

    kernel, bios, initrd, dtb  files of the user's
    boot                       what is loaded, in place of kernel, bios and initrd
    symbols                    a file with names for addresses, in place of those that the kernel brings along
    config                     the firmware's configuration
    psci                       whether there is firmware at all (-psci none: no node, both conduits UNDEF)
    method                     the conduit the psci node names
    keep_psci_node             leave the user's psci node as it is
    registers                  (register ID, value), written before the first run, in order
    version_changes            writes to the version register while the guest runs
    until                      end, well, at a call or when the console matches
    max_insns, timeout_ns      limits in instructions granted and in virtual nanoseconds, None for none
    """

    config: Config
    kernel: Path | None = None
    bios: Path | None = None
    initrd: Path | None = None
    dtb: Path | None = None
    boot: Boot | None = None
    symbols: Path | None = None
    append: str = ""
    ram_bytes: int = DEFAULT_RAM_BYTES
    cpu: str = DEFAULT_CPU
    psci: bool = True
    method: Method = "hvc"
    keep_psci_node: bool = False
    registers: tuple[tuple[int, int], ...] = ()
    version_changes: tuple[VersionChange, ...] = ()
    until: CallPoint | re.Pattern[bytes] | None = None
    no_reboot: bool = False
    max_insns: int | None = None
    timeout_ns: int | None = None
    seed: int = 0

    def psci_node(self) -> PsciNode | None:
        """Return what the device tree's psci node says."""
        if not self.psci:
            return None
        config, host = self.config, self.config.host
        ids = None if host.ids_0_1 is None else PsciIds(*(getattr(host.ids_0_1, name) for name in PsciIds._fields))
        node = psci_node(config.offered, self.method, ids, host.node_compatible(config.offered))
        if ids is None or node is None or node.ids is None or not host.node_tells_0_1_ids:
            return node
        unserved: dict[str, Any] = dict.fromkeys(name for name in PsciIds._fields if name.upper() not in host.serves_0_1)
        return node._replace(ids=ids._replace(**unserved))

    def device_tree(self, initrd: Region | None) -> bytes:
        """Return the device tree the guest is handed: ours, or the user's, amended; raise InputError for a broken one."""
        memory = ram(self.ram_bytes)
        spec = Spec(
            ram=memory,
            mpidrs=self.config.mpidrs,
            cpu="arm,armv8" if self.cpu == "max" else f"arm,{self.cpu}",
            psci=self.psci_node(),
            bootargs=self.append,
            initrd=initrd,
        )
        if self.dtb is None:
            return build(spec)
        blob = read_file(self.dtb, memory.size_bytes)
        return amend(blob.content, spec, self.keep_psci_node, blob.name)

    def firmware(self) -> Firmware:
        """Build the firmware and write the registers the user asked for."""
        firmware = Firmware(self.config, self.seed)
        for register, value in self.registers:
            firmware.set_one_reg(register, value)
        return firmware


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """The firmware a user asks for, in the command line's words; every field may be left out."""

    host: str = "spec"
    psci: str | None = None
    conduit: str | None = None
    smccc: str | None = None
    fwreg: tuple[str, ...] = ()
    cap: tuple[str, ...] = ()
    host_cpu: str | None = None
    mpidrs: tuple[int, ...] = (0,)
    ram_bytes: int = DEFAULT_RAM_BYTES
    rest: dict[str, object] = field(default_factory=dict)


def make(choices: Choices) -> Setup:
    """Turn a user's words into a Setup; raise UserError for what cannot be had."""
    host = host_of(choices.host)
    versions, changes = [], []
    for part in [] if choices.psci is None else choices.psci.split(","):
        text, at, point = part.partition("@")
        if at:
            changes.append((_version("PSCI", text, PSCI_VERSIONS), point))
        else:
            versions.append(None if text == "none" else parse_version(text))
    if len(versions) > 1:
        raise UserError(f"-psci {choices.psci} names more than one version to begin with")
    psci = versions != [None]
    version = versions[0] if versions else None
    if choices.fwreg and not psci:
        raise UserError("-fwreg writes a register of the firmware, and -psci none has no firmware")
    assignments = [parse_assignment(text) for text in choices.fwreg]
    asked = dict(assignments).get("PSCI_VERSION")
    if asked is not None and version is None and parse_version_value(asked) == PSCI_0_1.word:
        version = PSCI_0_1  # 0.1 is not a value to write but a vCPU without the PSCI_0_2 bit
    for capability in choices.cap:
        if capability not in CAPABILITIES:
            raise unknown("capability", capability, CAPABILITIES)
    method, conduits = parse_conduit(host.default_conduit.value if choices.conduit is None else choices.conduit)
    config = configuration(
        host,
        choices.mpidrs,
        psci=version,
        smccc=None if choices.smccc is None else parse_smccc(choices.smccc),
        conduits=conduits if psci else frozenset(),
        capabilities=frozenset(choices.cap),
        mitigations=(parse_host_cpu(choices.host_cpu),),
        ram=(RAM_BASE, choices.ram_bytes),
        pv_time_base=PVTIME.base,
    )
    setup = Setup(
        config=config,
        psci=psci,
        method=method,
        ram_bytes=choices.ram_bytes,
        registers=tuple(_register(config, name, value) for name, value in assignments),
        version_changes=tuple(VersionChange(version, parse_call_point(config, point)) for version, point in changes),
        **choices.rest,  # type: ignore[arg-type]
    )
    firmware = setup.firmware()  # refuses here, before anything runs
    for change in setup.version_changes:
        firmware.set_one_reg(fwregs.BY_NAME["PSCI_VERSION"].id, change.version.word)
    return dataclasses.replace(setup, config=setup.firmware().config, registers=())


def guest_config(host: Host, mitigations: Mitigations, mpidrs: tuple[int, ...] = (0, 1)) -> Config:
    """Return the configuration of a small VM on a host, over the host's own conduit."""
    return configuration(
        host,
        mpidrs,
        conduits=frozenset({host.default_conduit}),
        ram=(RAM_BASE, _GUEST_RAM_BYTES),
        pv_time_base=PVTIME.base,
        mitigations=(mitigations,),
    )


# ---- spellings


def parse_version(text: str) -> Version:
    return _version("PSCI", text, PSCI_VERSIONS, ", none")


def parse_smccc(text: str) -> Version:
    return _version("SMCCC", text, SMCCC_VERSIONS)


def _version(standard: str, text: str, known: tuple[Version, ...], others: str = "") -> Version:
    for version in known:
        if str(version) == text:
            return version
    raise UserError(f"unknown {standard} version {text!r}; allowed: {', '.join(map(str, known))}{others}")


def parse_version_value(text: str) -> int:
    """Read a version register's value: a version such as 0.2, or the word."""
    return parse_version(text).word if re.fullmatch(r"\d+\.\d+", text, re.ASCII) else parse_number("PSCI_VERSION", text)


def parse_number(what: str, text: str, limit: int = 1 << 64) -> int:
    """Read a whole number below `limit`, decimal or 0x; `what` is what an error calls it."""
    number = None
    if re.fullmatch(r"0[xX][0-9a-fA-F]{1,16}", text, re.ASCII):
        number = int(text, 16)
    elif re.fullmatch(r"[0-9]{1,20}", text, re.ASCII):
        number = int(text)
    if number is None or number >= limit:
        raise UserError(f"{what} {text!r} is not a number from 0 to {limit - 1:#x}")
    return number


def parse_positive(what: str, text: str) -> int:
    number = parse_number(what, text, 1 << 63)
    if not number:
        raise UserError(f"{what} {text} must be at least 1")
    return number


def parse_assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise UserError(f"-fwreg {text!r} is not NAME=VALUE; `psci-emu regs` lists the names")
    if re.fullmatch(r"0[xX][0-9a-fA-F]{1,16}", name, re.ASCII):
        named = [register.name for register in fwregs.REGISTERS if register.id == int(name, 16)]
        return (named or [name])[0], value
    return name.removeprefix("KVM_REG_ARM_"), value


def _register(config: Config, name: str, value: str) -> tuple[int, int]:
    if name.startswith(("0x", "0X")):
        return int(name, 16), parse_number(name, value)
    if name not in fwregs.BY_NAME:
        raise unknown("firmware register", name, fwregs.BY_NAME)
    register = fwregs.BY_NAME[name]
    fwregs.find(config, register.id)  # ENOENT, if this host lacks it
    return register.id, parse_version_value(value) if name == "PSCI_VERSION" else parse_number(name, value)


def parse_conduit(text: str) -> tuple[Method, frozenset[Conduit]]:
    """Return the conduit the node names and the conduits the platform serves."""
    table: dict[str, tuple[Method, frozenset[Conduit]]] = {
        "hvc": ("hvc", frozenset({Conduit.HVC})),
        "smc": ("smc", frozenset({Conduit.SMC})),
        "both": ("hvc", frozenset(Conduit)),
        "none": ("hvc", frozenset()),
    }
    if text not in table:
        raise unknown("conduit", text, table)
    return table[text]


def parse_call_point(config: Config, text: str) -> CallPoint:
    """Read call:NAME#N; #1 may be left out."""
    match = re.fullmatch(r"call:(?P<name>[A-Za-z0-9_]+)(?:#(?P<number>[0-9]{1,9}))?", text, re.ASCII)
    if match is None or match["number"] == "0" * len(match["number"] or "x"):
        raise UserError(f"{text!r} is not call:NAME#N with N from 1")
    return CallPoint(check_function_name(config, match["name"]), int(match["number"] or 1))


def parse_until(config: Config, text: str) -> CallPoint | re.Pattern[bytes]:
    """Read call:NAME#N or console:REGEX."""
    if text.startswith("console:"):
        try:
            return re.compile(os.fsencode(text.removeprefix("console:")))
        except (re.error, OverflowError, RecursionError) as error:
            raise UserError(f"--until {text!r}: not a regular expression: {error}") from None
    if not text.startswith("call:"):
        raise UserError(f"--until {text!r} is neither call:NAME#N nor console:REGEX")
    return parse_call_point(config, text)


def parse_host_cpu(text: str | None) -> Mitigations:
    """Read what the host's CPU needs and has: spectre-v2=vulnerable,ssbs; what is not named is as `Mitigations` has it."""
    fields = {name.replace("_", "-"): default for name, default in Mitigations()._asdict().items()}
    chosen: dict[str, Any] = {}
    for part in [] if text is None else text.split(","):
        key, equals, value = part.partition("=")
        if key not in fields or key.replace("-", "_") in chosen:
            raise unknown("CPU property", part, fields)
        is_flag = isinstance(fields[key], bool)
        states = SSBD_STATES if key == "ssbd" else SPECTRE_STATES
        if is_flag == bool(equals) or (not is_flag and value not in states):
            raise UserError(f"{part!r}: " + (f"{key} stands alone" if is_flag else f"{key} is one of {', '.join(states)}"))
        chosen[key.replace("-", "_")] = True if is_flag else value
    return Mitigations(**chosen)


def parse_timeout(text: str) -> int:
    """Read a virtual time: a number with ns, us, ms or s (the default), and return nanoseconds."""
    match = re.fullmatch(r"(?P<number>\d{1,12}(?:\.\d{1,9})?)(?P<unit>ns|us|ms|s)?", text, re.ASCII)
    nanoseconds = 0 if match is None else round(float(match["number"]) * _NS[match["unit"] or "s"])
    if nanoseconds < 1:
        raise UserError(f"--timeout {text!r} is not a virtual time such as 10s, 500ms or 20us")
    return nanoseconds


def parse_smp(text: str) -> tuple[int, ...]:
    """Read N or cpus=N,clusters=M and return each vCPU's affinity fields: Aff1 the cluster, Aff0 the CPU in it."""
    options = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals:
            key, value = "cpus", part
        if key not in ("cpus", "clusters") or key in options:
            raise UserError(f"-smp {text!r}: {key!r} is not offered; allowed: N or cpus=N,clusters=M")
        if not re.fullmatch(r"[0-9]{1,6}", value, re.ASCII) or not int(value):
            raise UserError(f"-smp {text!r}: {key} must be a number from 1 to {MAX_VCPUS}")
        options[key] = int(value)
    cpus, clusters = options.get("cpus", 1), options.get("clusters", 1)
    if cpus > MAX_VCPUS:
        raise UserError(f"-smp {text!r}: at most {MAX_VCPUS} CPUs")
    if cpus % clusters:
        raise UserError(f"-smp {text!r}: {cpus} CPUs do not divide into {clusters} clusters")
    size = cpus // clusters
    return tuple(vcpu // size << 8 | vcpu % size for vcpu in range(cpus))


def parse_mpidrs(text: str, count: int | None) -> tuple[int, ...]:
    """Read a list of MPIDR affinity values, one per vCPU."""
    return check_mpidrs(tuple(parse_number("--mpidr", part.strip()) for part in text.split(",")), count)


def check_mpidrs(values: tuple[int, ...], count: int | None) -> tuple[int, ...]:
    """Return MPIDR affinity values, one per vCPU, if a machine can have them."""
    if not values:
        raise UserError("--mpidr names no CPU")
    for value in values:
        if value & ~AFFINITY_MASK:
            raise UserError(f"--mpidr {value:#x} has bits outside Aff3, Aff2, Aff1 and Aff0 ({AFFINITY_MASK:#x})")
    if len(set(values)) != len(values):
        raise UserError(f"--mpidr {', '.join(map(hex, values))}: two CPUs have the same value")
    if len(values) > MAX_VCPUS or (count is not None and len(values) != count):
        raise UserError(f"--mpidr names {len(values)} CPUs; {f'-smp asks for {count}' if count else f'at most {MAX_VCPUS} are offered'}")
    return values


def parse_cpu(text: str) -> str:
    if text not in CPU_MODELS:
        raise unknown("CPU model", text, CPU_MODELS)
    return text


DEBUG_CATEGORIES: Final = ("psci", "int", "in_asm", "engine")


def parse_debug(text: str) -> frozenset[str]:
    """Read -d's comma-separated categories."""
    chosen = frozenset(text.split(","))
    for category in sorted(chosen):
        if category not in DEBUG_CATEGORIES:
            raise unknown("-d category", category, DEBUG_CATEGORIES)
    return chosen
