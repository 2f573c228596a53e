"""The command line: parses, calls, prints."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import BinaryIO, TextIO

from emu import setup as words
from emu.abort import told_of_aborts
from emu.engine import CPU_MODELS
from emu.machine import Machine
from emu.memory import DEFAULT_RAM_BYTES, parse_size
from emu.options import Parser, whole_words
from emu.outcome import ExitCode
from emu.report import Log, crash
from emu.setup import Choices, Setup
from emu.terminal import Output, standard_input
from firmware.errors import UserError, unknown

_STDIO = ("stdio", "mon:stdio")  # the latter is what QEMU's -nographic means; the monitor here knows Ctrl-A x alone

_OUTPUT_ERRORS = (errno.ENOSPC, errno.EIO, errno.EBADF, errno.EFBIG)

_DEMOS = ("versions", "silent-upgrade", "lost-mitigation", "catches-fire")

# Commands that are planned; named here so that their refusal can name them.
_PLANNED = ("snapshot", "migrate", "lint", "fuzz")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    try:
        code = _command(list(sys.argv[1:] if arguments is None else arguments))
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except UserError as error:
        print(f"psci-emu: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        _abandon_output()  # whoever read it has gone; there is nobody left to tell
        return ExitCode.OK
    except OSError as error:
        if error.errno not in _OUTPUT_ERRORS:
            raise
        _abandon_output()
        print(f"psci-emu: standard output cannot be written: {error.strerror}", file=sys.stderr)
        return ExitCode.USAGE
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception:
        traceback.print_exc()
        print("psci-emu: this is a mistake of ours, not of the guest or the command; please report the lines above", file=sys.stderr)
        return ExitCode.OURS


def _abandon_output() -> None:
    # What is still buffered must not fail again at exit.
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _command(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
        return ExitCode.OK
    if arguments[0] in ("-version", "--version"):
        from importlib.metadata import version  # noqa: PLC0415  10 ms that a run does not need

        print(f"psci-emu {version('psci-emu')}")
        return ExitCode.OK
    name = arguments[0] if not arguments[0].startswith("-") else "run"
    rest = arguments[1:] if not arguments[0].startswith("-") else arguments
    if name in _PLANNED:
        raise UserError(f"command {name!r} is not offered yet; offered: {', '.join(_COMMANDS)}")
    if name not in _COMMANDS:
        raise unknown("command", name, _COMMANDS)
    add_options, run, summary = _COMMANDS[name]
    parser = Parser(prog=f"psci-emu {name}", description=summary, allow_abbrev=False)
    add_options(parser)
    return run(parser.parse_args(whole_words(rest, parser, f"psci-emu {name}")))


def _usage() -> str:
    lines = ["psci-emu: the firmware an AArch64 guest sees through HVC and SMC", "", "usage: psci-emu COMMAND [options]", ""]
    lines += [f"  {name:<10} {summary}" for name, (_, _, summary) in _COMMANDS.items()]
    return "\n".join([*lines, "", "psci-emu COMMAND -h tells a command's options."])


# ---- run


def add_firmware_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which firmware is meant."""
    parser.add_argument("--host", default="spec", metavar="NAME", help="the host to be like (psci-emu hosts); default spec")
    parser.add_argument("--psci", metavar="V", help="the version register: 0.1 to 1.3, or none; V@call:NAME#N changes it while running")
    parser.add_argument("--conduit", metavar="C", help="hvc, smc, both or none")
    parser.add_argument("--smccc", metavar="V", help="the SMCCC version, where the host has more than one")
    parser.add_argument("--fwreg", action="append", default=[], metavar="NAME=VALUE", help="write a firmware register (psci-emu regs)")
    parser.add_argument("--cap", action="append", default=[], metavar="CAP", help="enable a KVM capability: system-suspend")


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `run`."""
    parser.add_argument("--kernel", type=Path, metavar="F", help="ELF, arm64 Image (also gzip) or flat binary")
    parser.add_argument("--bios", type=Path, metavar="F", help="firmware image, started at address 0")
    parser.add_argument("--append", default="", metavar="S", help="kernel command line")
    parser.add_argument("--initrd", type=Path, metavar="F", help="initial RAM disk for -kernel")
    parser.add_argument("--dtb", type=Path, metavar="F", help="your device tree in place of the generated one")
    parser.add_argument("--symbols", type=Path, metavar="F", help="names for addresses: vmlinux, System.map or /proc/kallsyms")
    parser.add_argument("--smp", metavar="N", help="1 to 8 CPUs, or cpus=N,clusters=M")
    parser.add_argument("--mpidr", metavar="LIST", help="MPIDR affinity value of each CPU")
    parser.add_argument("-m", dest="memory", metavar="SIZE", help="RAM, MiB or with K, M, G; default 128M")
    parser.add_argument("--cpu", default=words.DEFAULT_CPU, metavar="MODEL", help=f"{', '.join(CPU_MODELS)}; default {words.DEFAULT_CPU}")
    parser.add_argument("--machine", "-M", default="virt", metavar="virt[,dumpdtb=F]", help="dumpdtb=F writes the device tree and ends")
    add_firmware_options(parser)
    parser.add_argument("--psci-node", choices=("replace", "keep"), default="replace", help="what becomes of the psci node of -dtb")
    parser.add_argument("--serial", default="stdio", metavar="S", help="where the console goes: stdio, file:F or none")
    parser.add_argument("--no-reboot", action="store_true", help="end with 101 when the guest resets")
    parser.add_argument("-d", dest="debug", metavar="LIST", help="log psci, int, in_asm, engine to stderr")
    parser.add_argument("-D", dest="debug_file", type=Path, metavar="F", help="log to a file instead")
    parser.add_argument("--trace", type=Path, metavar="F", help="record the run as JSON lines, for replay")
    parser.add_argument("--until", metavar="POINT", help="end with 0 at call:NAME#N or console:REGEX")
    parser.add_argument("--max-insns", metavar="N", help="limit in instructions")
    parser.add_argument("--timeout", metavar="T", help="limit in virtual time: 10s, 500ms")
    parser.add_argument("--seed", default="0", metavar="N", help="schedule and entropy; 0 is plain round robin")


def run(options: argparse.Namespace) -> int:
    """Run a guest."""
    dump = _machine(options.machine)
    setup = _setup(options)
    _protect_files(options, dump)
    if dump is not None and setup.kernel is None and setup.bios is None:
        _write_file(dump, setup.device_tree(None))
        return ExitCode.OK
    categories = words.parse_debug(options.debug) if options.debug else frozenset()
    machine: Machine | None = None

    def interrupt(*_signal: object) -> None:
        if machine is not None:
            machine.interrupted = True

    with contextlib.ExitStack() as stack:
        serial = stack.enter_context(_serial(options.serial, interrupt))
        log = stack.enter_context(_log_file(options.debug_file))
        typed = stack.enter_context(standard_input(interrupt)) if options.serial in _STDIO and dump is None else None
        machine = Machine(setup, output=serial.write, typed=typed.take if typed else lambda _limit: b"")
        if dump is not None:
            _write_file(dump, machine.board.device_tree)
            return ExitCode.OK
        stack.enter_context(_on_interrupt(interrupt))
        stack.enter_context(told_of_aborts(partial(_tell_of_abort, machine, stack)))
        if categories:
            Log(machine, categories, log)
        recorder = None
        if options.trace is not None:
            from emu.recorder import Recorder  # noqa: PLC0415  with msgspec, which a run without a trace does not need

            recorder = Recorder(machine, stack.enter_context(_opened(f"--trace {options.trace}", options.trace)))
        outcome = machine.run()
        if recorder is not None:
            recorder.finish(outcome)
        if outcome.code == ExitCode.CRASH:
            print(crash(machine), file=sys.stderr)
    if outcome.code:
        calls = machine.clock.traps
        after = f"after {calls} call{'' if calls == 1 else 's'} at virtual time {machine.clock.now_ns / 1e9:.9f} s"
        print(f"psci-emu: {outcome.sentence} ({after}), exit code {outcome.code}", file=sys.stderr)
    return outcome.code


def _tell_of_abort(machine: Machine, stack: contextlib.ExitStack) -> None:
    machine.console.flush()
    stack.close()  # the terminal as it was, files written
    print(crash(machine), file=sys.stderr)
    print(f"psci-emu: guest crash: the engine gave up at an instruction, exit code {ExitCode.CRASH:d}", file=sys.stderr, flush=True)


def _setup(options: argparse.Namespace) -> Setup:
    count = None if options.smp is None else len(words.parse_smp(options.smp))
    mpidrs = words.parse_smp(options.smp or "1") if options.mpidr is None else words.parse_mpidrs(options.mpidr, count)
    ram_bytes = DEFAULT_RAM_BYTES if options.memory is None else parse_size(options.memory)
    choices = _choices(options, mpidrs, ram_bytes)
    setup = words.make(choices)
    until = None if options.until is None else words.parse_until(setup.config, options.until)
    return dataclasses.replace(
        setup,
        kernel=options.kernel,
        bios=options.bios,
        initrd=options.initrd,
        dtb=options.dtb,
        symbols=options.symbols,
        append=options.append,
        cpu=words.parse_cpu(options.cpu),
        keep_psci_node=options.psci_node == "keep",
        until=until,
        no_reboot=options.no_reboot,
        max_insns=None if options.max_insns is None else words.parse_positive("--max-insns", options.max_insns),
        timeout_ns=None if options.timeout is None else words.parse_timeout(options.timeout),
        seed=words.parse_number("--seed", options.seed),
    )


def _choices(options: argparse.Namespace, mpidrs: tuple[int, ...] = (0,), ram_bytes: int = DEFAULT_RAM_BYTES) -> Choices:
    return Choices(
        host=options.host,
        psci=options.psci,
        conduit=options.conduit,
        smccc=options.smccc,
        fwreg=tuple(options.fwreg),
        cap=tuple(options.cap),
        mpidrs=mpidrs,
        ram_bytes=ram_bytes,
    )


def _machine(text: str) -> Path | None:
    """Read -machine virt[,dumpdtb=F]; return where the device tree is to be dumped."""
    kind, *properties = text.split(",")
    if kind.removeprefix("type=") != "virt":
        raise UserError(f"-machine {kind!r} is not offered; allowed: virt")
    dump = None
    for text_ in properties:
        name, _, value = text_.partition("=")
        if name != "dumpdtb" or not value:
            raise UserError(f"-machine virt,{text_} is not offered; allowed: virt,dumpdtb=F")
        dump = Path(value)
    return dump


def _protect_files(options: argparse.Namespace, dump: Path | None) -> None:
    """Refuse an output file that is an input, or another output: nothing a user has is lost to a slip of the hand."""
    serial = options.serial.removeprefix("file:")
    files = {f"-{option}": getattr(options, option) for option in ("kernel", "bios", "initrd", "dtb", "symbols")}
    outputs = {
        "-serial": Path(serial) if serial != options.serial else None,
        "-D": options.debug_file,
        "--trace": options.trace,
        "dumpdtb": dump,
    }
    taken = {_identity(path): name for name, path in files.items() if path is not None}
    for name, path in outputs.items():
        if path is None or (path.exists() and not path.is_file()):
            continue  # /dev/null, a terminal or a pipe takes any number
        other = taken.setdefault(_identity(path), name)
        if other != name:
            raise UserError(f"{name} {path} would overwrite the file of {other}")


def _identity(path: Path) -> object:
    """Return what two names of one file have in common, hard links and files yet to be made included."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return os.path.abspath(path)
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def _serial(text: str, interrupt: Callable[[], None]) -> Iterator[Output]:
    def broken() -> None:
        # As a program that SIGPIPE ends.
        interrupt()
        _abandon_output()

    if text in _STDIO:
        yield Output(None if sys.stdout is None else sys.stdout.buffer, broken)
    elif text == "none":
        yield Output(None)
    elif text.startswith("file:"):
        with _opened(f"-serial {text}", Path(text.removeprefix("file:"))) as stream:
            yield Output(stream)
    else:
        raise UserError(f"-serial {text!r} is not offered; allowed: stdio, file:F, none")


