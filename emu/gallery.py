"""Run a guest of the gallery, or its mended twin, on firmware given as options of `psci-emu run`."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Final, NamedTuple

from emu.commands.run import add_firmware_options, add_machine_options, setup_of
from emu.machine import Machine
from emu.options import Parser, whole_words
from emu.outcome import WELL
from emu.setup import Setup
from guests.gallery import GalleryGuest, located

# More than any of them takes that ends by itself.
_ENOUGH_INSTRUCTIONS: Final = 5_000_000


class Ran(NamedTuple):
    """How a run ended, and what the guest printed."""

    code: int
    console: str

    @property
    def failed(self) -> bool:
        """Whether the guest, and not its host's VMM, came to grief."""
        return self.code not in WELL

    @property
    def showed_nothing(self) -> bool:
        """Whether the guest found that its mistake cannot be made here."""
        return not self.failed and "PASS: nothing to show" in self.console


def setup_for(guest: GalleryGuest, image: Path, firmware: str) -> Setup:
    """Return the machine that runs an image of a guest's; options of the firmware may change the machine too."""
    parser = Parser(prog="psci-emu run")
    add_machine_options(parser)
    add_firmware_options(parser)
    words = shlex.split(f"-kernel {shlex.quote(str(image))} {guest.machine} {located(firmware)}")
    setup = setup_of(parser.parse_args(whole_words(words, parser, "the gallery")))
    return dataclasses.replace(setup, max_insns=_ENOUGH_INSTRUCTIONS)


def run_image(guest: GalleryGuest, image: Path, firmware: str) -> Ran:
    """Run an image of a guest's to its end."""
    console = bytearray()
    outcome = Machine(setup_for(guest, image, firmware), output=console.extend).run()
    return Ran(outcome.code, console.decode("ascii"))
