"""The gallery: small guests that each make one mistake that was made, and their mended twins, described in catalogue.toml."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from firmware.errors import UserError

FOLDER: Final = Path(__file__).parent
_ELF: Final = FOLDER.parent / "elf" / "gallery"
_READ: Final = {
    "yes": "read for this row",
    "log": "a report of it was read, not the source",
    "no": "not re-read",
}


class Exposed(NamedTuple):
    """Firmware that exposes a mistake, as options of `psci-emu run`: the exit code, and what the console ends with."""

    firmware: str
    code: int
    console: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryGuest:
    """One table of the catalogue, whose head says what the fields are.

    has_twin  whether there is a mended twin: two guests make no mistake
    """

    name: str
    title: str
    rule: str
    story: str
    cite: str
    read: str
    synthetic: bool
    machine: str
    has_twin: bool
    fails_at: tuple[str, ...]
    symptom: str
    exposed: tuple[Exposed, ...]
    spared: tuple[str, ...]

    @property
    def source(self) -> Path:
        return FOLDER / f"{self.name.lower()}.c"

    @property
    def elf(self) -> Path:
        return _ELF / f"{self.name.lower()}.elf"

    @property
    def twin(self) -> Path | None:
        """Where the mended twin's image is, None where there is nothing to mend."""
        return _ELF / f"{self.name.lower()}-mended.elf" if self.has_twin else None

    @property
    def citation(self) -> str:
        """The source, and how far it was checked."""
        return f"{self.cite} ({'nobody is known to have done it' if self.synthetic else _READ[self.read]})"


@cache
def gallery() -> Mapping[str, GalleryGuest]:
    """Read the catalogue: each guest by its name, in the catalogue's order."""
    tables: dict[str, dict[str, Any]] = tomllib.loads((FOLDER / "catalogue.toml").read_text(encoding="utf-8"))
    return {name: _guest(name, table) for name, table in tables.items()}


def gallery_guest(name: str) -> GalleryGuest:
    """Return the guest of that name, in whatever case; raise `UserError` for none."""
    guests = gallery()
    if name.upper() not in guests:
        raise UserError(f"there is no {name} in the gallery; there are {', '.join(guests)}")
    return guests[name.upper()]


def located(firmware: str) -> str:
    """Spell options with the files they name where those are."""
    words = shlex.split(firmware)
    return shlex.join(str(FOLDER.parent / word) if word.endswith(".toml") else word for word in words)


def _guest(name: str, table: dict[str, Any]) -> GalleryGuest:
    fields = dict(table)
    return GalleryGuest(
        name=name,
        synthetic=fields.pop("synthetic", False),
        has_twin=fields.pop("mended", True),
        fails_at=tuple(fields.pop("fails_at")),
        exposed=tuple(Exposed(**each) for each in fields.pop("exposed")),
        spared=tuple(fields.pop("spared")),
        **fields,
    )
