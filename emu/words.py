"""How a user spells what can be asked of a machine: versions, numbers, topologies, points in a run."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from emu.devicetree import Method
from emu.engine import CPU_MODELS
from firmware import fwregs
from firmware.abi import AFFINITY_MASK, MASK64, PSCI_VERSIONS, SMCCC_VERSIONS, Version
from firmware.dispatch import check_function_name
from firmware.errors import UserError, unknown
from firmware.host import SPECTRE_STATES, SSBD_STATES, Config, Mitigations
from firmware.trap import Conduit

MAX_VCPUS: Final = 123  # as many redistributors as there is room for
_MOST_CPUS_OF_GICV2: Final = 8
_TARGET_LIST: Final = 16
_LARGE: Final = 10_000  # from here on a bound is told in hexadecimal
_GICS: Final[dict[str, Literal[2, 3]]] = {"2": 2, "3": 3}
_NS: Final = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}


class CallPoint(NamedTuple):
    """The instant after the Nth trap of a function, counted over all vCPUs from 1."""

    function: str
    number: int


def parse_version(text: str) -> Version:
    return parse_version_of("PSCI", text, PSCI_VERSIONS, ", none")


def parse_smccc(text: str) -> Version:
    return parse_version_of("SMCCC", text, SMCCC_VERSIONS)


def parse_version_of(standard: str, text: str, known: tuple[Version, ...], others: str = "") -> Version:
    for version in known:
        if str(version) == text:
            return version
    raise UserError(f"unknown {standard} version {text!r}; allowed: {', '.join(map(str, known))}{others}")


def parse_version_value(text: str) -> int:
    """Read a version register's value: a version such as 0.2, or the word."""
    return parse_version(text).word if re.fullmatch(r"\d+\.\d+", text, re.ASCII) else parse_number("PSCI_VERSION", text)


def parse_number(what: str, text: str, most: int = MASK64, least: int = 0) -> int:
    """Read a whole number from `least` to `most`, decimal or 0x; `what` is what an error calls it."""
    number = None
    if re.fullmatch(r"0[xX][0-9a-fA-F]{1,16}", text, re.ASCII):
        number = int(text, 16)
    elif re.fullmatch(r"[0-9]{1,20}", text, re.ASCII):
        number = int(text)
    if number is None or not least <= number <= most:
        raise UserError(f"{what} {text!r} is not a number from {least} to {most if most < _LARGE else hex(most)}")
    return number


def parse_positive(what: str, text: str, most: int = (1 << 63) - 1) -> int:
    return parse_number(what, text, most, least=1)


def parse_assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise UserError(f"-fwreg {text!r} is not NAME=VALUE; `psci-emu regs` lists the names")
    if re.fullmatch(r"0[xX][0-9a-fA-F]{1,16}", name, re.ASCII):
        named = [register.name for register in fwregs.REGISTERS if register.id == int(name, 16)]
        return (named or [name])[0], value
    return name.removeprefix("KVM_REG_ARM_"), value


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


def parse_until(config: Config, text: str, option: str = "--until") -> CallPoint | re.Pattern[bytes]:
    """Read call:NAME#N or console:REGEX, an option's."""
    if text.startswith("console:"):
        try:
            return re.compile(os.fsencode(text.removeprefix("console:")))
        except (re.error, OverflowError, RecursionError) as error:
            raise UserError(f"{option} {text!r}: not a regular expression: {error}") from None
    if not text.startswith("call:"):
        raise UserError(f"{option} {text!r} is neither call:NAME#N nor console:REGEX")
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
    # Without clusters of the user's own, as QEMU's `virt` with a GICv3: sixteen to an SGI's target list.
    size = cpus // clusters if "clusters" in options else _TARGET_LIST
    return tuple(vcpu // size << 8 | vcpu % size for vcpu in range(cpus))


class MachineWords(NamedTuple):
    """What -machine says.

    gic          the interrupt controller's version, None for the default
    idle_states  whether the device tree lists idle states
    dump         where the device tree is to be dumped
    """

    gic: Literal[2, 3] | None
    idle_states: bool
    dump: Path | None


def parse_machine(text: str) -> MachineWords:
    """Read virt[,gic-version=2|3][,idle-states=on|off][,dumpdtb=F]."""
    kind, *properties = text.split(",")
    if kind.removeprefix("type=") != "virt":
        raise UserError(f"-machine {kind!r} is not offered; allowed: virt")
    gic: Literal[2, 3] | None = None
    idle_states, dump = False, None
    for text_ in properties:
        name, _, value = text_.partition("=")
        if name == "gic-version" and value in _GICS:
            gic = _GICS[value]
        elif name == "idle-states" and value in ("on", "off"):
            idle_states = value == "on"
        elif name == "dumpdtb" and value:
            dump = Path(value)
        else:
            raise UserError(f"-machine virt,{text_} is not offered; allowed: gic-version=2|3, idle-states=on|off, dumpdtb=F")
    return MachineWords(gic, idle_states, dump)


def gic_for(cpus: int, asked: Literal[2, 3] | None) -> Literal[2, 3]:
    """Return the interrupt controller's version for so many CPUs: version 2, and 3 above its eight, unless one is asked for."""
    if asked == 2 and cpus > _MOST_CPUS_OF_GICV2:
        raise UserError(f"-machine virt,gic-version=2: a GICv2 has at most {_MOST_CPUS_OF_GICV2} CPUs, not {cpus}")
    return asked or (2 if cpus <= _MOST_CPUS_OF_GICV2 else 3)


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
