"""Write docs/gallery.md: every guest of the gallery on every host and version, run now. `python -m tests.gallery`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from emu.gallery import Ran, run_image
from firmware.hosts import HOSTS
from guests.gallery import Exposed, GalleryGuest, gallery

PAGE: Final = Path(__file__).parent.parent / "docs" / "gallery.md"
GUESTS: Final = tuple(gallery().values())

_HEAD: Final = """\
# The gallery

Guests that make one mistake each, and most of the mistakes were made: by kernels, boot loaders and hypervisors that people run. Each has a
mended twin, the same source compiled with `-DMENDED` (`guests/gallery`); two, G09 and G29, look like mistakes, are none, and must not fail.
`psci-emu guests show G05` tells one whole.

This page is what they did when `make gallery` last ran; tests hold it.

## On every host and version

On the machine each guest asks for, over the host's own conduit, with no fault injected. `x` it fails, `.` it gets through, `-` its
mistake cannot be made there, `r` it reset the system and the VMM ended. A column of dots is a mistake that takes broken firmware, or
another machine, to show; the list below has it.

"""
_TWINS: Final = """
The mended twins were run in all the same places, {runs} runs. These failed: {failed}. Those hosts number CPUs by rules of their own,
and would not have given a guest the device tree of such a machine.

## What exposes each, and how

Options are those of `psci-emu run`; `psci-emu guests show GNN` has them with the image and the machine.

| guest | the mistake | rule | firmware | exit code | the console ends with | mended twin |
|---|---|---|---|---|---|---|
"""
_STORIES: Final = "\n## Their stories\n\n"


class Place(NamedTuple):
    """A host, and a PSCI version that it offers."""

    host: str
    version: str

    @property
    def firmware(self) -> str:
        return f"-host {self.host} -psci {self.version}"


def places() -> list[Place]:
    """Return every host and version, the host's oldest version first."""
    found = []
    for host in HOSTS.values():
        versions = dict.fromkeys((*(["0.1"] if host.offers_0_1 else []), *map(str, host.versions)))
        found += [Place(host.name, version) for version in versions]
    return found


def mark(ran: Ran) -> str:
    if ran.failed:
        return "x"
    return "-" if ran.showed_nothing else "." if ran.code == 0 else "r"


def marks(place: Place, guests: Iterable[GalleryGuest] = GUESTS) -> str:
    """Run guests in a place; return a mark for each."""
    return "".join(mark(run_image(guest, guest.elf, place.firmware)) for guest in guests)


def twin_fails(guest: GalleryGuest, place: Place) -> bool:
    return guest.twin is not None and run_image(guest, guest.twin, place.firmware).failed


def row(place: Place, found: str) -> str:
    """Spell a line of the table."""
    return f"{place.host:<18}{place.version:<5}{' '.join(_in_fives(found))}"


def header() -> list[str]:
    numbers = [guest.name[1:] for guest in GUESTS]
    labels = (f"{'':<22}G", f"{'host':<18}{'PSCI':<5}")
    return [label + " ".join(_in_fives("".join(number[digit] for number in numbers))) for digit, label in enumerate(labels)]


def _in_fives(found: str) -> Iterator[str]:
    for start in range(0, len(found), 5):
        yield found[start : start + 5]


def cases(guest: GalleryGuest) -> list[str]:
    """Run a guest on what exposes it; return the lines of the list."""
    lines = [_case(guest, exposed) for exposed in guest.exposed]
    return lines or [f"| {guest.name} | {guest.title} | | nothing | | | |"]


def _case(guest: GalleryGuest, exposed: Exposed) -> str:
    ran = run_image(guest, guest.elf, exposed.firmware)
    twin = "" if guest.twin is None else _outcome(run_image(guest, guest.twin, exposed.firmware))
    last = ran.console.strip().splitlines()[-1:] or [""]
    firmware = exposed.firmware.replace("gallery/", "guests/gallery/")
    return f"| {guest.name} | {guest.title} | `{guest.rule}` | `{firmware}` | {int(ran.code)} | {last[0]} | {twin} |"


def _outcome(ran: Ran) -> str:
    return f"fails: {int(ran.code)}" if ran.failed else "gets through"


def _twins(where: Sequence[Place]) -> str:
    runs = [(guest, place) for guest in GUESTS if guest.twin is not None for place in where]
    failed = [f"{guest.name} on {place.host}" for guest, place in runs if twin_fails(guest, place)]
    return _TWINS.format(runs=len(runs), failed=", ".join(failed))


def stories() -> str:
    return "\n".join(f"- **{guest.name}**, {guest.title}: {guest.story} *{guest.citation}*" for guest in GUESTS) + "\n"


def page() -> str:
    """Run everything; return the page."""
    where = places()
    table = [*header(), *(row(place, marks(place)) for place in where)]
    block = "```\n" + "\n".join(line.rstrip() for line in table) + "\n```\n"
    listed = "\n".join(line for guest in GUESTS for line in cases(guest))
    return _HEAD + block + _twins(where) + listed + "\n" + _STORIES + stories()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