@contextlib.contextmanager
def _log_file(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stderr
        return
    with io.TextIOWrapper(_opened(f"-D {path}", path), encoding="utf-8") as stream:
        yield stream


def _opened(what: str, path: Path) -> BinaryIO:
    try:
        return path.open("wb")
    except (OSError, ValueError) as error:
        raise UserError(f"{what} cannot be written: {getattr(error, 'strerror', None) or error}") from None


@contextlib.contextmanager
def _on_interrupt(interrupt: Callable[..., None]) -> Iterator[None]:
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _write_file(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None


# ---- lists


def _add_explain_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a function's name or ID (psci-emu functions)")
    parser.add_argument("--host", metavar="NAME", help="one host alone; default all")


def _explain(options: argparse.Namespace) -> int:
    from emu.explain import explain  # noqa: PLC0415  as below

    print(explain(options.name, options.host))
    return ExitCode.OK


def _add_replay_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("trace", type=Path, metavar="F", help="what --trace wrote")
    parser.add_argument("--host", metavar="NAME", help="ask another host the same")


def _replay(options: argparse.Namespace) -> int:
    from emu.replay import Replay  # noqa: PLC0415  as below

    replay = Replay(options.trace, options.host)
    if replay.remark is not None:
        print(replay.remark)
    differences = 0
    for difference in replay.differences():
        differences += 1
        print(difference)
        if options.host is None:
            break
    if not differences:
        print(f"{replay.events} events, no difference")
    return ExitCode.CHECK_FAILED if differences else ExitCode.OK


def _add_guest_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="one guest, whole")


def _add_demo_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", default="versions", metavar="NAME", help=f"of {', '.join(_DEMOS)}; default versions")
    parser.add_argument("--host", default="spec", metavar="NAME", help="of versions: the host to be like; default spec")


def _add_matrix_options(parser: argparse.ArgumentParser) -> None:
    from emu.cli_migrate import add_matrix_options  # noqa: PLC0415  as below

    add_matrix_options(parser)


def _matrix(options: argparse.Namespace) -> int:
    from emu.cli_migrate import matrix  # noqa: PLC0415  as below

    return matrix(options)


def _add_probe_options(parser: argparse.ArgumentParser) -> None:
    from emu.cli_probe import add_probe_options  # noqa: PLC0415  as below

    add_probe_options(parser)


def _probe(options: argparse.Namespace) -> int:
    from emu import cli_probe  # noqa: PLC0415  as below

    return cli_probe.run(options)


def _lists() -> ModuleType:
    from emu import lists  # noqa: PLC0415  tables and catalogues that a run does not need

    return lists


def _demo(options: argparse.Namespace) -> int:
    from emu import demo  # noqa: PLC0415  as above

    demos = demo.demos(options.host)
    if options.name not in demos:
        raise unknown("demo", options.name, demos)
    return demos[options.name]()


_COMMANDS: dict[str, tuple[Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int], str]] = {
    "run": (add_run_options, run, "run a guest"),
    "regs": (add_firmware_options, lambda options: _lists().regs(_choices(options)), "list a host's firmware registers"),
    "functions": (add_firmware_options, lambda options: _lists().functions(_choices(options)), "list the functions and who serves them"),
    "explain": (_add_explain_options, _explain, "tell all about a function, and how the hosts differ"),
    "hosts": (lambda _parser: None, lambda _options: _lists().hosts(), "list the modelled hosts"),
    "guests": (_add_guest_name, lambda options: _lists().guests(options.name), "list the guests that come along"),
    "replay": (_add_replay_options, _replay, "play a recorded run to a fresh firmware, or to another host"),
    "probe": (_add_probe_options, _probe, "ask a guest how it would probe every firmware"),
    "matrix": (_add_matrix_options, _matrix, "what becomes of a guest for every source, destination, version and policy"),
    "demo": (_add_demo_name, _demo, "show what the emulator is for"),
}
