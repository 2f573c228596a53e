from __future__ import annotations

import struct
import subprocess
import sys
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.symbols import Symbols

BASE = 0x4008_0000
NOTYPE, OBJECT, FUNC = 0, 1, 2
LOCAL, GLOBAL = 0, 1


@dataclass(frozen=True)
class Sym:
    name: bytes
    value: int
    size_bytes: int = 0
    kind: int = FUNC
    binding: int = GLOBAL
    shndx: int = 1


def elf(*symbols: Sym) -> bytes:
    """Write an ELF of .text (0x1000 bytes at BASE), .symtab and .strtab."""
    strings = b"\0" + b"".join(symbol.name + b"\0" for symbol in symbols)
    table, name_at = bytes(24), 1
    for symbol in symbols:
        table += struct.pack("<IBBHQQ", name_at, symbol.binding << 4 | symbol.kind, 0, symbol.shndx, symbol.value, symbol.size_bytes)
        name_at += len(symbol.name) + 1
    table_at = 64
    strings_at = table_at + len(table)
    headers_at = strings_at + len(strings)
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 183, 1, BASE, 0, headers_at, 0, 64, 56, 0, 64, 4, 0)
    sections = (
        bytes(64),
        struct.pack("<IIQQQQIIQQ", 0, 1, 6, BASE, 0, 0x1000, 0, 0, 4, 0),
        struct.pack("<IIQQQQIIQQ", 0, 2, 0, 0, table_at, len(table), 3, 1, 8, 24),
        struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, strings_at, len(strings), 0, 0, 1, 0),
    )
    return header + table + strings + b"".join(sections)


def test_an_address_is_spelled_as_its_symbol_and_the_distance_in_hex() -> None:
    symbols = Symbols(elf(Sym(b"_start", BASE, 0x20), Sym(b"main", BASE + 0x20, 0x40)))

    assert [symbols.resolve(BASE + offset) for offset in (0, 4, 0x1F, 0x20, 0x3C)] == [
        "_start",
        "_start+0x4",
        "_start+0x1f",
        "main",
        "main+0x1c",
    ]


def test_outside_every_symbol_there_is_no_name() -> None:
    symbols = Symbols(elf(Sym(b"main", BASE + 0x20, 0x40)))

    assert [symbols.resolve(address) for address in (0, BASE, BASE + 0x1F, BASE + 0x60, 2**64 - 1)] == [None] * 5


def test_a_label_without_a_size_reaches_to_the_next_symbol_and_at_most_to_the_end_of_its_section() -> None:
    symbols = Symbols(elf(Sym(b"vectors", BASE, kind=NOTYPE), Sym(b"last", BASE + 0x800, kind=NOTYPE)))

    assert symbols.resolve(BASE + 0x7FF) == "vectors+0x7ff"
    assert symbols.resolve(BASE + 0xFFF) == "last+0x7ff"
    assert symbols.resolve(BASE + 0x1000) is None


@pytest.mark.parametrize("name", [b"$x", b"$d", b"$x.12", b"$d.realdata"])
def test_mapping_symbols_are_no_names(name: bytes) -> None:
    symbols = Symbols(elf(Sym(b"main", BASE, 0x40), Sym(name, BASE + 0x10, kind=NOTYPE, binding=LOCAL)))

    assert symbols.resolve(BASE + 0x14) == "main+0x14"


def test_a_name_that_merely_begins_like_a_mapping_symbol_is_kept() -> None:
    assert Symbols(elf(Sym(b"$xyz", BASE))).resolve(BASE) == "$xyz"


@pytest.mark.parametrize(
    "symbol",
    [
        Sym(b"counter", BASE + 0x10, 8, OBJECT),
        Sym(b"printf", BASE + 0x10, shndx=0),
        Sym(b"STACK", BASE + 0x10, shndx=0xFFF1),
        Sym(b"", BASE + 0x10),
    ],
    ids=["data", "undefined", "absolute", "nameless"],
)
def test_data_undefined_absolute_and_nameless_symbols_are_no_names(symbol: Sym) -> None:
    assert Symbols(elf(Sym(b"main", BASE, 0x40), symbol)).resolve(BASE + 0x10) == "main+0x10"


def test_of_several_names_for_one_address_a_global_function_is_taken() -> None:
    symbols = Symbols(
        elf(
            Sym(b"a_label", BASE, kind=NOTYPE),
            Sym(b"a_local", BASE, 4, binding=LOCAL),
            Sym(b"main", BASE, 4),
            Sym(b"main_alias", BASE, 4),
        )
    )

    assert symbols.resolve(BASE) == "main"


def test_a_name_that_would_drive_the_terminal_is_escaped() -> None:
    assert Symbols(elf(Sym(b"\x1b[2J", BASE))).resolve(BASE) == "\\x1b[2J"
    assert Symbols(elf(Sym(b"\xff", BASE))).resolve(BASE) == "\\xff"


def test_a_name_is_cut_at_256_bytes() -> None:
    assert Symbols(elf(Sym(b"n" * 10_000, BASE))).resolve(BASE) == "n" * 256


@pytest.mark.parametrize("content", [None, b"", b"\x7fELF", b"\x7fELF\x01\x01", b"MZ" * 100, elf()])
def test_what_has_no_symbols_names_nothing(content: bytes | None) -> None:
    assert Symbols(content).resolve(BASE) is None


WHOLE = elf(Sym(b"_start", BASE, 0x20), Sym(b"$x", BASE), Sym(b"main", BASE + 0x20), Sym(b"end", BASE + 0x100, kind=NOTYPE))


@given(st.integers(0, len(WHOLE)))
def test_a_truncated_elf_names_something_or_nothing(size_bytes: int) -> None:
    Symbols(WHOLE[:size_bytes]).resolve(BASE)


@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_a_damaged_elf_names_something_or_nothing(damage: list[tuple[int, int]]) -> None:
    content = bytearray(WHOLE)
    for position, value in damage:
        content[position] = value

    Symbols(bytes(content)).resolve(BASE + 4)


def test_making_symbols_imports_no_elf_library() -> None:
    script = "import sys; from emu.symbols import Symbols; Symbols(b'x'); sys.exit(any(m.startswith('elftools') for m in sys.modules))"

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
