"""What a user may ask of a machine, and how each answer is spelled; nothing here runs anything."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from emu.devicetree import Method, PsciIds, PsciNode, Spec, amend, build, psci_node
from emu.faultwords import parse_faults
from emu.hosts import host_of
from emu.loader import Boot, read_file
from emu.memory import DEFAULT_RAM_BYTES, PVTIME, RAM_BASE, MiB, Region, ram
from emu.words import (
    CallPoint,
    gic_for,
    parse_assignment,
    parse_call_point,
    parse_conduit,
    parse_host_cpu,
    parse_number,
    parse_smccc,
    parse_version,
    parse_version_of,
    parse_version_value,
)
from firmware import fwregs
from firmware.abi import PSCI_0_1, PSCI_VERSIONS, Version
from firmware.dispatch import Firmware, configuration
from firmware.errors import UserError, unknown
from firmware.host import Config, Host, Mitigations
from firmware.overlay import check_faults, with_faults
from firmware.psci_suspend import idle_power_states

DEFAULT_CPU: Final = "cortex-a57"
CAPABILITIES: Final = ("system-suspend",)
_GUEST_RAM_BYTES: Final = 16 * MiB  # what the guests that come along need is a hundredth of it


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
    gic                        the interrupt controller's version; None: there is none
    idle_states                whether the device tree of our own lists idle states
    psci                       whether there is firmware at all (-psci none: no node, both conduits UNDEF)
    method                     the conduit the psci node names
    keep_psci_node             leave the user's psci node as it is
    registers                  (register ID, value), written before the first run, in order
    asked                      the PSCI version that the user asked for, None for none; a move's destination may be asked for it too
    version_changes            writes to the version register while the guest runs
    until                      end, well, at a call or when the console matches
    max_insns, timeout_ns      limits in instructions granted and in virtual nanoseconds, None for none
    max_calls                  limit in calls, None for none
    compatible                 what the psci node is compatible with, None for what host and version say
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
    gic: Literal[2, 3] | None = None
    idle_states: bool = False
    psci: bool = True
    method: Method = "hvc"
    keep_psci_node: bool = False
    registers: tuple[tuple[int, int], ...] = ()
    asked: Version | None = None
    version_changes: tuple[VersionChange, ...] = ()
    until: CallPoint | re.Pattern[bytes] | None = None
    no_reboot: bool = False
    max_insns: int | None = None
    timeout_ns: int | None = None
    max_calls: int | None = None
    compatible: tuple[str, ...] | None = None
    seed: int = 0

    @property
    def wall_clock_s(self) -> int:
        """What the real-time clock says when virtual time is 0, in seconds of Unix time."""
        return self.config.wall_clock_ns // 1_000_000_000

    def psci_node(self) -> PsciNode | None:
        """Return what the device tree's psci node says."""
        if not self.psci:
            return None
        config, host = self.config, self.config.host
        ids = None if host.ids_0_1 is None else PsciIds(*(getattr(host.ids_0_1, name) for name in PsciIds._fields))
        node = psci_node(config.offered, self.method, ids, host.node_compatible(config.offered))
        if node is not None and self.compatible is not None:
            return node._replace(compatible=self.compatible, ids=node.ids if "arm,psci" in self.compatible else None)
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
            gic=self.gic,
            idle_states=idle_power_states(self.config) if self.idle_states else None,
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
    faults: tuple[str, ...] = ()
    mpidrs: tuple[int, ...] = (0,)
    gic: Literal[2, 3] | None = None
    ram_bytes: int = DEFAULT_RAM_BYTES
    rest: dict[str, object] = field(default_factory=dict)


def make(choices: Choices) -> Setup:
    """Turn a user's words into a Setup; raise UserError for what cannot be had."""
    host = host_of(choices.host)
    versions, changes = [], []
    for part in [] if choices.psci is None else choices.psci.split(","):
        text, at, point = part.partition("@")
        if at:
            changes.append((parse_version_of("PSCI", text, PSCI_VERSIONS), point))
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
    config = with_faults(config, parse_faults(choices.faults)) if choices.faults else config
    setup = Setup(
        config=config,
        psci=psci,
        method=method,
        gic=gic_for(len(choices.mpidrs), choices.gic),
        ram_bytes=choices.ram_bytes,
        registers=tuple(_register(config, name, value) for name, value in assignments),
        asked=version,
        version_changes=tuple(VersionChange(version, parse_call_point(config, point)) for version, point in changes),
        **choices.rest,  # type: ignore[arg-type]
    )
    firmware = setup.firmware()  # refuses here, before anything runs
    config = firmware.config_as_it_is
    for change in setup.version_changes:
        firmware.set_one_reg(fwregs.BY_NAME["PSCI_VERSION"].id, change.version.word)
    check_faults(config)
    return dataclasses.replace(setup, config=config, registers=())


def with_idle_states(setup: Setup) -> Setup:
    """Let the device tree list idle states; raise UserError where there can be none."""
    if setup.dtb is not None:
        raise UserError("-machine virt,idle-states=on is about our own device tree; with -dtb it is yours that says")
    if not setup.psci:
        raise UserError("-machine virt,idle-states=on lists states that PSCI enters, and -psci none has none")
    return dataclasses.replace(setup, idle_states=True)


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


def _register(config: Config, name: str, value: str) -> tuple[int, int]:
    if name.startswith(("0x", "0X")):
        return int(name, 16), parse_number(name, value)
    if name not in fwregs.BY_NAME:
        raise unknown("firmware register", name, fwregs.BY_NAME)
    register = fwregs.BY_NAME[name]
    fwregs.find(config, register.id)  # ENOENT, if this host lacks it
    return register.id, parse_version_value(value) if name == "PSCI_VERSION" else parse_number(name, value)
