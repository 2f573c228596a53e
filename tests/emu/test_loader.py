from __future__ import annotations

import gc
import gzip
import mmap
import os
import struct
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.loader import Boot, File, Kind, Segment, Stored, load, read_file
from emu.memory import RAM_BASE, GiB, KiB, MiB, Region, ram
from emu.physical import PhysicalMemory
from firmware.errors import InputError, UserError

DTB = b"\xd0\x0d\xfe\xed" + bytes(996)
TEXT = RAM_BASE + 0x8_0000
AARCH64, X86_64, ARM = 183, 62, 40


def tree(_initrd: Region | None) -> bytes:
    return DTB


def boot(content: bytes, initrd: bytes | None = None, ram_bytes: int = 128 * MiB) -> Boot:
    return load(ram(ram_bytes), tree, kernel=File("kernel", content), initrd=None if initrd is None else File("initrd", initrd))


def refusal(content: bytes, ram_bytes: int = 128 * MiB) -> str:
    with pytest.raises(InputError) as caught:
        boot(content, ram_bytes=ram_bytes)
    sentence = str(caught.value)
    assert sentence.startswith("kernel ")
    assert "\n" not in sentence
    return sentence


@dataclass(frozen=True)
class Load:
    physical: int = TEXT
    content: bytes = b"\x00\x00\x00\x14"
    memory_bytes: int | None = None
    virtual: int | None = None
    offset: int | None = None
    file_bytes: int | None = None
    kind: int = 1


def elf(
    *loads: Load,
    entry: int = TEXT,
    machine: int = AARCH64,
    bits: int = 2,
    order: int = 1,
    kind: int = 2,
    phentsize: int = 56,
    phnum: int | None = None,
    phoff: int = 64,
) -> bytes:
    """Write an ELF of those segments."""
    endian = "<" if order == 1 else ">"
    if bits == 1:
        return (
            b"\x7fELF\x01"
            + bytes([order, 1])
            + bytes(9)
            + struct.pack(endian + "HHIIIIIHHHHHH", kind, machine, 1, 0, 0, 0, 0, 52, 32, 0, 40, 0, 0)
        )
    count = len(loads) if phnum is None else phnum
    ident = b"\x7fELF\x02" + bytes([order, 1]) + bytes(9)
    header = ident + struct.pack(endian + "HHIQQQIHHHHHH", kind, machine, 1, entry, phoff, 0, 0, 64, phentsize, count, 64, 0, 0)
    table, contents = b"", b""
    for one in loads:
        offset = 64 + 56 * len(loads) + len(contents) if one.offset is None else one.offset
        file_bytes = len(one.content) if one.file_bytes is None else one.file_bytes
        memory_bytes = file_bytes if one.memory_bytes is None else one.memory_bytes
        virtual = one.physical if one.virtual is None else one.virtual
        table += struct.pack(endian + "IIQQQQQQ", one.kind, 5, offset, virtual, one.physical, file_bytes, memory_bytes, 4)
        contents += one.content
    return header + table + contents


def image(body: bytes = bytes(100), text_offset: int = 0, image_size: int = 4 * MiB, flags: int = 0xA) -> bytes:
    """Write an arm64 Image."""
    return struct.pack("<IIQQQ24x4sI", 0x1400_0010, 0, text_offset, image_size, flags, b"ARM\x64", 0) + body


# ELF


def test_an_elf_is_loaded_by_physical_address_with_its_bss_and_entered_with_the_tree_in_x0() -> None:
    content = elf(Load(content=b"code"), Load(TEXT + 0x1000, b"data", memory_bytes=0x100), entry=TEXT)

    booted = boot(content)

    assert booted == Boot(
        kind=Kind.ELF,
        segments=(Segment(TEXT, b"code", 4), Segment(TEXT + 0x1000, b"data", 0x100), Segment(RAM_BASE, DTB, len(DTB))),
        pc=TEXT,
        x0=RAM_BASE,
        dtb=Region(RAM_BASE, len(DTB)),
        initrd=None,
        elf=content,
    )


def test_a_position_independent_elf_is_loaded_where_it_says() -> None:
    assert boot(elf(Load(), kind=3)).pc == TEXT


def test_an_entry_point_is_a_virtual_address_and_starts_at_its_physical_one() -> None:
    booted = boot(elf(Load(virtual=0xFFFF_8000_0000_0000), entry=0xFFFF_8000_0000_0000))

    assert booted.pc == TEXT


