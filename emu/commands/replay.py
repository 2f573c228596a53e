"""`replay`: a recorded run, played to a fresh firmware or to another host."""

from __future__ import annotations

import argparse
from pathlib import Path

from emu.commands import Command
from emu.outcome import ExitCode
from emu.replay import Replay


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("trace", type=Path, metavar="F", help="what --trace wrote")
    parser.add_argument("--host", metavar="NAME", help="ask another host the same")


def _replay(options: argparse.Namespace) -> int:
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


REPLAY = Command(_add_options, _replay)
