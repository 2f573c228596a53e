"""The gallery: each guest fails exactly where its row says, its mended twin does not, and docs/gallery.md is what they did."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest
from elftools.elf.elffile import ELFFile

from emu.cli import main
from emu.gallery import run_image
from emu.outcome import ExitCode
from firmware.errors import UserError
from firmware.hosts import HOSTS
from firmware.hosts.kvm_releases import RELEASES
from guests.gallery import FOLDER, GalleryGuest, gallery, gallery_guest
from tests.gallery import PAGE, Place, cases, header, marks, places, row, stories, twin_fails

GUESTS: Final = tuple(gallery().values())
NUMBERS: Final = [number for number in range(1, 38) if number != 13]
NO_MISTAKE: Final = ("G09", "G29")
SPEC_VERSIONS: Final = ("0.2", "1.0", "1.1", "1.2", "1.3")
# They number CPUs by rules of their own: no device tree of theirs has these MPIDRs.
NOT_THEIR_MACHINE: Final = {("G22", "hafnium-secondary"), ("G22", "u-boot"), ("G23", "hafnium-secondary")}
# A run of all places takes a minute and a half: here is each host at its newest version, and KVM where something changed for guests.
KVM_CHANGES: Final = ("kvm-3.11", "kvm-3.19", "kvm-4.15", "kvm-4.16", "kvm-5.18", "kvm-6.12", "kvm-6.13")
SAMPLE: Final = [
    *(Place("spec", version) for version in SPEC_VERSIONS),
    *(Place(name, str(host.latest)) for name, host in HOSTS.items() if name != "spec" and (host not in RELEASES or name in KVM_CHANGES)),
]

every_guest = pytest.mark.parametrize("guest", GUESTS, ids=lambda guest: guest.name)


def _last_line(console: str) -> str:
    return (console.strip().splitlines()[-1:] or [""])[0]


# ---- what the rows say


@every_guest
def test_firmware_that_exposes_a_mistake_gives_the_symptom_and_the_twin_gets_through(guest: GalleryGuest) -> None:
    for exposed in guest.exposed:
        ran = run_image(guest, guest.elf, exposed.firmware)

        assert (ran.code, _last_line(ran.console)) == (exposed.code, exposed.console), exposed.firmware
        assert guest.twin is not None
        mended = run_image(guest, guest.twin, exposed.firmware)
        assert not mended.failed, (exposed.firmware, mended)


@every_guest
def test_a_guest_fails_at_the_versions_of_spec_that_its_row_names_and_at_no_other(guest: GalleryGuest) -> None:
    runs = {version: run_image(guest, guest.elf, f"-psci {version}") for version in SPEC_VERSIONS}

    assert tuple(version for version, ran in runs.items() if ran.failed) == guest.fails_at
    assert all(not run_image(guest, guest.twin, f"-psci {version}").failed for version in SPEC_VERSIONS if guest.twin is not None)


@every_guest
def test_firmware_that_spares_a_guest_does_and_its_twin_too(guest: GalleryGuest) -> None:
    for firmware in guest.spared:
        images = [guest.elf] if guest.twin is None else [guest.elf, guest.twin]

        assert [run_image(guest, image, firmware).failed for image in images] == [False] * len(images), firmware


@every_guest
@pytest.mark.parametrize("psci", ["none", "0.1"])
def test_nothing_fails_where_no_driver_would_bind(guest: GalleryGuest, psci: str) -> None:
    assert run_image(guest, guest.elf, f"-psci {psci}").showed_nothing


@every_guest
def test_a_second_run_is_the_same(guest: GalleryGuest) -> None:
    firmware = guest.exposed[0].firmware if guest.exposed else guest.spared[0]

    assert run_image(guest, guest.elf, firmware) == run_image(guest, guest.elf, firmware)


# ---- the page


def _page_rows() -> dict[Place, str]:
    block = PAGE.read_text(encoding="utf-8").split("```")[1].strip("\n").splitlines()
    assert [line.rstrip() for line in header()] == block[:2]
    return {Place(*line.split()[:2]): line for line in block[2:]}


def test_the_page_has_every_host_and_version() -> None:
    assert list(_page_rows()) == places()


@pytest.mark.parametrize("place", SAMPLE, ids=lambda place: f"{place.host}-{place.version}")
def test_the_page_is_what_the_guests_do(place: Place) -> None:
    assert _page_rows()[place] == row(place, marks(place)), "`make gallery` was forgotten"


@pytest.mark.nightly  # all places of the page, twins included: three minutes
@pytest.mark.timeout(900)
def test_the_page_is_what_the_guests_do_everywhere() -> None:
    assert _page_rows() == {place: row(place, marks(place)) for place in places()}


@pytest.mark.parametrize("place", SAMPLE, ids=lambda place: f"{place.host}-{place.version}")
def test_no_twin_fails_on_any_host_whose_machine_it_is(place: Place) -> None:
    failed = {(guest.name, place.host) for guest in GUESTS if twin_fails(guest, place)}

    assert failed == {each for each in NOT_THEIR_MACHINE if each[1] == place.host}


@every_guest
def test_the_page_lists_what_exposes_a_guest(guest: GalleryGuest) -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()

    assert [line for line in lines if line.startswith(f"| {guest.name} ")] == cases(guest)


def test_the_page_tells_the_catalogue_s_stories() -> None:
    assert PAGE.read_text(encoding="utf-8").endswith(f"\n\n{stories()}")


# ---- the catalogue


def test_the_gallery_is_the_issue_s_but_for_a_firmware_s_mistake() -> None:
    assert [guest.name for guest in GUESTS] == [f"G{number:02}" for number in NUMBERS]


def test_every_source_and_image_has_an_entry_and_every_entry_its_own() -> None:
    elf_folder = GUESTS[0].elf.parent
    images = {guest.elf for guest in GUESTS} | {guest.twin for guest in GUESTS if guest.twin is not None}

    assert set(FOLDER.glob("g[0-9]*.c")) == {guest.source for guest in GUESTS}
    assert set(elf_folder.iterdir()) == images


@every_guest
def test_two_guests_make_no_mistake_and_every_other_is_exposed(guest: GalleryGuest) -> None:
    harmless = guest.name in NO_MISTAKE

    assert (guest.twin is None) == harmless
    assert ("#ifdef MENDED" in guest.source.read_text() or "#ifndef MENDED" in guest.source.read_text()) != harmless
    assert (guest.exposed == ()) == harmless
    assert not (harmless and guest.fails_at)


@every_guest
def test_a_synthetic_guest_says_so(guest: GalleryGuest) -> None:
    assert guest.synthetic == guest.cite.startswith("synthetic")


@every_guest
def test_a_row_is_told_in_sentences(guest: GalleryGuest) -> None:
    assert guest.story.endswith((".", "?"))
    assert not guest.symptom.endswith(".")
    assert "\n" not in guest.title + guest.story + guest.cite
    assert guest.read in ("yes", "log", "no")
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9.]+)+( \(for information\))?|none: this is how it is done", guest.rule)


@every_guest
def test_a_source_opens_with_its_mistake(guest: GalleryGuest) -> None:
    assert re.match(r"/\* .+ \*/\n#include \"gallery\.h\"\n", guest.source.read_text())


@pytest.mark.parametrize("image", sorted(GUESTS[0].elf.parent.iterdir()), ids=lambda path: path.stem)
def test_an_image_is_small_and_names_no_file_of_the_machine_that_built_it(image: Path) -> None:
    content = image.read_bytes()

    assert len(content) < 30 * 1024
    assert b"/home/" not in content
    assert b"/tmp/" not in content
    with image.open("rb") as file:
        assert not ELFFile(file).has_dwarf_info()


# ---- the command line


def test_the_gallery_is_listed_with_the_guests(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["guests"]) == ExitCode.OK

    out = capsys.readouterr().out
    assert "rendezvous" in out
    assert all(f"{guest.name}  " in out for guest in GUESTS)


@every_guest
@pytest.mark.parametrize("command", [["guests", "show"], ["guests"]], ids=" ".join)
def test_a_guest_is_told_whole(guest: GalleryGuest, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, guest.name.lower()]) == ExitCode.OK

    out = capsys.readouterr().out
    assert out.startswith(f"{guest.name}: {guest.title}\n\n{guest.story}\n")
    assert guest.citation in out
    assert all(f"exit code {exposed.code}" in out for exposed in guest.exposed)


def test_a_shown_command_gives_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    guest = gallery_guest("G05")

    assert main(["run", "-kernel", str(guest.elf), "-smp", "2", "-host", "kvm-6.13"]) == guest.exposed[0].code
    assert capsys.readouterr().out.splitlines()[-1] == guest.exposed[0].console


def test_a_guest_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["guests", "show", "G13"]) == ExitCode.USAGE
    assert capsys.readouterr().err.startswith("psci-emu: there is no G13 in the gallery; there are G01, G02,")
    with pytest.raises(UserError):
        gallery_guest("G38")