def test_an_elf_may_live_in_flash() -> None:
    assert boot(elf(Load(0x1000), entry=0x1000)).segments[0].address == 0x1000


def test_bss_costs_no_memory() -> None:
    content = elf(Load(memory_bytes=200 * GiB))
    tracemalloc.start()

    booted = boot(content, ram_bytes=255 * GiB)

    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert booted.segments[0].size_bytes == 200 * GiB
    assert peak < 64 * MiB


def test_an_elf_at_the_base_of_ram_gets_its_tree_above() -> None:
    booted = boot(elf(Load(RAM_BASE), entry=RAM_BASE))

    assert booted.dtb.base == booted.x0 == RAM_BASE + 64 * MiB


def test_an_elf_that_leaves_too_little_room_below_gets_its_tree_above() -> None:
    assert boot(elf(Load(RAM_BASE + len(DTB)), entry=RAM_BASE + len(DTB))).x0 == RAM_BASE
    assert boot(elf(Load(RAM_BASE + len(DTB) - 4), entry=RAM_BASE + len(DTB) - 4)).x0 > RAM_BASE


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (elf(Load(), machine=X86_64), "kernel is an ELF for X86-64; allowed is AArch64"),
        (elf(Load(), machine=0x7777), "kernel is an ELF for machine 0x7777; allowed is AArch64"),
        (elf(Load(), machine=ARM, bits=1), "kernel is an ELF for ARM; allowed is AArch64"),
        (elf(Load(), bits=1), "kernel is a 32-bit ELF; allowed is 64-bit AArch64"),
        (elf(Load(), order=2), "kernel is a big-endian ELF; allowed is little-endian AArch64"),
        (elf(Load(), kind=1), "kernel is an unlinked object; allowed are executables (ET_EXEC, ET_DYN)"),
        (elf(Load(), kind=4), "kernel is a core dump; allowed are executables (ET_EXEC, ET_DYN)"),
        (elf(), "kernel has nothing to load; allowed is an ELF with at least one PT_LOAD segment"),
        (elf(Load(kind=4)), "kernel has nothing to load; allowed is an ELF with at least one PT_LOAD segment"),
        (elf(Load(memory_bytes=0, content=b"")), "kernel has nothing to load; allowed is an ELF with at least one PT_LOAD segment"),
        (elf(Load(), entry=TEXT + 4), "kernel has its entry point 0x40080004 outside its segments; allowed is one inside"),
        (elf(Load(), entry=TEXT - 4), "kernel has its entry point 0x4007fffc outside its segments; allowed is one inside"),
        (
            elf(Load(memory_bytes=0x100), Load(TEXT + 0x80)),
            "kernel has overlapping segments at 0x40080000-0x400800ff and 0x40080080-0x40080083; allowed are disjoint ones",
        ),
        (
            elf(Load(0x3FFF_0000)),
            "kernel has a segment at 0x3fff0000-0x3fff0003; allowed are RAM, 0x40000000-0x47ffffff, and flash, 0x0-0x7ffffff",
        ),
    ],
    ids=lambda value: value[10:60] if isinstance(value, str) else "",
)
def test_an_elf_that_cannot_run_here_is_refused_in_one_sentence(content: bytes, sentence: str) -> None:
    assert refusal(content) == sentence


@pytest.mark.parametrize(
    "physical",
    [0x0800_0000, 0x0900_0000, 0x07FF_FFFE, RAM_BASE - 2, RAM_BASE + 128 * MiB - 2, 0xFFFF_8000_0000_0000, 2**64 - 2],
    ids=hex,
)
def test_a_segment_outside_ram_and_flash_is_refused(physical: int) -> None:
    assert "has a segment at" in refusal(elf(Load(physical)))


@pytest.mark.parametrize(
    "content",
    [
        elf(Load(offset=10_000)),
        elf(Load(offset=2**64 - 1)),
        elf(Load(file_bytes=10_000)),
        elf(Load(file_bytes=2**64 - 1)),
        elf(Load(memory_bytes=2)),
        elf(*(Load(TEXT + 64 * index, offset=0, file_bytes=64) for index in range(1000))),
    ],
    ids=["offset", "huge offset", "size", "huge size", "more file than memory", "the same bytes again and again"],
)
def test_a_segment_that_the_file_does_not_hold_is_refused(content: bytes) -> None:
    if len(content) > 64_000:
        content = content[: 64 + 56 * 1000]
    assert refusal(content).endswith("do not hold")


