"""The catalogue, the sources and the images belong together: none without the others, and each image is its source's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from emu.words import parse_smp
from firmware.errors import UserError
from guests import FOLDER, Guest, catalogue, elf_path, toolchain

VERSIONS = ("none", "0.1", "0.2", "1.0", "1.1", "1.2", "1.3")
GUEST_CRASH = 120
GUEST_OWN_CODES = range(99)
RAM_START = 0x4000_0000
GUESTS = tuple(catalogue().values())
HEAD = re.compile(r"/\*\n \* Learn: .+?\n \*\n \* Prints: .+?\n \*\n \* At PSCI 0\.2: .+?\n \*/\n", re.DOTALL)
CROSS = "aarch64-linux-gnu-"

every_guest = pytest.mark.parametrize("guest", GUESTS, ids=lambda guest: guest.name)


def test_every_source_has_an_entry_and_every_entry_a_source() -> None:
    sources = {path.name for pattern in ("*.c", "*.S") for path in FOLDER.glob(pattern)}

    assert {guest.source for guest in GUESTS} == sources


def test_every_image_has_an_entry_and_every_entry_an_image() -> None:
    assert {guest.elf for guest in GUESTS} == {f"elf/{path.name}" for path in (FOLDER / "elf").glob("*.elf")}


def test_the_makefile_builds_the_guests_of_the_catalogue() -> None:
    line = re.search(r"^GUESTS := ((?:.*\\\n)*.*)$", (FOLDER / "Makefile").read_text(), re.MULTILINE)

    assert line is not None
    assert line[1].replace("\\\n", " ").split() == [guest.name for guest in GUESTS]


@every_guest
def test_a_source_opens_with_what_one_learns_what_it_prints_and_what_changes_at_psci_0_2(guest: Guest) -> None:
    assert HEAD.match((FOLDER / guest.source).read_text()) is not None


@every_guest
def test_an_entry_names_its_guest_the_same_everywhere(guest: Guest) -> None:
    assert re.fullmatch(r"[a-z0-9]+([-.][a-z0-9]+)*", guest.name)
    assert guest.source in (f"{guest.name}.c", f"{guest.name}.S")
    assert guest.elf == f"elf/{guest.name}.elf"


@every_guest
def test_a_summary_is_one_line_without_a_full_stop(guest: Guest) -> None:
    assert guest.summary == guest.summary.strip()
    assert "\n" not in guest.summary
    assert not guest.summary.endswith(".")
    assert guest.lesson.endswith(".")


@every_guest
def test_an_entry_expects_a_documented_exit_code_for_every_version(guest: Guest) -> None:
    assert tuple(guest.expect) == VERSIONS
    assert all(code in GUEST_OWN_CODES or code == GUEST_CRASH for code in guest.expect.values())


@every_guest
def test_an_entry_takes_at_least_one_cpu(guest: Guest) -> None:
    assert guest.smp >= 1


@every_guest
def test_an_entry_has_a_topology_only_where_a_number_of_cpus_will_not_do(guest: Guest) -> None:
    mpidrs = parse_smp(guest.smp_option)

    assert len(mpidrs) == guest.smp
    assert (guest.topology is None) == (mpidrs == tuple(range(guest.smp)))
    assert guest.smp_option == (str(guest.smp) if guest.topology is None else guest.topology)


@every_guest
def test_an_image_is_small_lies_in_ram_and_keeps_its_symbols_but_no_debug_sections(guest: Guest) -> None:
    path = elf_path(guest.name)

    assert path.stat().st_size < 30 * 1024
    with path.open("rb") as file:
        elf = ELFFile(file)
        (segment,) = elf.iter_segments()
        assert elf["e_machine"] == "EM_AARCH64"
        assert segment["p_paddr"] == elf["e_entry"] > RAM_START
        symbols = elf.get_section_by_name(".symtab")
        assert isinstance(symbols, SymbolTableSection)
        assert symbols.get_symbol_by_name("guest_main") is not None
        assert not elf.has_dwarf_info()


def test_an_unknown_guest_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match="rendezvous"):
        elf_path("rendez-vous")


@every_guest
def test_an_image_names_no_file_of_the_machine_that_built_it(guest: Guest) -> None:
    image = elf_path(guest.name).read_bytes()

    assert str(FOLDER).encode() not in image
    assert b"/home/" not in image
    assert b"/tmp/" not in image


def test_the_images_are_what_their_sources_say(tmp_path: Path) -> None:
    _need_toolchain()
    command = ["make", "-s", "-C", str(FOLDER), "all", f"CROSS={CROSS}", f"BUILD={tmp_path / 'build'}", f"ELF={tmp_path / 'elf'}"]

    subprocess.run(command, check=True)

    for guest in GUESTS:
        assert (tmp_path / guest.elf).read_bytes() == elf_path(guest.name).read_bytes(), f"{guest.name}: `make -C guests` was forgotten"
    for image in (FOLDER / "elf" / "gallery").iterdir():
        assert (tmp_path / "elf" / "gallery" / image.name).read_bytes() == image.read_bytes(), f"{image.stem}: as above"


# CI installs the releases the catalogue names; elsewhere another release is nobody's fault.
def _need_toolchain() -> None:
    missing = _missing_toolchain()
    if missing is not None and os.environ.get("CI") == "true":
        pytest.fail(missing)
    if missing is not None:
        pytest.skip(missing)


def _missing_toolchain() -> str | None:
    if shutil.which("make") is None or shutil.which(f"{CROSS}gcc") is None:
        return f"make and {CROSS}gcc are needed"
    wanted = toolchain()
    gcc = _output(f"{CROSS}gcc", "-dumpfullversion").strip()
    binutils = _output(f"{CROSS}ld", "--version").splitlines()[0].split()[-1]
    if (gcc, binutils) != (wanted["gcc"], wanted["binutils"]):
        return f"the images were built by gcc {wanted['gcc']} and binutils {wanted['binutils']}, here are {gcc} and {binutils}"
    return None


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
