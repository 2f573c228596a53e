"""`demo`: short shows."""

from __future__ import annotations

import argparse

from emu import demo
from emu.commands import Command
from firmware.errors import unknown

_DEFAULT = "versions"


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", default=_DEFAULT, metavar="NAME", help=f"of {', '.join(demo.DEMOS)}; default {_DEFAULT}")
    parser.add_argument("--host", default="spec", metavar="NAME", help="of versions: the host to be like; default spec")


def _demo(options: argparse.Namespace) -> int:
    if options.name not in demo.DEMOS:
        raise unknown("demo", options.name, demo.DEMOS)
    return demo.DEMOS[options.name](options.host)


DEMO = Command(_add_options, _demo)