@pytest.mark.parametrize(
    "content",
    [
        elf(Load(), phentsize=0),
        elf(Load(), phentsize=32),
        elf(Load(), phnum=0xFFFF),
        elf(Load(), phnum=100),
        elf(Load(), phoff=10_000),
        elf(Load(), phoff=2**64 - 1),
    ],
    ids=["entry size 0", "entry size 32", "PN_XNUM", "too many", "offset", "huge offset"],
)
def test_a_broken_program_header_table_is_refused(content: bytes) -> None:
    assert "has a broken program header table" in refusal(content)


WHOLE_ELF = elf(Load(content=bytes(64)), Load(TEXT + 0x1000, b"data", memory_bytes=0x100), Load(kind=2, content=bytes(32)))


@pytest.mark.parametrize("size_bytes", range(4, 64))
def test_an_elf_truncated_in_its_header_is_refused(size_bytes: int) -> None:
    assert refusal(WHOLE_ELF[:size_bytes])


@given(st.integers(1, len(WHOLE_ELF) - 1))
def test_a_truncated_elf_boots_or_is_an_input_error(size_bytes: int) -> None:
    boots_or_is_refused(WHOLE_ELF[:size_bytes])


def damaged(whole: bytes) -> st.SearchStrategy[bytes]:
    def damage(places: list[tuple[int, int]]) -> bytes:
        content = bytearray(whole)
        for position, value in places:
            content[position] = value
        return bytes(content)

    place = st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255))
    return st.lists(place, min_size=1, max_size=8).map(damage)


def boots_or_is_refused(content: bytes) -> None:
    try:
        booted = boot(content)
    except InputError:
        return
    regions = [segment.region for segment in booted.segments]
    assert not any(first.overlaps(second) for first in regions for second in regions if first is not second)
    assert all(len(segment.content) <= segment.size_bytes for segment in booted.segments)


@given(damaged(WHOLE_ELF))
def test_a_damaged_elf_boots_or_is_an_input_error(content: bytes) -> None:
    boots_or_is_refused(content)


@given(st.binary(min_size=1, max_size=200), st.sampled_from([b"", b"\x7fELF", b"\x7fELF\x02\x01\x01", b"\x1f\x8b", b"\x1f\x8b\x08"]))
def test_any_bytes_boot_or_are_an_input_error(content: bytes, magic: bytes) -> None:
    boots_or_is_refused(magic + content)


# arm64 Image


def test_an_image_is_placed_at_ram_plus_text_offset_with_room_for_image_size() -> None:
    content = image(text_offset=0x8_0000)

    booted = boot(content)

    assert booted.kind is Kind.IMAGE
    assert booted.segments[0] == Segment(RAM_BASE + 0x8_0000, content, 4 * MiB)
    assert booted.pc == RAM_BASE + 0x8_0000
    assert booted.x0 == booted.dtb.base == RAM_BASE + 64 * MiB


def test_an_old_image_without_a_size_is_placed_at_0x80000_whatever_its_header_says() -> None:
    content = image(text_offset=0x0000_0800_0000_0000, image_size=0, flags=1)

    booted = boot(content)

    assert booted.segments[0] == Segment(TEXT, content, len(content))


def test_an_image_larger_than_it_says_keeps_its_own_size() -> None:
    content = image(image_size=16)

    assert boot(content).segments[0].size_bytes == len(content)


def test_an_image_beyond_half_of_ram_gets_its_tree_above_its_bss() -> None:
    assert boot(image(image_size=100 * MiB + 1)).x0 == RAM_BASE + 102 * MiB


