"""`replay`: a recorded run, played to a fresh firmware or to another host; or a finding of the fuzzer's, run again."""

from __future__ import annotations

import argparse
from pathlib import Path

from emu.commands import Command
from emu.files import OF_A_MACHINE
from emu.outcome import ExitCode
from emu.printable import printable_text
from emu.replay import Replay
from firmware.errors import UserError


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("trace", type=Path, metavar="F", help="what --trace wrote, or a finding of fuzz (F.toml)")
    parser.add_argument("--host", metavar="NAME", help="of a trace: ask another host the same")
    for name in OF_A_MACHINE:
        parser.add_argument(f"--{name}", type=Path, metavar="F", help=f"of a finding: where the {name} is now")


def _replay(options: argparse.Namespace) -> int:
    is_finding = options.trace.suffix == ".toml"
    for name in ("host",) if is_finding else OF_A_MACHINE:
        if getattr(options, name) is not None:
            raise UserError(f"-{name} is for {'a trace, and this is a finding' if is_finding else 'a finding, and this is a trace'}")
    return _finding(options) if is_finding else _trace(options)


def _trace(options: argparse.Namespace) -> int:
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


def _finding(options: argparse.Namespace) -> int:
    from emu.fuzz.again import again  # noqa: PLC0415  with all that a trace does not need
    from emu.fuzz.files import read_finding  # noqa: PLC0415
    from emu.fuzz.texts import again_as_text  # noqa: PLC0415

    written = read_finding(options.trace)
    result = again(written, {name: getattr(options, name) for name in OF_A_MACHINE if getattr(options, name) is not None})
    for line in again_as_text(written, result):
        print(printable_text(line))
    return ExitCode.CHECK_FAILED if result.differences else ExitCode.OK


REPLAY = Command(_add_options, _replay)
