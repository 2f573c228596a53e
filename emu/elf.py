"""An AArch64 executable's program headers, read from a hostile file (System V ABI, chapter 4 and 5; ELF for the Arm 64-bit Architecture).

Read with struct: pyelftools would take a third of the time from process start to a small guest's exit.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from firmware.errors import InputError

MAGIC: Final = b"\x7fELF"
_MAX_SEGMENTS: Final = 1024

_ELF_IDENT: Final = struct.Struct("<4sBB")  # magic, EI_CLASS, EI_DATA
_ELF_HEADER: Final = struct.Struct("<16xHH4xQQ12xHHH6x")  # e_type, e_machine, e_entry, e_phoff, e_ehsize, e_phentsize, e_phnum
_ELF_MACHINE: Final = struct.Struct("<18xH")
_PROGRAM_HEADER: Final = struct.Struct("<I4xQQQQQ8x")  # p_type, p_offset, p_vaddr, p_paddr, p_filesz, p_memsz
_CLASS_64: Final = 2
_LITTLE_ENDIAN: Final = 1
_EM_AARCH64: Final = 183
_PT_LOAD: Final = 1
_ET_EXEC, _ET_DYN = 2, 3
_ET_NAMES: Final = {1: "an unlinked object", 4: "a core dump"}
_MACHINES: Final = {3: "386", 8: "MIPS", 20: "PPC", 21: "PPC64", 22: "S390", 40: "ARM", 62: "X86-64", 243: "RISCV", 258: "LOONGARCH"}


class LoadHeader(NamedTuple):
    """A PT_LOAD segment that occupies memory; sizes in bytes."""

    offset: int
    virtual: int
    physical: int
    file_bytes: int
    memory_bytes: int


def executable(name: str, content: bytes) -> tuple[int, list[LoadHeader]]:
    """Return the entry point, a virtual address, and what to load; raise InputError, naming the file by name."""
    broken = InputError(f"{name} is a broken or truncated ELF; allowed is a whole AArch64 executable")
    if len(content) < _ELF_MACHINE.size:
        raise broken
    _magic, elf_class, byte_order = _ELF_IDENT.unpack_from(content)
    if byte_order not in (_LITTLE_ENDIAN, 2) or elf_class not in (1, _CLASS_64):
        raise broken
    (machine,) = _ELF_MACHINE.unpack_from(content)
    if byte_order != _LITTLE_ENDIAN:
        machine = machine >> 8 | (machine & 0xFF) << 8
    if machine != _EM_AARCH64:
        raise InputError(f"{name} is an ELF for {_MACHINES.get(machine, f'machine {machine:#x}')}; allowed is AArch64")
    if elf_class != _CLASS_64:
        raise InputError(f"{name} is a 32-bit ELF; allowed is 64-bit AArch64")
    if byte_order != _LITTLE_ENDIAN:
        raise InputError(f"{name} is a big-endian ELF; allowed is little-endian AArch64")
    if len(content) < _ELF_HEADER.size:
        raise broken
    elf_type, _machine, entry, start, _size, entry_size, count = _ELF_HEADER.unpack_from(content)
    if elf_type not in (_ET_EXEC, _ET_DYN):
        kind = _ET_NAMES.get(elf_type, f"an ELF of type {elf_type:#x}")
        raise InputError(f"{name} is {kind}; allowed are executables (ET_EXEC, ET_DYN)")
    size = _PROGRAM_HEADER.size
    if count > _MAX_SEGMENTS or (count and entry_size != size) or start + count * size > len(content):
        raise InputError(
            f"{name} has a broken program header table ({count} entries at {start:#x}); allowed are {_MAX_SEGMENTS} within the file"
        )
    return entry, list(_load_headers(name, content, start, count))


def _load_headers(name: str, content: bytes, start: int, count: int) -> Iterator[LoadHeader]:
    size_bytes = len(content)
    loaded = 0
    for index in range(count):
        kind, *fields = _PROGRAM_HEADER.unpack_from(content, start + index * _PROGRAM_HEADER.size)
        found = LoadHeader(*fields)
        if kind != _PT_LOAD or found.memory_bytes == 0:
            continue
        loaded += found.file_bytes
        # Loading the same bytes a thousand times would be a way to fill the host's memory from a small file.
        if found.file_bytes > found.memory_bytes or found.offset + found.file_bytes > size_bytes or loaded > size_bytes:
            raise InputError(
                f"{name} has a segment of {found.file_bytes} bytes at offset {found.offset:#x} that its {size_bytes} bytes do not hold"
            )
        yield found
