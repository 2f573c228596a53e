"""A run as the command line shows it: console, log, trace, interrupts, and the word at its end."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from emu.abort import told_of_aborts
from emu.console import nobody
from emu.files import opened, protect
from emu.hosts import remark_on
from emu.machine import Machine
from emu.outcome import ExitCode, Outcome
from emu.report import Log, crash
from emu.setup import Setup
from emu.terminal import Output, standard_input
from emu.words import parse_debug
from firmware.errors import UserError

if TYPE_CHECKING:
    from emu.recorder import Recorder
    from emu.state import MachineState

_STDIO = ("stdio", "mon:stdio")  # the latter is what QEMU's -nographic means; the monitor here knows Ctrl-A x alone


def add_session_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where a run's output goes."""
    parser.add_argument("--serial", default="stdio", metavar="S", help="where the console goes: stdio, file:F or none")
    parser.add_argument("-d", dest="debug", metavar="LIST", help="log psci, int, in_asm, engine to stderr")
    parser.add_argument("-D", dest="debug_file", type=Path, metavar="F", help="log to a file instead")
    parser.add_argument("--trace", type=Path, metavar="F", help="record the run as JSON lines, for replay")


class Session:
    """Run machines, one after the other, with the same console, log and trace."""

    def __init__(self, options: argparse.Namespace, stack: contextlib.ExitStack) -> None:
        self._options = options
        self._stack = stack
        self._categories = parse_debug(options.debug) if options.debug else frozenset()
        self._machine: Machine | None = None
        self._serial = stack.enter_context(_serial(options.serial, self._interrupt))
        self._log = stack.enter_context(_log_file(options.debug_file))
        typed = stack.enter_context(standard_input(self._interrupt)) if options.serial in _STDIO else None
        self.output: Callable[[bytes], object] = self._serial.write
        self.typed: Callable[[int], bytes] = typed.take if typed else nobody
        self._input = typed
        self._recorder: Recorder | None = None

    def start(self, setup: Setup, state: MachineState | None = None) -> Machine:
        """Build a machine and show it from its first instruction on, or from a state."""
        machine = Machine(setup, output=self.output, typed=self.typed)
        if state is not None:
            from emu.state import adopt  # noqa: PLC0415  for a machine with a past

            adopt(machine, state)
        self._stack.enter_context(_on_interrupt(self._interrupt))
        self._stack.enter_context(told_of_aborts(partial(self._tell_of_abort, machine)))
        self.show(machine)
        return machine

    def show(self, machine: Machine) -> None:
        """Go on with a machine that has a past: another session's, or another host's. Say first what of its host is unknown."""
        before, self._machine = self._machine, machine
        remark = remark_on(machine.config.host)
        if remark is not None and (before is None or before.config.host != machine.config.host):
            print(f"psci-emu: {remark}", file=sys.stderr)
        if self._input is not None:
            machine.wait_for_typing = partial(self._input.wait, is_over=lambda: machine.interrupted)
        if self._categories:
            Log(machine, self._categories, self._log)
        if self._recorder is not None:
            self._recorder.follow(machine)
        elif self._options.trace is not None:
            from emu.recorder import Recorder  # noqa: PLC0415  with msgspec, which a run without a trace does not need

            stream = self._stack.enter_context(opened(f"--trace {self._options.trace}", self._options.trace))
            self._recorder = Recorder(machine, stream)

    def finish(self, outcome: Outcome) -> int:
        """Tell how it ended; return the exit code."""
        machine = self._machine
        assert machine is not None
        if self._recorder is not None:
            self._recorder.finish(outcome)
        if outcome.code == ExitCode.CRASH:
            print(crash(machine), file=sys.stderr)
        self._stack.close()  # the terminal as it was, files written
        if outcome.code:
            calls = machine.clock.traps
            after = f"after {calls} call{'' if calls == 1 else 's'} at virtual time {machine.clock.now_ns / 1e9:.9f} s"
            print(f"psci-emu: {outcome.sentence} ({after}), exit code {outcome.code}", file=sys.stderr)
        return outcome.code

    def _interrupt(self, *_signal: object) -> None:
        if self._machine is not None:
            self._machine.interrupted = True

    def _tell_of_abort(self, machine: Machine) -> None:
        machine.console.flush()
        self._stack.close()  # the terminal as it was, files written
        print(crash(machine), file=sys.stderr)
        print(f"psci-emu: guest crash: the engine gave up at an instruction, exit code {ExitCode.CRASH:d}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def session(options: argparse.Namespace, inputs: Mapping[str, Path | None], outputs: Mapping[str, Path | None]) -> Iterator[Session]:
    """Open what a run writes to; `inputs` and `outputs` are the command's other files, which it must not overwrite."""
    serial = options.serial.removeprefix("file:")
    mine = {
        "-serial": Path(serial) if serial != options.serial else None,
        "-D": options.debug_file,
        "--trace": options.trace,
    }
    protect(inputs, {**mine, **outputs})
    with contextlib.ExitStack() as stack:
        yield Session(options, stack)


def abandon_output() -> None:
    """Write nothing more to standard output, not even what is still buffered."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _serial(text: str, interrupt: Callable[[], None]) -> Iterator[Output]:
    def broken() -> None:
        # As a program that SIGPIPE ends.
        interrupt()
        abandon_output()

    if text in _STDIO:
        yield Output(None if sys.stdout is None else sys.stdout.buffer, broken)
    elif text == "none":
        yield Output(None)
    elif text.startswith("file:"):
        with opened(f"-serial {text}", Path(text.removeprefix("file:"))) as stream:
            yield Output(stream)
    else:
        raise UserError(f"-serial {text!r} is not offered; allowed: stdio, file:F, none")


@contextlib.contextmanager
def _log_file(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stderr
        return
    with io.TextIOWrapper(opened(f"-D {path}", path), encoding="utf-8") as stream:
        yield stream


@contextlib.contextmanager
def _on_interrupt(interrupt: Callable[..., None]) -> Iterator[None]:
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
