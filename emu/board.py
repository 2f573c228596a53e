"""What a machine is made of before anything runs: engine, memory map, loaded images, console, clock."""

from __future__ import annotations

from collections.abc import Callable

from emu import loader
from emu.console import Console
from emu.devices.pl031 import Pl031
from emu.engine import Engine
from emu.memory import FLASH, PVTIME, ram
from emu.physical import PhysicalMemory
from emu.setup import Setup
from emu.symbols import Image, Symbols
from firmware.errors import UserError


class Board:
    """Build what a setup asks for.

    output, typed  the two ends of the console (emu/console.py)
    Raises UserError for a setup that cannot be built, InputError for a file that cannot be used.
    """

    def __init__(self, setup: Setup, output: Callable[[bytes], object], typed: Callable[[int], bytes]) -> None:
        self.ram = ram(setup.ram_bytes)
        self.boot = setup.boot or loader.load(self.ram, setup.device_tree, kernel=setup.kernel, bios=setup.bios, initrd=setup.initrd)
        self.console = Console(output, typed)
        self.rtc = Pl031(setup.wall_clock_s)
        self.engine = Engine(setup.cpu, setup.config.mpidrs)
        regions = [self.ram, PVTIME] + ([FLASH] if self.boot.kind is loader.Kind.BIOS else [])
        try:
            self.memory = PhysicalMemory([(region, self.engine.map_ram(region)) for region in regions])
        except OSError as error:
            raise UserError(f"-m {setup.ram_bytes >> 20}M: this computer cannot provide so much memory ({error.strerror})") from None
        self.engine.guard_execution()
        self.symbols = self._symbols(setup)

    def _symbols(self, setup: Setup) -> Symbols:
        image = None
        if self.boot.kind is loader.Kind.IMAGE:
            kernel = self.boot.segments[0]
            image = Image(kernel.content, kernel.address, kernel.size_bytes, self.memory.read)
        return Symbols(self.boot.elf, image) if setup.symbols is None else Symbols.from_file(setup.symbols, image)

    @property
    def device_tree(self) -> bytes:
        """The device tree as it is placed in memory."""
        return next(bytes(segment.content) for segment in self.boot.segments if segment.region == self.boot.dtb)

    def power_on(self) -> None:
        """Load the images and give every vCPU its power-on state, the first one at the entry point; other memory stays as it is."""
        for segment in self.boot.segments:
            self.memory.load(segment)
        self.engine.flush_translations()
        self.engine.reset_all()
        self.engine.pc.set(self.boot.pc)
        self.engine.x[0].set(self.boot.x0)
