from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.memory import DEFAULT_RAM_BYTES, FLASH, GICC, GICD, GICR, PVTIME, RAM_BASE, UART, GiB, KiB, MiB, Region, parse_size, ram
from firmware.errors import UserError


def test_the_parts_of_the_map_do_not_overlap() -> None:
    parts = (FLASH, GICD, GICC, GICR, UART, PVTIME, ram())

    assert not any(first.overlaps(second) for first in parts for second in parts if first is not second)


def test_ram_begins_where_qemu_virt_has_it_and_has_128_mib() -> None:
    assert ram() == Region(0x4000_0000, 128 * MiB) == Region(RAM_BASE, DEFAULT_RAM_BYTES)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("128", 128 * MiB),
        ("128M", 128 * MiB),
        ("128m", 128 * MiB),
        ("2048K", 2 * MiB),
        ("1g", GiB),
        ("1.5G", 1536 * MiB),
        ("0.125T", 128 * GiB),
        ("size=512", 512 * MiB),
        ("size=1G", GiB),
        ("1048576b", MiB),
        ("1028k", 1028 * KiB),
        ("1", MiB),
        ("255G", 255 * GiB),
    ],
)
def test_a_size_is_read_as_qemu_reads_it(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "M", "-1", "1Q", "1 G", "0x100", "1e3", "²", "size=", "512M,slots=2", "9" * 5000, "1..5G", "\0"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is not a size; allowed is"):
        parse_size(text)


@pytest.mark.parametrize("text", ["0", "1023K", "256G", "255.5G", "1T", "99999999999999999999T"])
def test_a_size_qemus_map_has_no_room_for_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="allowed: 1 MiB to 255 GiB"):
        parse_size(text)


@pytest.mark.parametrize("text", ["1025k", "1048577b", "1.0000001G"])
def test_a_size_that_ends_inside_a_page_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="4 KiB pages"):
        parse_size(text)


@given(st.text())
def test_any_text_is_a_size_or_a_user_error(text: str) -> None:
    try:
        assert parse_size(text) > 0
    except UserError:
        pass


def test_a_region_contains_only_accesses_that_end_inside() -> None:
    region = Region(0x1000, 0x1000)

    assert region.contains(0x1000, 0x1000)
    assert region.contains(0x1FFF)
    assert not region.contains(0x1FFF, 2)
    assert not region.contains(0xFFF)
    assert not region.contains(0xFFF, 2)


def test_neighbours_and_empty_regions_overlap_nothing() -> None:
    assert Region(0, 2).overlaps(Region(1, 2))
    assert not Region(0, 2).overlaps(Region(2, 2))
    assert not Region(0, 2).overlaps(Region(1, 0))
