from __future__ import annotations

import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.loader import Stored
from emu.symbols import Image, Symbols
from firmware.errors import InputError
from tests.emu import test_kallsyms

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


# ---- lists: System.map and /proc/kallsyms

LINKED = 0xFFFF_8000_0800_0000
MAP = b"""\
0000000000000a0a A _kernel_flags_le_lo32
ffff800008000000 t _head
ffff800008000000 T _text
ffff800008010000 T __irqentry_text_start
ffff800008010000 T _stext
ffff800008010000 t gic_handle_irq
ffff800008010090 W weak_one
ffff800008010090 t __strong_one
ffff8000080280a4 T __arm_smccc_hvc
ffff8000080280d4 T __arm_smccc_smc
ffff800009000000 D jiffies
"""


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_a_system_map_names_addresses_as_linked(ending: bytes) -> None:
    symbols = Symbols(MAP.replace(b"\n", ending))

    assert symbols.resolve(LINKED + 0x2_80A8) == "__arm_smccc_hvc+0x4"
    assert symbols.resolve(LINKED + 0x2_80D4) == "__arm_smccc_smc"
    assert symbols.resolve(LINKED + 0x100_0010) == "jiffies+0x10"


def test_of_several_listed_names_the_one_that_the_kernel_would_take_is_taken() -> None:
    symbols = Symbols(MAP)

    assert symbols.resolve(LINKED + 0x1_0000) == "gic_handle_irq"
    assert symbols.resolve(LINKED + 0x1_0090) == "__strong_one"


def test_outside_a_list_there_is_no_name() -> None:
    symbols = Symbols(MAP)

    assert [symbols.resolve(address) for address in (0, 0xA0A, LINKED - 1, LINKED + 0x101_0000, 2**64 - 1)] == [None] * 5


def test_a_copy_of_proc_kallsyms_names_modules_too() -> None:
    assert Symbols(MAP + b"ffff800001000000 t init_module\t[loop]\n").resolve(0xFFFF_8000_0100_0008) == "init_module+0x8"


def test_lines_that_name_nothing_are_passed_over() -> None:
    assert Symbols(b"ffffffffffffffff B The real System.map is elsewhere\n\xff\n" + MAP).resolve(LINKED + 0x2_80A4) == "__arm_smccc_hvc"


@given(st.binary(max_size=200))
def test_any_list_names_something_or_nothing(content: bytes) -> None:
    Symbols(MAP + content).resolve(LINKED)
    Symbols(content + MAP).resolve(LINKED)


# ---- a Linux Image, loaded at one address and running at another

LOADED = 0x4000_0000
IMAGE = test_kallsyms.image("6.2", test_kallsyms.text_symbols(300))
FIRST = test_kallsyms.STEXT + 7 * test_kallsyms.PER_SYMBOL


class Memory:
    """RAM with the Image in it; the kernel has written where it runs, or 0."""

    def __init__(self, runs_at: int) -> None:
        self.runs_at = runs_at

    def read(self, address: int, size_bytes: int) -> bytes | None:
        return self.runs_at.to_bytes(size_bytes, "little") if address >= LOADED else None


def image(runs_at: int) -> Image:
    return Image(IMAGE, LOADED, len(IMAGE) + 0x1000, Memory(runs_at).read)


@pytest.mark.parametrize("start", [LINKED, LINKED + 0x5_4320_0000], ids=["as linked", "KASLR"])
def test_an_image_names_the_addresses_at_which_it_runs_and_those_at_which_it_was_loaded(start: int) -> None:
    symbols = Symbols(image=image(start + test_kallsyms.STEXT))

    assert symbols.resolve(start + FIRST + 4) == symbols.resolve(LOADED + FIRST + 4) == "function_7+0x4"
    assert symbols.resolve(start + FIRST + 0x1000_0000) is None


def test_before_an_image_has_relocated_itself_only_where_it_was_loaded_has_names() -> None:
    symbols = Symbols(image=image(0))

    assert [symbols.resolve(address) for address in (LOADED + FIRST, LINKED + FIRST, FIRST)] == ["function_7", None, None]


def test_where_an_image_runs_is_looked_up_again_for_every_address() -> None:
    memory = Memory(0)
    symbols = Symbols(image=Image(IMAGE, LOADED, len(IMAGE), memory.read))
    before = symbols.resolve(LINKED + FIRST)
    memory.runs_at = LINKED + test_kallsyms.STEXT

    assert (before, symbols.resolve(LINKED + FIRST)) == (None, "function_7")


def test_a_list_names_an_image_wherever_it_runs() -> None:
    symbols = Symbols(MAP, image(LINKED + 0x20_0000 + test_kallsyms.STEXT))

    places = [LOADED + 0x2_80A8, LINKED + 0x20_0000 + 0x2_80A8]

    assert [symbols.resolve(place) for place in places] == ["__arm_smccc_hvc+0x4"] * 2


def test_a_list_that_does_not_tell_where_the_image_begins_names_addresses_as_they_are() -> None:
    symbols = Symbols(b"ffff8000080280a4 T __arm_smccc_hvc\n", image(LINKED + test_kallsyms.STEXT))

    assert symbols.resolve(LINKED + 0x2_80A8) == "__arm_smccc_hvc+0x4"


def test_a_list_names_an_image_without_a_table_of_its_own_as_linked_and_as_loaded() -> None:
    symbols = Symbols(MAP, Image(bytes(0x1000), LOADED, 0x10_0000, Memory(0).read))

    assert [symbols.resolve(start + 0x2_80A8) for start in (LINKED, LOADED)] == ["__arm_smccc_hvc+0x4"] * 2


# ---- a file of the user's


@pytest.mark.parametrize("content", [MAP, elf(Sym(b"__arm_smccc_hvc", LINKED + 0x2_80A4, 0x30))], ids=["System.map", "vmlinux"])
def test_a_file_of_the_users_names_addresses(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "symbols"
    path.write_bytes(content)

    assert Symbols.from_file(path).resolve(LINKED + 0x2_80A8) == "__arm_smccc_hvc+0x4"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"ffffffffffffffff B The real System.map is in another package\n", "lists no symbols"),
        (b"MZ" * 100, "lists no symbols"),
        (b"0000000000000000 T _text\n0000000000000000 T _stext\n", "has 0 for every address"),
        (b"\x7fELF\x02\x01\x01" + bytes(57), "ELF for"),
        (elf()[:60] + bytes(4), "without a symbol table"),
    ],
    ids=["Debian's placeholder", "binary", "an unprivileged copy", "another ELF", "stripped"],
)
def test_a_file_that_can_hold_no_names_is_refused_by_name(content: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "symbols"
    path.write_bytes(content)

    with pytest.raises(InputError, match=why) as refused:
        Symbols.from_file(path)

    assert str(refused.value).startswith(str(path))


def test_an_image_that_has_been_built_again_names_nothing(tmp_path: Path) -> None:
    path = tmp_path / "Image"
    path.write_bytes(IMAGE)
    symbols = Symbols(image=Image(Stored(path), LOADED, len(IMAGE), Memory(0).read))
    path.write_bytes(IMAGE[:-4])

    assert symbols.resolve(LOADED) is None


def test_neither_an_image_nor_a_list_is_read_before_a_name_is_asked_for() -> None:
    class Unread(bytes):
        def __bytes__(self) -> bytes:
            raise AssertionError("read")

    symbols = Symbols(image=Image(Unread(IMAGE), LOADED, len(IMAGE), Memory(0).read))

    with pytest.raises(AssertionError, match="read"):
        symbols.resolve(LOADED)
