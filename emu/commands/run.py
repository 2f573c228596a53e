"""`run`: a guest under a firmware; its options are those of every command that starts a machine."""

from __future__ import annotations

import argparse
import dataclasses
import re
from pathlib import Path

from emu import words
from emu.commands import Command
from emu.engine import CPU_MODELS
from emu.files import OF_A_MACHINE, protect, write
from emu.machine import Machine
from emu.memory import DEFAULT_RAM_BYTES, parse_size
from emu.outcome import ExitCode, Outcome
from emu.session import add_session_options, session
from emu.setup import DEFAULT_CPU, Choices, Setup, make, with_idle_states
from emu.words import CallPoint
from firmware.errors import UserError


def add_firmware_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which firmware is meant."""
    parser.add_argument("--host", default="spec", metavar="NAME", help="the host to be like (psci-emu hosts), or FILE.toml; default spec")
    add_version_options(parser)


def add_version_options(parser: argparse.ArgumentParser) -> None:
    """Add what a host may be asked for."""
    parser.add_argument("--psci", metavar="V", help="the version register: 0.1 to 1.3, or none; V@call:NAME#N changes it while running")
    parser.add_argument("--conduit", metavar="C", help="hvc, smc, both or none")
    parser.add_argument("--smccc", metavar="V", help="the SMCCC version, where the host has more than one")
    parser.add_argument("--fwreg", action="append", default=[], metavar="NAME=VALUE", help="write a firmware register (psci-emu regs)")
    parser.add_argument("--cap", action="append", default=[], metavar="CAP", help="enable a KVM capability: system-suspend")
    parser.add_argument("--host-cpu", metavar="CPU", help="what the host's CPU needs and has: spectre-v2=vulnerable,ssbs")


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is started, and on what."""
    parser.add_argument("--kernel", type=Path, metavar="F", help="ELF, arm64 Image (also gzip) or flat binary")
    parser.add_argument("--bios", type=Path, metavar="F", help="firmware image, started at address 0")
    parser.add_argument("--append", default="", metavar="S", help="kernel command line")
    parser.add_argument("--initrd", type=Path, metavar="F", help="initial RAM disk for -kernel")
    parser.add_argument("--dtb", type=Path, metavar="F", help="your device tree in place of the generated one")
    parser.add_argument("--symbols", type=Path, metavar="F", help="names for addresses: vmlinux, System.map or /proc/kallsyms")
    machine = "virt,gic-version=2|3,idle-states=on|off; of run also dumpdtb=F, which writes the device tree and ends"
    parser.add_argument("--machine", "-M", default="virt", metavar="M", help=machine)
    parser.add_argument("--smp", metavar="N", help=f"1 to {words.MAX_VCPUS} CPUs, or cpus=N,clusters=M")
    parser.add_argument("--mpidr", metavar="LIST", help="MPIDR affinity value of each CPU")
    parser.add_argument("-m", dest="memory", metavar="SIZE", help="RAM, MiB or with K, M, G; default 128M")
    parser.add_argument("--cpu", default=DEFAULT_CPU, metavar="MODEL", help=f"{', '.join(CPU_MODELS)}; default {DEFAULT_CPU}")
    parser.add_argument("--psci-node", choices=("replace", "keep"), default="replace", help="what becomes of the psci node of -dtb")
    parser.add_argument("--fault", action="append", default=[], metavar="FAULT", help="break the firmware: 'CPU_ON#2: drop', or F.toml")
    parser.add_argument("--no-reboot", action="store_true", help="end with 101 when the guest resets")
    parser.add_argument("--seed", default="0", metavar="N", help="schedule and entropy; 0 is plain round robin")
    add_limit_options(parser)


def add_limit_options(parser: argparse.ArgumentParser) -> None:
    """Add the limits, which count from power-on."""
    parser.add_argument("--max-insns", metavar="N", help="limit in instructions")
    parser.add_argument("--timeout", metavar="T", help="limit in virtual time: 10s, 500ms")


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `run`."""
    add_machine_options(parser)
    add_firmware_options(parser)
    add_session_options(parser)
    parser.add_argument("--until", metavar="POINT", help="end with 0 at call:NAME#N or console:REGEX")


def run(options: argparse.Namespace) -> int:
    """Run a guest."""
    dump = words.parse_machine(options.machine).dump
    setup = setup_of(options, may_dump=True)
    if options.until is not None:
        setup = dataclasses.replace(setup, until=words.parse_until(setup.config, options.until))
    if dump is not None:
        protect(inputs(options), {"dumpdtb": dump})
        started = setup.kernel is not None or setup.bios is not None
        write(dump, Machine(setup).board.device_tree if started else setup.device_tree(None))
        return ExitCode.OK
    with session(options, inputs(options), {}) as shown:
        return shown.finish(shown.start(setup).run())


def run_to(machine: Machine, point: CallPoint | re.Pattern[bytes]) -> Outcome:
    """Run to the point that --at names."""
    outcome = machine.run(point)
    return outcome._replace(sentence=re.sub(r"\A--until\b", "--at", outcome.sentence))


def inputs(options: argparse.Namespace) -> dict[str, Path | None]:
    """Name the files that a machine is started from."""
    return {f"-{name}": getattr(options, name) for name in OF_A_MACHINE}


def setup_of(options: argparse.Namespace, *, may_dump: bool = False) -> Setup:
    """Turn the machine's and the firmware's options into a setup."""
    machine = words.parse_machine(options.machine)
    if machine.dump is not None and not may_dump:
        raise UserError("-machine virt,dumpdtb=F is for run alone")
    count = None if options.smp is None else len(words.parse_smp(options.smp))
    mpidrs = words.parse_smp(options.smp or "1") if options.mpidr is None else words.parse_mpidrs(options.mpidr, count)
    ram_bytes = DEFAULT_RAM_BYTES if options.memory is None else parse_size(options.memory)
    setup = make(dataclasses.replace(choices_of(options, mpidrs, ram_bytes), faults=tuple(options.fault), gic=machine.gic))
    setup = dataclasses.replace(
        setup,
        kernel=options.kernel,
        bios=options.bios,
        initrd=options.initrd,
        dtb=options.dtb,
        symbols=options.symbols,
        append=options.append,
        cpu=words.parse_cpu(options.cpu),
        keep_psci_node=options.psci_node == "keep",
        no_reboot=options.no_reboot,
        seed=words.parse_number("--seed", options.seed),
    )
    return limited(with_idle_states(setup) if machine.idle_states else setup, options)


def limited(setup: Setup, options: argparse.Namespace) -> Setup:
    """Return a setup with the limits that the options ask for."""
    return dataclasses.replace(
        setup,
        max_insns=None if options.max_insns is None else words.parse_positive("--max-insns", options.max_insns),
        timeout_ns=None if options.timeout is None else words.parse_timeout(options.timeout),
    )


def choices_of(options: argparse.Namespace, mpidrs: tuple[int, ...] = (0,), ram_bytes: int = DEFAULT_RAM_BYTES) -> Choices:
    return Choices(
        host=options.host,
        psci=options.psci,
        conduit=options.conduit,
        smccc=options.smccc,
        fwreg=tuple(options.fwreg),
        cap=tuple(options.cap),
        host_cpu=options.host_cpu,
        mpidrs=mpidrs,
        ram_bytes=ram_bytes,
    )


RUN = Command(add_run_options, run)
