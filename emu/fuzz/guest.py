"""A guest and its machine as plain data: options of the command line, and the content of the files they name.

1. A worker may be on another computer: it is sent each file once, and knows it by its SHA-256 from then on.
2. What is here is of the guest; the firmware is a `Case`'s.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final, NamedTuple

from emu.commands.run import add_firmware_options, add_machine_options, setup_of
from emu.files import OF_A_MACHINE
from emu.fuzz.case import Case
from emu.loader import MAX_ELF_BYTES, read_file
from emu.options import Parser, whole_words
from emu.setup import Setup
from emu.words import parse_until
from firmware.errors import UserError


class Guest(NamedTuple):
    """What to run, and on what.

    words      options of `psci-emu run` without the firmware's and without files
    conduit    hvc or smc, where a case does not say; None for each host's own
    files      (option, SHA-256) of the files, in hex
    until      where a run ends, well: call:NAME#N or console:REGEX; None for the guest's own end
    max_insns  limit of a run in instructions, and
    max_calls  in calls
    """

    words: tuple[str, ...]
    conduit: str | None
    files: tuple[tuple[str, str], ...]
    until: str | None
    max_insns: int
    max_calls: int

    def setup(self, case: Case, paths: Mapping[str, Path]) -> Setup:
        """Return the machine for a case's host, version, conduit and device tree; faults and all else are not in it.

        paths  where each file is, by its SHA-256
        Raises UserError for a firmware that cannot be.
        """
        words = [*self.words, "-host", case.host, "-psci", case.psci]
        conduit = case.conduit or self.conduit
        words += [] if conduit is None else ["-conduit", conduit]
        for name, digest in self.files:
            words += [f"-{name}", str(paths[digest])]
        setup = setup_of(_parse(words))
        return dataclasses.replace(
            setup,
            until=None if self.until is None else parse_until(setup.config, self.until),
            compatible=case.compatible or None,
            max_insns=self.max_insns,
            max_calls=self.max_calls,
            no_reboot=True,
        )


def read_files(options: argparse.Namespace) -> dict[str, bytes]:
    """Return the content of the files that the machine's options name; raise InputError for one that cannot be read."""
    named = ((name, getattr(options, name)) for name in OF_A_MACHINE)
    return {name: read_file(path, MAX_ELF_BYTES).content for name, path in named if path is not None}


# By attribute of the parsed options: how it is typed.
_OF_THE_MACHINE: Final = {
    "append": "-append",
    "machine": "-machine",
    "smp": "-smp",
    "mpidr": "-mpidr",
    "memory": "-m",
    "cpu": "-cpu",
    "psci_node": "-psci-node",
    "timeout": "-timeout",
}


def machine_words(options: argparse.Namespace) -> tuple[str, ...]:
    """Return what the machine's options say, word by word, but for files, seed and limits."""
    return tuple(word for name, option in _OF_THE_MACHINE.items() if getattr(options, name) for word in (option, getattr(options, name)))


def check_machine_words(words: Sequence[str]) -> None:
    """Raise UserError for words that `machine_words` does not give."""
    for option in words[::2]:
        if option not in _OF_THE_MACHINE.values():
            raise UserError(f"{option!r} is not one of {', '.join(_OF_THE_MACHINE.values())}")
    if len(words) % 2:
        raise UserError(f"{words[-1]} has no value")


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Store:
    """Files by their SHA-256, for as long as this object is there: they have no name, and vanish with the process."""

    def __init__(self) -> None:
        self._files: dict[str, IO[bytes]] = {}
        weakref.finalize(self, _close, self._files)

    def add(self, content: bytes) -> None:
        """Keep a file."""
        digest = digest_of(content)
        if digest in self._files:
            return
        file = tempfile.TemporaryFile(prefix="psci-emu")  # noqa: SIM115  it is open as long as somebody may ask for it
        file.write(content)
        file.flush()
        self._files[digest] = file

    def lacks(self, guest: Guest) -> list[str]:
        """Return the digests of the files of a guest's that are not here."""
        return [digest for _, digest in guest.files if digest not in self._files]

    @property
    def paths(self) -> dict[str, Path]:
        return {digest: Path(f"/proc/self/fd/{file.fileno()}") for digest, file in self._files.items()}


def _close(files: dict[str, IO[bytes]]) -> None:
    for file in files.values():
        file.close()


def _parse(words: list[str]) -> argparse.Namespace:
    parser = Parser(prog="psci-emu run")
    add_machine_options(parser)
    add_firmware_options(parser)
    return parser.parse_args(whole_words(words, parser, "fuzz"))
