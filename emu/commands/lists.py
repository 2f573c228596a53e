"""What there is: registers, functions, hosts, guests; and all about one function."""

from __future__ import annotations

import argparse

from emu import lists
from emu.commands import Command
from emu.commands.run import add_firmware_options, choices_of
from emu.explain import explain
from emu.outcome import ExitCode


def _add_explain_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a function's name or ID (psci-emu functions)")
    parser.add_argument("--host", metavar="NAME", help="one host alone; default all")


def _explain(options: argparse.Namespace) -> int:
    print(explain(options.name, options.host))
    return ExitCode.OK


def _add_guest_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="one guest, whole")


REGS = Command(add_firmware_options, lambda options: lists.regs(choices_of(options)))
FUNCTIONS = Command(add_firmware_options, lambda options: lists.functions(choices_of(options)))
EXPLAIN = Command(_add_explain_options, _explain)
HOSTS = Command(lambda _parser: None, lambda _options: lists.hosts())


def _add_shown_guest(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a guest's name, or GNN of the gallery")


GUESTS_SHOW = Command(_add_shown_guest, lambda options: lists.show_guest(options.name))
GUESTS = Command(_add_guest_name, lambda options: lists.guests(options.name))
