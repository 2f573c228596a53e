"""A user's device tree blob, read as the hostile input it is (Devicetree Specification 0.4, "Flattened Devicetree Format").

The blob becomes fdt's tree, and fdt writes it again; but the tokens are read here. fdt.parse_dtb() checks no length, refuses NOPs
(which QEMU leaves behind), raises bare Exceptions, and takes minutes over a blob made to hurt it.
"""
# fdt has no annotations at all.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Final

import fdt

from emu.memory import KiB, MiB
from firmware.errors import InputError

_VERSION: Final = 17

# Linux's limit (MAX_FDT_SIZE in arm64's fixmap), and its depth (FDT_MAX_DEPTH); the counts are ten times a large SoC's.
MAX_DTB_BYTES: Final = 2 * MiB
_MAX_DEPTH: Final = 64
_MAX_ITEMS: Final = 131_072
_MAX_NAMES_BYTES: Final = 128 * KiB
_MAX_RESERVED: Final = 1024

_MAGIC: Final = 0xD00D_FEED
_HEADER: Final = struct.Struct(">10I")
_WORD: Final = struct.Struct(">I")
_PAIR: Final = struct.Struct(">II")
_RESERVED: Final = struct.Struct(">QQ")
_BEGIN_NODE, _END_NODE, _PROP, _NOP, _END = 1, 2, 3, 4, 9
_NAME: Final = re.compile(rb"[0-9A-Za-z,._+*#?@-]{1,255}")


def write(tree: fdt.FDT, boot_cpuid_phys: int) -> bytes:
    """Return the tree as a blob."""
    return bytes(tree.to_dtb(version=_VERSION, boot_cpuid_phys=boot_cpuid_phys))


def parse(blob: bytes, label: str) -> fdt.FDT:
    """Return the blob as fdt's tree; raise InputError, naming it by label, for one that is not intact."""
    try:
        return _tree(blob)
    except _BrokenBlobError as broken:
        raise InputError(f"{label} is not a usable device tree blob: {broken}") from None
    except struct.error:
        raise InputError(f"{label} is not a usable device tree blob: it ends in the middle of its structure") from None


class _BrokenBlobError(Exception):
    pass


def _tree(blob: bytes) -> fdt.FDT:
    if len(blob) > MAX_DTB_BYTES:
        raise _BrokenBlobError(f"it has {len(blob)} bytes; allowed are {MAX_DTB_BYTES}, as in Linux")
    if len(blob) < _HEADER.size:
        raise _BrokenBlobError(f"it has {len(blob)} bytes, and a header alone has {_HEADER.size}")
    magic, total, struct_at, strings_at, reserved_at, version, compatible, boot_cpuid_phys, strings_size, struct_size = _HEADER.unpack_from(
        blob
    )
    if magic != _MAGIC:
        raise _BrokenBlobError(f"it begins with {magic:#010x}, not {_MAGIC:#x}")
    if version < _VERSION or compatible > _VERSION:
        raise _BrokenBlobError(f"its version is {version}, compatible with {compatible}; {_VERSION} is read")
    if total > len(blob) or max(struct_at + struct_size, strings_at + strings_size, reserved_at + _RESERVED.size) > total:
        raise _BrokenBlobError(f"its header promises more than its {len(blob)} bytes")
    tree = fdt.FDT()
    tree.header.version = _VERSION
    tree.header.boot_cpuid_phys = boot_cpuid_phys
    tree.entries = list(_reserved(blob[reserved_at:total]))
    tree.root = _nodes(blob[struct_at : struct_at + struct_size], blob[strings_at : strings_at + strings_size])
    return tree


def _reserved(block: bytes) -> Iterator[dict[str, int]]:
    for number in range(_MAX_RESERVED + 1):
        address, size_bytes = _RESERVED.unpack_from(block, number * _RESERVED.size)
        if not address and not size_bytes:
            return
        yield {"address": address, "size": size_bytes}
    raise _BrokenBlobError(f"it reserves more than {_MAX_RESERVED} regions of memory")


def _nodes(block: bytes, strings: bytes) -> fdt.Node:
    root: fdt.Node | None = None
    path: list[tuple[fdt.Node, set[bytes]]] = []
    for token, name, value in _tokens(block, strings):
        if token == _PROP and path:
            node, taken = path[-1]
            node.props.append(_property(_new_name(name, b"", taken), value))
        elif token == _BEGIN_NODE and path:
            parent, taken = path[-1]
            # Past Node.append(), whose search for a namesake makes many children slow.
            node = fdt.Node(_new_name(name, b"/", taken))
            node.set_parent(parent)
            parent.nodes.append(node)
            path.append((node, set()))
            if len(path) > _MAX_DEPTH:
                raise _BrokenBlobError(f"its nodes are more than {_MAX_DEPTH} deep")
        elif token == _BEGIN_NODE and root is None:
            root = fdt.Node("/")
            path.append((root, set()))
        elif token == _END_NODE and path:
            path.pop()
        elif token == _END and root is not None and not path:
            break
        else:
            raise _BrokenBlobError(f"a token {token:#x} stands where it may not")
    assert root is not None
    return root


def _tokens(block: bytes, strings: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    names: dict[int, bytes] = {}
    position = names_bytes = 0
    for _ in range(_MAX_ITEMS):
        token = _WORD.unpack_from(block, position)[0]
        position += _WORD.size
        name = value = b""
        if token == _NOP:
            continue
        if token == _BEGIN_NODE:
            name = _string(block, position)
            position = _align(position + len(name) + 1)
        elif token == _PROP:
            size_bytes, name_at = _PAIR.unpack_from(block, position)
            position += _PAIR.size
            value = block[position : position + size_bytes]
            if len(value) != size_bytes:
                raise _BrokenBlobError(f"a property of {size_bytes} bytes runs past its end")
            position = _align(position + size_bytes)
            if name_at not in names:
                names[name_at] = _string(strings, name_at)
                names_bytes += len(names[name_at]) + 1
                if names_bytes > _MAX_NAMES_BYTES:
                    raise _BrokenBlobError(f"its property names have more than {_MAX_NAMES_BYTES} bytes")
            name = names[name_at]
        yield token, name, value
    raise _BrokenBlobError(f"it has more than {_MAX_ITEMS} tokens")


def _property(name: str, value: bytes) -> fdt.Property:
    # Words only where amend() reads them; all else stays the bytes it was.
    if len(value) == _WORD.size and name in ("#address-cells", "#size-cells"):
        return fdt.PropWords(name, _WORD.unpack(value)[0])
    return fdt.PropBytes(name, data=value)


def _new_name(name: bytes, kind: bytes, taken: set[bytes]) -> str:
    if not _NAME.fullmatch(name):
        raise _BrokenBlobError(f"{ascii(name)[1:60]} is no name for a node or property")
    if kind + name in taken:
        raise _BrokenBlobError(f"the name {ascii(name)[1:60]} is used twice in one node")
    taken.add(kind + name)
    return name.decode("ascii")


def _string(block: bytes, start: int) -> bytes:
    end = block.find(b"\0", start, start + 256)
    if end < 0:
        raise _BrokenBlobError("a name in it does not end")
    return block[start:end]


def _align(position: int) -> int:
    return position + 3 & ~3
