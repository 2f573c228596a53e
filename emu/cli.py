"""The command line: finds the command, and turns what goes wrong into one sentence and an exit code."""

from __future__ import annotations

import errno
import sys
from collections.abc import Collection, Sequence
from importlib import import_module
from typing import Final, NamedTuple

from emu.commands import Command
from emu.options import Parser, whole_words
from emu.outcome import ExitCode
from emu.session import abandon_output
from firmware.errors import UserError, unknown

_OUTPUT_ERRORS = (errno.ENOSPC, errno.EIO, errno.EBADF, errno.EFBIG)


class _Entry(NamedTuple):
    """Where a command is (imported when it is asked for: a run should not pay for a table), and what it is for."""

    module: str
    attribute: str
    summary: str

    def command(self) -> Command:
        command = getattr(import_module(f"emu.commands.{self.module}"), self.attribute)
        assert isinstance(command, Command)
        return command


_COMMANDS: Final = {
    "run": _Entry("run", "RUN", "run a guest"),
    "regs": _Entry("lists", "REGS", "list a host's firmware registers"),
    "functions": _Entry("lists", "FUNCTIONS", "list the functions and who serves them"),
    "explain": _Entry("lists", "EXPLAIN", "tell all about a function, and how the hosts differ"),
    "hosts": _Entry("lists", "HOSTS", "list the modelled hosts"),
    "hosts show": _Entry("hosts", "SHOW", "tell all that is modelled of a host, with its sources"),
    "hosts diff": _Entry("hosts", "DIFF", "ask two hosts everything, and show where they differ"),
    "guests": _Entry("lists", "GUESTS", "list the guests that come along, and the gallery of broken ones"),
    "guests show": _Entry("lists", "GUESTS_SHOW", "tell a guest whole: its story, and the firmware that exposes it"),
    "probe": _Entry("probe", "PROBE", "ask a guest how it would probe every firmware"),
    "lint": _Entry("lint", "LINT", "run a guest on a set of firmware, and report the rules it breaks"),
    "fuzz": _Entry("fuzz", "FUZZ", "run a guest on firmware that is mutated, and report what goes wrong"),
    "replay": _Entry("replay", "REPLAY", "play a recorded run to a fresh firmware, or to another host"),
    "snapshot save": _Entry("snapshot", "SAVE", "run a guest to a point, and keep the whole machine in a file"),
    "snapshot load": _Entry("snapshot", "LOAD", "go on from there"),
    "snapshot info": _Entry("snapshot", "INFO", "tell what a snapshot holds"),
    "snapshot diff": _Entry("snapshot", "DIFF", "tell in what two snapshots differ"),
    "migrate": _Entry("migrate", "MIGRATE", "move a running guest to another host"),
    "matrix": _Entry("matrix", "MATRIX", "what becomes of a guest for every source, destination, version and policy"),
    "demo": _Entry("demo", "DEMO", "show what the emulator is for"),
}


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
        abandon_output()  # whoever read it has gone; there is nobody left to tell
        return ExitCode.OK
    except OSError as error:
        if error.errno not in _OUTPUT_ERRORS:
            raise
        abandon_output()
        print(f"psci-emu: standard output cannot be written: {error.strerror}", file=sys.stderr)
        return ExitCode.USAGE
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception:
        import traceback  # noqa: PLC0415

        traceback.print_exc()
        print("psci-emu: this is a mistake of ours, not of the guest or the command; please report the lines above", file=sys.stderr)
        return ExitCode.OURS


def _command(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
        return ExitCode.OK
    if arguments[0] in ("-version", "--version"):
        from importlib.metadata import version  # noqa: PLC0415  10 ms that a run does not need

        print(f"psci-emu {version('psci-emu')}")
        return ExitCode.OK
    name, rest = _named(arguments)
    group = [each for each in _COMMANDS if each.startswith(f"{arguments[0]} ")]
    if group and name not in _COMMANDS:
        if arguments[1:2] in (["-h"], ["--help"]):
            print(_usage(group))
            return ExitCode.OK
        if len(arguments) == 1:
            raise UserError(f"{arguments[0]} is no command by itself; offered: {', '.join(group)}")
        raise unknown("command", name, group)
    if name not in _COMMANDS:
        raise unknown("command", name, _COMMANDS)
    command = _COMMANDS[name].command()
    parser = Parser(prog=f"psci-emu {name}", description=_COMMANDS[name].summary)
    command.add_options(parser)
    return command.run(parser.parse_args(whole_words(rest, parser, f"psci-emu {name}")))


def _named(arguments: list[str]) -> tuple[str, list[str]]:
    """Return the command's name, of one word or two, and the rest; without a name it is `run`."""
    first = arguments[0]
    if first.startswith("-"):
        return "run", arguments
    if any(name.startswith(f"{first} ") for name in _COMMANDS):
        both = " ".join(arguments[:2])
        if both in _COMMANDS or first not in _COMMANDS:
            return both, arguments[2:]
    return first, arguments[1:]


def _usage(names: Collection[str] = _COMMANDS) -> str:
    width = max(map(len, names))
    lines = ["psci-emu: the firmware an AArch64 guest sees through HVC and SMC", "", "usage: psci-emu COMMAND [options]", ""]
    lines += [f"  {name:<{width}} {entry.summary}" for name, entry in _COMMANDS.items() if name in names]
    return "\n".join([*lines, "", "psci-emu COMMAND -h tells a command's options."])
