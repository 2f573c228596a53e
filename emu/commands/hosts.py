"""`hosts show` and `hosts diff`: one host whole, and two hosts asked everything."""

from __future__ import annotations

import argparse

from emu.commands import Command
from emu.hostdiff import differences
from emu.hostpage import tell
from emu.hosts import host_of
from emu.lists import show
from emu.outcome import ExitCode


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a host (psci-emu hosts), any KVM release, or FILE.toml")


def _show(options: argparse.Namespace) -> int:
    tell(host_of(options.name))
    return ExitCode.OK


def _add_names(parser: argparse.ArgumentParser) -> None:
    for name in ("first", "second"):
        parser.add_argument(name, metavar=name.upper(), help="a host (psci-emu hosts), any KVM release, or FILE.toml")
    parser.add_argument("--check", action="store_true", help="end with 100 if they differ")


def _diff(options: argparse.Namespace) -> int:
    """Print every question that the hosts answer differently, and where; 100 with --check if there is any."""
    first, second = host_of(options.first), host_of(options.second)
    rows = differences(first, second)
    if not rows:
        print(f"{first.name} and {second.name} answer every question alike")
        return ExitCode.OK
    show("asked", first.name, second.name, "at", rows=[tuple(row) for row in rows])
    return ExitCode.CHECK_FAILED if options.check else ExitCode.OK


SHOW = Command(_add_name, _show)
DIFF = Command(_add_names, _diff)
