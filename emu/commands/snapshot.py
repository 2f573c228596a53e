"""`snapshot save`, `load`, `info` and `diff`: a whole machine in a file."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from emu import words
from emu.commands import Command
from emu.commands.run import add_firmware_options, add_limit_options, add_machine_options, inputs, limited, run_to, setup_of
from emu.lists import show
from emu.memory import PAGE_BYTES
from emu.outcome import ExitCode
from emu.session import add_session_options, session
from emu.snapshot import Snapshot, read, take
from emu.state import MachineState
from firmware.errors import UserError


def _add_save_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="F", help="where the snapshot goes")
    parser.add_argument("--at", metavar="POINT", help="when: call:NAME#N or console:REGEX")
    add_machine_options(parser)
    add_firmware_options(parser)
    add_session_options(parser)


def _save(options: argparse.Namespace) -> int:
    if options.at is None:
        raise UserError("nothing says when; give --at call:NAME#N or --at console:REGEX")
    setup = setup_of(options)
    point = words.parse_until(setup.config, options.at, "--at")
    with session(options, inputs(options), {"the snapshot": options.file}) as shown:
        machine = shown.start(setup)
        outcome = run_to(machine, point)
        if outcome.code == ExitCode.OK:
            take(machine).save(options.file)
        return shown.finish(outcome)


def _add_load_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="F", help="what `snapshot save` wrote")
    parser.add_argument("--symbols", type=Path, metavar="F", help="names for addresses: vmlinux, System.map or /proc/kallsyms")
    parser.add_argument("--no-reboot", action="store_true", help="end with 101 when the guest resets")
    parser.add_argument("--until", metavar="POINT", help="end with 0 at call:NAME#N or console:REGEX, counted from here")
    add_limit_options(parser)
    add_session_options(parser)


def _load(options: argparse.Namespace) -> int:
    snapshot = read(options.file)
    setup = dataclasses.replace(limited(snapshot.setup, options), symbols=options.symbols)
    if options.no_reboot:
        setup = dataclasses.replace(setup, no_reboot=True)
    if options.until is not None:
        setup = dataclasses.replace(setup, until=words.parse_until(setup.config, options.until))
    with session(options, {"the snapshot": options.file, "-symbols": options.symbols}, {}) as shown:
        return shown.finish(shown.start(setup, snapshot.state).run())


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="F", help="what `snapshot save` wrote")


def _info(options: argparse.Namespace) -> int:
    snapshot = read(options.file)
    config, state = snapshot.setup.config, snapshot.state
    smccc = "none" if config.smccc is None else str(config.smccc)
    print(f"host       {config.host.name}, PSCI {config.offered}, SMCCC {smccc}, node's method {snapshot.setup.method}")
    cpus = f"{len(config.mpidrs)} CPU{'s' if len(config.mpidrs) > 1 else ''}"
    print(f"machine    {snapshot.setup.cpu}, {cpus}, {snapshot.setup.ram_bytes >> 20} MiB, seed {snapshot.setup.seed}")
    print(f"time       {state.now_ns / 1e9:.9f} s, {state.instructions} instructions, {state.traps} calls")
    print(f"memory     {len(state.pages)} pages of {PAGE_BYTES >> 10} KiB are not as they were loaded")
    rows = [
        (f"cpu{index}", hex(mpidr), power.name, vcpu.wait.value, hex(vcpu.registers["pc"]))
        for index, (mpidr, power, vcpu) in enumerate(zip(config.mpidrs, state.firmware.power.states, state.vcpus, strict=True))
    ]
    show("", "MPIDR", "state", "waits for", "pc", rows=rows)
    return ExitCode.OK


def _add_two_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", type=Path, metavar="A", help="what `snapshot save` wrote")
    parser.add_argument("b", type=Path, metavar="B", help="another")


def _diff(options: argparse.Namespace) -> int:
    differences = list(_differences(read(options.a), read(options.b)))
    for difference in differences:
        print(difference)
    if not differences:
        print("no difference")
    return ExitCode.CHECK_FAILED if differences else ExitCode.OK


def _differences(a: Snapshot, b: Snapshot) -> Iterator[str]:
    for field in dataclasses.fields(a.setup.config):
        yield from _compared(field.name, _plain(getattr(a.setup.config, field.name)), _plain(getattr(b.setup.config, field.name)))
    for name in ("cpu", "psci", "method", "no_reboot", "seed", "boot"):
        yield from _compared(name, getattr(a.setup, name), getattr(b.setup, name))
    for field in dataclasses.fields(MachineState):
        mine, its = getattr(a.state, field.name), getattr(b.state, field.name)
        if field.name == "pages":
            yield from _pages(mine, its)
        elif field.name == "vcpus" and len(mine) == len(its):
            for index, (vcpu, other) in enumerate(zip(mine, its, strict=True)):
                for name in vcpu.registers:
                    yield from _compared(f"cpu{index} {name}", hex(vcpu.registers[name]), hex(other.registers[name]))
                rest = [each.name for each in dataclasses.fields(vcpu) if each.name != "registers"]
                for name in rest:
                    yield from _compared(f"cpu{index} {name}", getattr(vcpu, name), getattr(other, name))
        elif dataclasses.is_dataclass(mine):
            for inner in dataclasses.fields(mine):
                yield from _compared(f"{field.name} {inner.name}", getattr(mine, inner.name), getattr(its, inner.name))
        else:
            yield from _compared(field.name, mine, its)


def _plain(value: object) -> object:
    return getattr(value, "name", value)


_LONGEST = 60


def _compared(name: str, mine: object, its: object) -> Iterator[str]:
    if mine != its:
        shown, other = str(mine), str(its)
        yield f"{name}: {shown} and {other}" if len(shown) + len(other) <= 2 * _LONGEST else f"{name} differs"


def _pages(mine: dict[int, bytes], its: dict[int, bytes]) -> Iterator[str]:
    differing = sorted(address for address in mine.keys() | its.keys() if mine.get(address) != its.get(address))
    while differing:
        count = 1
        while count < len(differing) and differing[count] == differing[0] + count * PAGE_BYTES:
            count += 1
        yield f"memory {differing[0]:#x}-{differing[0] + count * PAGE_BYTES - 1:#x}"
        del differing[:count]


SAVE = Command(_add_save_options, _save)
LOAD = Command(_add_load_options, _load)
INFO = Command(_add_file, _info)
DIFF = Command(_add_two_files, _diff)