@pytest.fixture
def large_image(tmp_path: Path) -> Path:
    path = tmp_path / "Image"
    path.write_bytes(image(bytes(range(256)) * (MiB // 256)))
    return path


def test_a_large_image_is_read_where_it_is_needed(large_image: Path) -> None:
    content = large_image.read_bytes()
    segment = load(ram(), tree, kernel=large_image).segments[0]
    buffer = mmap.mmap(-1, 4 * MiB)

    PhysicalMemory([(Region(RAM_BASE, 4 * MiB), buffer)]).load(segment)

    assert isinstance(segment.content, Stored)
    assert segment.region == Region(RAM_BASE, 4 * MiB)
    assert buffer[:] == content.ljust(4 * MiB, b"\0")
    assert bytes(segment.content) == content
    assert segment.content[100:200] == content[100:200]
    assert segment.content[len(content) - 1 : len(content) + 9] == content[-1:]


@pytest.mark.parametrize(
    "change", [lambda path: path.write_bytes(bytes(100)), lambda path: os.utime(path, (1, 1))], ids=["shorter", "written"]
)
def test_a_large_image_that_has_changed_is_not_read(large_image: Path, change: Callable[[Path], object]) -> None:
    segment = load(ram(), tree, kernel=large_image).segments[0]
    change(large_image)

    with pytest.raises(InputError, match="Image has changed since the machine was started from it; start it again"):
        bytes(segment.content)


def test_a_large_image_that_cannot_be_kept_open_is_read_at_once(large_image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "open", refuse)

    assert load(ram(), tree, kernel=large_image).segments[0].content == large_image.read_bytes()
    gc.collect()


def test_a_large_image_that_was_replaced_is_read_as_it_was(large_image: Path) -> None:
    content = large_image.read_bytes()
    segment = load(ram(), tree, kernel=large_image).segments[0]
    large_image.unlink()

    assert bytes(segment.content) == content


def test_a_big_endian_image_is_refused() -> None:
    assert refusal(image(flags=0xB)) == "kernel is a big-endian arm64 Image (flags 0xb); allowed are little-endian ones"


@pytest.mark.parametrize("content", [image(image_size=128 * MiB + 1), image(text_offset=2**64 - 1), image(image_size=2**64 - 1)])
def test_an_image_that_does_not_fit_into_ram_is_refused(content: bytes) -> None:
    assert refusal(content).endswith("which is not all within RAM, 0x40000000-0x47ffffff; use a larger -m or a smaller image")


def test_an_image_cut_off_in_its_header_is_refused() -> None:
    assert refusal(image()[:60]) == "kernel is a truncated arm64 Image: 60 bytes, and its header alone has 64"


# gzip


def test_a_gzipped_image_is_the_image() -> None:
    assert boot(gzip.compress(image())) == boot(image())


def test_what_follows_the_gzip_stream_is_ignored_as_by_qemu() -> None:
    assert boot(gzip.compress(image()) + bytes(512)) == boot(image())


def test_a_gzip_bomb_stops_at_the_size_of_ram() -> None:
    bomb = gzip.compress(bytes(256 * MiB), 9)
    tracemalloc.start()

    sentence = refusal(bomb, ram_bytes=16 * MiB)

    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sentence == "kernel unpacks to more than the 16 MiB of RAM; use a larger -m"
    assert peak < 64 * MiB


def test_a_gzip_file_that_unpacks_to_nothing_is_refused() -> None:
    assert "unpacks to nothing" in refusal(gzip.compress(b""))


PACKED = gzip.compress(image(bytes(range(256))), mtime=0)


@given(st.integers(2, len(PACKED) - 1))
def test_a_truncated_gzip_file_is_refused(size_bytes: int) -> None:
    assert "gzip" in refusal(PACKED[:size_bytes])


def test_a_gzip_file_with_a_wrong_checksum_is_refused() -> None:
    assert refusal(PACKED[:-8] + bytes(8)) == "kernel is a corrupt gzip file; allowed is an intact one"


@given(damaged(PACKED))
def test_a_damaged_gzip_file_boots_or_is_an_input_error(content: bytes) -> None:
    boots_or_is_refused(content)


# flat, and what is none


def test_anything_else_is_flat_at_ram_plus_0x80000_with_its_tree_far_above_its_stack() -> None:
    booted = boot(b"\x00\x00\x00\x14")

    assert booted.kind is Kind.FLAT
    assert booted.segments[0] == Segment(TEXT, b"\x00\x00\x00\x14", 4)
    assert (booted.pc, booted.x0) == (TEXT, RAM_BASE + 64 * MiB)


def test_a_flat_image_beyond_half_of_ram_keeps_a_mib_for_its_stack() -> None:
    content = bytes(66 * MiB)

    assert boot(content).x0 >= TEXT + len(content) + MiB


def test_a_flat_image_in_the_smallest_ram_still_gets_a_tree() -> None:
    booted = boot(b"\x00\x00\x00\x14", ram_bytes=MiB)

    assert ram(MiB).contains(booted.dtb.base, booted.dtb.size_bytes)
    assert not booted.dtb.overlaps(booted.segments[0].region)


def test_a_flat_image_larger_than_ram_is_refused() -> None:
    assert "not all within RAM" in refusal(bytes(MiB), ram_bytes=MiB)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"MZ\0\0zimg" + bytes(100), "an EFI zboot image"),
        (DTB, "a device tree blob or FIT image"),
        (b"\x27\x05\x19\x56" + bytes(60), "a U-Boot uImage"),
        (b"\xfd7zXZ\0" + bytes(10), "compressed with xz"),
        (b"\x28\xb5\x2f\xfd" + bytes(10), "compressed with zstd"),
        (bytes(0x202) + b"HdrS", "an x86 bzImage"),
        (bytes(0x38) + b"RSC\x05", "a RISC-V Image"),
        (bytes(0x24) + b"\x18\x28\x6f\x01", "a 32-bit Arm zImage"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_known_not_to_run_is_refused_by_name(content: bytes, what: str) -> None:
    assert refusal(content).startswith(f"kernel is {what}; allowed are ELF, arm64 Image (also gzipped) and flat binary")


def test_a_zboot_image_inside_gzip_is_refused_by_name_too() -> None:
    assert "an EFI zboot image" in refusal(gzip.compress(b"MZ\0\0zimg"))


# -bios


def test_a_bios_starts_at_0_as_after_reset_with_the_tree_at_the_base_of_ram() -> None:
    booted = load(ram(), tree, bios=File("u-boot.bin", b"boot"))

    assert booted == Boot(
        kind=Kind.BIOS,
        segments=(Segment(0, b"boot", 4), Segment(RAM_BASE, DTB, len(DTB))),
        pc=0,
        x0=0,
        dtb=Region(RAM_BASE, len(DTB)),
        initrd=None,
        elf=None,
    )


def test_a_bios_larger_than_one_flash_bank_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bios"
    with path.open("wb") as file:
        file.truncate(64 * MiB + 1)

    with pytest.raises(InputError, match="has more than 64 MiB, which is the most allowed here"):
        load(ram(), tree, bios=path)


def test_an_elf_as_bios_is_refused() -> None:
    with pytest.raises(InputError, match="give the ELF to -kernel"):
        load(ram(), tree, bios=File("bios", elf(Load())))


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "nothing to run; give -kernel F or -bios F"),
        ({"kernel": File("k", b"k"), "bios": File("b", b"b")}, "-kernel and -bios exclude each other; give one of them"),
        ({"bios": File("b", b"b"), "initrd": File("i", b"i")}, "-initrd needs -kernel; a -bios image has no way to be told where it is"),
    ],
)
def test_options_that_do_not_go_together_are_a_user_error(files: dict[str, File], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        load(ram(), tree, **files)

    assert str(caught.value) == sentence
    assert caught.value.exit_code == 102


# -initrd and the tree


@pytest.mark.parametrize(("ram_bytes", "offset"), [(128 * MiB, 64 * MiB), (256 * MiB, 128 * MiB), (4 * GiB, 128 * MiB)])
def test_an_initrd_is_where_qemu_puts_it_and_the_tree_above(ram_bytes: int, offset: int) -> None:
    told: list[Region | None] = []

    def telling(initrd: Region | None) -> bytes:
        told.append(initrd)
        return DTB

    booted = load(ram(ram_bytes), telling, kernel=File("kernel", image()), initrd=File("initrd", b"cpio"))

    assert told == [booted.initrd] == [Region(RAM_BASE + offset, 4)]
    assert Segment(RAM_BASE + offset, b"cpio", 4) in booted.segments
    assert booted.x0 == RAM_BASE + offset + 2 * MiB


def test_an_initrd_goes_above_a_kernel_that_reaches_beyond_half_of_ram() -> None:
    assert boot(image(image_size=70 * MiB + 1), b"cpio").initrd == Region(RAM_BASE + 70 * MiB + 4 * KiB, 4)


def test_an_elf_with_an_initrd_keeps_its_tree_at_the_base_of_ram() -> None:
    booted = boot(elf(Load()), b"cpio")

    assert (booted.x0, booted.initrd) == (RAM_BASE, Region(RAM_BASE + 64 * MiB, 4))


def test_an_initrd_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match=r"initrd as initrd needs 0x44000000-0x48000000, which is not all within RAM"):
        boot(image(), bytes(64 * MiB + 1))


