"""The guests that come with the emulator: small EL1 programs, one lesson each, described in catalogue.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from firmware.errors import unknown

FOLDER: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """One table of the catalogue.

    smp       how many CPUs its lesson takes
    source    path of the source, relative to this package's folder
    elf       path of the image, relative to this package's folder
    expect    exit code by offered PSCI version ("0.1" to "1.3", and "none" for a machine without firmware)
    qemu      why QEMU's outcome cannot be compared, None where it can
    topology  -smp in full where the lesson is about clusters, None where a number of CPUs will do
    """

    name: str
    summary: str
    lesson: str
    smp: int
    source: str
    elf: str
    expect: Mapping[str, int]
    qemu: str | None = None
    topology: str | None = None

    @property
    def smp_option(self) -> str:
        """Give what -smp takes to show the lesson."""
        return self.topology or str(self.smp)


def catalogue() -> dict[str, Guest]:
    """Read the catalogue: each guest by its name, in the catalogue's order."""
    tables: dict[str, dict[str, Any]] = _read()["guests"]
    return {name: Guest(name=name, **table) for name, table in tables.items()}


def toolchain() -> dict[str, str]:
    """Name the releases of gcc and binutils that built the images."""
    releases: dict[str, str] = _read()["toolchain"]
    return releases


def elf_path(name: str) -> Path:
    """Find a guest's image; raise `UserError` for a name that is not in the catalogue."""
    guests = catalogue()
    if name not in guests:
        raise unknown("guest", name, guests)
    return FOLDER / guests[name].elf


def _read() -> dict[str, Any]:
    return tomllib.loads((FOLDER / "catalogue.toml").read_text(encoding="utf-8"))
