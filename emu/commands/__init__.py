"""The command line's commands, a file for each kind; emu/cli.py lists them all."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple


class Command(NamedTuple):
    """A command: what adds its options to a parser, and what runs it and returns its exit code."""

    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