def test_a_tree_finds_room_below_an_initrd_that_fills_the_rest_of_ram() -> None:
    booted = boot(image(), bytes(64 * MiB))

    assert not booted.dtb.overlaps(Region(RAM_BASE, 4 * MiB))
    assert booted.initrd is not None
    assert not booted.dtb.overlaps(booted.initrd)
    assert ram().contains(booted.dtb.base, booted.dtb.size_bytes)


def test_the_tree_stays_within_512_mib_of_the_kernel_when_the_initrd_does_not(tmp_path: Path) -> None:
    path = tmp_path / "initrd"
    with path.open("wb") as file:
        file.truncate(400 * MiB)

    booted = load(ram(GiB), tree, kernel=File("kernel", image()), initrd=path)

    assert booted.dtb.end <= RAM_BASE + 512 * MiB


def test_ram_without_room_for_the_tree_is_refused() -> None:
    with pytest.raises(InputError, match="no room for a device tree of 1000 bytes"):
        boot(image(image_size=2 * MiB), ram_bytes=2 * MiB)


@given(
    st.sampled_from(
        [image(image_size=MiB), image(image_size=3 * MiB), b"flat", bytes(MiB), elf(Load()), elf(Load(RAM_BASE), entry=RAM_BASE)]
    ),
    st.none() | st.integers(1, 2 * MiB),
    st.integers(1, 2 * MiB),
    st.integers(256, 2048).map(lambda pages: pages * 4 * KiB),
)
def test_nothing_overlaps_and_all_is_in_memory(kernel: bytes, initrd_bytes: int | None, dtb_bytes: int, ram_bytes: int) -> None:
    initrd = None if initrd_bytes is None else File("initrd", bytes(initrd_bytes))
    try:
        booted = load(ram(ram_bytes), lambda _: bytes(dtb_bytes), kernel=File("kernel", kernel), initrd=initrd)
    except InputError:
        return

    regions = [segment.region for segment in booted.segments]
    assert not any(first.overlaps(second) for first in regions for second in regions if first is not second)
    assert all(ram(ram_bytes).contains(region.base, region.size_bytes) for region in regions)
    assert booted.x0 == booted.dtb.base
    assert booted.x0 % 8 == 0


