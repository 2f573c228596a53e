"""Tables as scripts/kallsyms.c of three kernels writes them, whole and damaged. The real ones are read in `tests/test_linux.py`."""

from __future__ import annotations

import functools
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu import kallsyms

ORDERS = ("4.20", "6.2", "6.4")
LINKED = 0xFFFF_8000_0800_0000
STEXT = 0x1_0000  # where the table of a kernel without CONFIG_KALLSYMS_ALL begins
TABLE_AT = 0x40_0000
PER_SYMBOL = 0x40
COUNT = 1000
LONG = "a" * 200  # more than fits a length of one byte

Names = tuple[str, ...]


def text_symbols(count: int) -> Names:
    names = [f"Tfunction_{number}" for number in range(count)]
    names[3:6] = ["tfirst_of_two", "Tsecond_of_two", f"t{LONG}"]
    return tuple(names)


def offsets_of(names: Names) -> list[int]:
    # The fourth and the fifth share an address.
    offsets = [number * PER_SYMBOL for number in range(len(names))]
    offsets[4] = offsets[3]
    return offsets


def tokens() -> list[bytes]:
    # Letters keep their own code; two codes that no name has stand for frequent strings.
    table = [bytes([code]) if chr(code).isalnum() or code == ord("_") else b"" for code in range(256)]
    table[0x80], table[0xFF] = b"Tfunction_", b"_of_two"
    return table


def compressed(name: str) -> bytes:
    return name.encode().replace(b"Tfunction_", b"\x80").replace(b"_of_two", b"\xff")


def aligned(content: bytes) -> bytes:
    return content + bytes(-len(content) % 8)


@functools.cache
def image(order: str, names: Names, *, relocated: bool = True, base: int = LINKED + STEXT) -> bytes:
    """Write an Image with a table at TABLE_AT, and behind it the relocation of relative_base, or its value in place."""
    stream, markers = b"", []
    for number, name in enumerate(names):
        if number % 256 == 0:
            markers.append(len(stream))
        entry = compressed(name)
        stream += (bytes([len(entry)]) if len(entry) < 0x80 else bytes([len(entry) & 0x7F | 0x80, len(entry) >> 7])) + entry
    texts = [token + b"\0" for token in tokens()]
    index = [sum(map(len, texts[:code])) for code in range(256)]
    offsets = aligned(struct.pack(f"<{len(names)}I", *offsets_of(names)))
    relative_base = struct.pack("<Q", 0 if relocated else base)
    num_syms = struct.pack("<Q", len(names))
    packed = aligned(stream), aligned(struct.pack(f"<{len(markers)}I", *markers))
    sequences = aligned(b"".join(number.to_bytes(3, "big") for number in range(len(names))))
    coded = aligned(b"".join(texts)) + struct.pack("<256H", *index)
    parts = {
        "4.20": [offsets, relative_base, num_syms, *packed, coded],
        "6.2": [offsets, relative_base, num_syms, *packed, sequences, coded],
        "6.4": [num_syms, *packed, coded, offsets, relative_base, sequences],
    }[order]
    base_at = TABLE_AT + sum(map(len, parts[: parts.index(relative_base)]))
    relocation = struct.pack("<3Q", LINKED + base_at, 0x403, base) if relocated else b""
    return b"\x5a" * TABLE_AT + b"".join(parts) + b"\xa5" * 0x100 + relocation + b"\x5a" * 0x100


def found(content: bytes) -> kallsyms.Kallsyms:
    table = kallsyms.read(content)
    assert table is not None
    return table


@pytest.fixture(params=ORDERS)
def table(request: pytest.FixtureRequest) -> kallsyms.Kallsyms:
    return found(image(request.param, text_symbols(COUNT)))


def test_every_symbol_of_every_order_is_found_where_it_is(table: kallsyms.Kallsyms) -> None:
    names = text_symbols(COUNT)

    for number in (0, 1, 2, 3, 5, 6, 255, 256, 257, 511, 512, COUNT - 1):
        assert table.find(STEXT + number * PER_SYMBOL) == (names[number][1:], 0)


def test_an_address_within_a_symbol_is_told_by_its_distance(table: kallsyms.Kallsyms) -> None:
    assert table.find(STEXT + 7 * PER_SYMBOL + 0x3C) == ("function_7", 0x3C)


def test_of_two_names_for_one_address_the_first_is_taken(table: kallsyms.Kallsyms) -> None:
    assert table.find(STEXT + 3 * PER_SYMBOL + 4) == ("first_of_two", 4)
    assert table.find(STEXT + 4 * PER_SYMBOL + 4) == ("first_of_two", PER_SYMBOL + 4)