# files


def test_a_path_is_read_as_its_bytes_would_be(tmp_path: Path) -> None:
    path = tmp_path / "guest.elf"
    path.write_bytes(elf(Load()))

    assert load(ram(), tree, kernel=path) == load(ram(), tree, kernel=str(path)) == boot(elf(Load()))


def test_a_missing_file_a_directory_and_an_empty_file_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()

    for name, sentence in (
        ("missing", "cannot be read: No such file or directory"),
        ("", "is a directory; allowed is a file"),
        ("empty", "is empty; allowed is a file with at least one byte"),
        ("empty/x", "cannot be read: Not a directory"),
        ("n" * 5000, "cannot be read: File name too long"),
    ):
        path = tmp_path / name
        for files in ({"kernel": path}, {"bios": path}, {"kernel": File("k", b"k"), "initrd": path}):
            with pytest.raises(InputError) as caught:
                load(ram(), tree, **files)
            assert str(caught.value) == f"{path} {sentence}"
            assert caught.value.exit_code == 103


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")
def test_a_fifo_and_a_device_are_refused_instead_of_waited_for(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    for path in (fifo, Path("/dev/zero")):
        with pytest.raises(InputError, match="is not a regular file; allowed is a file"):
            load(ram(), tree, kernel=path)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"x")
    path.chmod(0)

    with pytest.raises(InputError, match="cannot be read: Permission denied"):
        load(ram(), tree, kernel=path)


def test_a_path_with_a_nul_and_a_loop_of_links_are_refused(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)

    for path in ("a\0b", loop):
        with pytest.raises(InputError, match="cannot be read"):
            load(ram(), tree, kernel=path)


def test_a_kernel_of_a_tebibyte_is_refused_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(1024 * GiB)

    with pytest.raises(InputError, match="has more than 1024 MiB"):
        load(ram(), tree, kernel=path)


def test_an_empty_file_in_memory_is_refused() -> None:
    with pytest.raises(InputError, match="kernel has 0 bytes"):
        boot(b"")


def test_a_file_of_exactly_the_limit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "eight"
    path.write_bytes(b"12345678")

    assert read_file(path, 8) == File(str(path), b"12345678")
    with pytest.raises(InputError, match="the tree has more than 7 bytes"):
        read_file(path, 7, "the tree")