def test_a_name_longer_than_127_bytes_is_whole(table: kallsyms.Kallsyms) -> None:
    assert table.find(STEXT + 5 * PER_SYMBOL) == (LONG, 0)


def test_before_the_first_symbol_and_far_behind_the_last_there_is_no_name(table: kallsyms.Kallsyms) -> None:
    last = STEXT + (COUNT - 1) * PER_SYMBOL

    assert [table.find(offset) for offset in (-1, 0, STEXT - 1, last + 0x1_0000, 1 << 62)] == [None] * 5
    assert table.find(last + 0xFFFF) == (f"function_{COUNT - 1}", 0xFFFF)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("count", [257, 512, 513, 767, 768, 769, 1024, 1025])
def test_any_number_of_symbols_is_read(order: str, count: int) -> None:
    table = found(image(order, text_symbols(count)))

    assert table.find(STEXT + (count - 1) * PER_SYMBOL) == (f"function_{count - 1}", 0)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("relocated", [True, False], ids=["relocated", "in place"])
def test_it_is_told_where_the_kernel_keeps_its_address_and_how_far_into_the_image_that_counts(order: str, relocated: bool) -> None:
    content = image(order, text_symbols(COUNT), relocated=relocated)

    table = found(content)

    assert table.base_offset == STEXT
    if relocated:
        assert struct.unpack_from("<3Q", content, len(content) - 0x118) == (LINKED + table.base_at, 0x403, LINKED + STEXT)
    else:
        assert struct.unpack_from("<Q", content, table.base_at) == (LINKED + STEXT,)


def test_a_table_of_all_symbols_counts_from_the_start_of_the_image() -> None:
    table = found(image("6.4", text_symbols(COUNT), base=LINKED))

    assert (table.base_offset, table.find(7 * PER_SYMBOL)) == (0, ("function_7", 0))


def test_a_name_that_would_drive_the_terminal_is_escaped() -> None:
    content = bytearray(image("6.2", text_symbols(COUNT)))
    at = content.index(b"Tfunction_\0")
    content[at : at + 10] = b"T\x1b[2Jabcd_"

    assert found(bytes(content)).find(STEXT) == ("\\x1b[2Jabcd_0", 0)


# ---- what is no table


@pytest.mark.parametrize(
    "content", [b"", b"0\0001\0", bytes(0x1_0000), b"MZ" * 0x1000, b"".join(b"%d\0" % digit for digit in range(10)) * 99]
)
def test_what_has_no_table_has_none(content: bytes) -> None:
    assert kallsyms.read(content) is None


def test_a_table_without_the_relocation_of_its_base_is_none() -> None:
    content = image("6.2", text_symbols(COUNT))

    assert kallsyms.read(content[:-0x110]) is None


def test_offsets_that_go_down_are_none() -> None:
    content = bytearray(image("4.20", text_symbols(COUNT)))
    struct.pack_into("<I", content, TABLE_AT + 4 * 500, 1)

    assert kallsyms.read(bytes(content)) is None


def test_digits_of_something_else_before_the_table_do_not_hide_it() -> None:
    content = image("6.2", text_symbols(COUNT))
    digits = b"".join(b"%d\0" % digit for digit in range(10))

    assert found(digits + content[len(digits) :]).find(STEXT) == ("function_0", 0)


BEFORE = 0x100
WHOLE = {order: image(order, text_symbols(600)) for order in ORDERS}


def look(content: bytes) -> None:
    table = kallsyms.read(content)
    if table is not None:
        for number in range(0, 600, 50):
            found = table.find(STEXT + number * PER_SYMBOL)
            assert found is None or (found[0].isprintable() and len(found[0]) <= 4 * 256)


@pytest.mark.parametrize("order", ORDERS)
@settings(deadline=None)
@given(data=st.data())
def test_a_truncated_table_names_something_or_nothing(order: str, data: st.DataObject) -> None:
    content = WHOLE[order]

    look(content[: data.draw(st.integers(TABLE_AT - BEFORE, len(content)))])


@pytest.mark.parametrize("order", ORDERS)
@settings(deadline=None)
@given(data=st.data())
def test_a_damaged_table_names_something_or_nothing(order: str, data: st.DataObject) -> None:
    content = bytearray(WHOLE[order])
    places = st.integers(TABLE_AT - BEFORE, len(content) - 1)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=8)):
        content[place] = value

    look(bytes(content))


@pytest.mark.parametrize("order", ORDERS)
@settings(deadline=None)
@given(place=st.integers(0, 599), value=st.binary(min_size=1, max_size=64))
def test_damaged_names_name_something_or_nothing(order: str, place: int, value: bytes) -> None:
    content = bytearray(WHOLE[order])
    at = content.index(compressed("tfirst_of_two")) + place
    content[at : at + len(value)] = value

    look(bytes(content))
