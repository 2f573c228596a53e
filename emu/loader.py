"""From the user's files to what the machine writes before its first instruction: segments, PC, x0.

1. Files are hostile: whatever is in them, the outcome is a Boot or one InputError. Nothing is allocated that a file merely
   promises: zeroes stay a length, and decompression stops at the size of RAM. A large Image is not even read before it is where it
   belongs (`Stored`): to hold it twice takes a tenth of the time in which QEMU gets a kernel to its psci lines.
2. Placement is QEMU's, whose command lines and guests are used here: see `_place_initrd` and `_place_dtb`.
3. Only the first bytes of a file decide what it is.
"""

from __future__ import annotations

import itertools
import os
import stat
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

from emu import elf
from emu.memory import FLASH, FLASH_BANK_BYTES, PAGE_BYTES, GiB, MiB, Region
from firmware.errors import InputError, UserError


class Kind(StrEnum):
    """What the user started."""

    ELF = "ELF"
    IMAGE = "arm64 Linux Image"
    FLAT = "flat binary"
    BIOS = "firmware image"


class Stored:
    """A file's content that stays there and is read when it is needed, by an open descriptor.

    Reading raises InputError where the file has changed meanwhile: a machine that is reset starts what it started before.
    """

    _close = staticmethod(os.close)  # not looked for when the interpreter ends
    _descriptor = -1

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = os.fsdecode(path)
        self._descriptor = os.open(path, os.O_RDONLY)
        self._found = self._status()

    def __del__(self) -> None:
        if self._descriptor >= 0:
            self._close(self._descriptor)

    def _status(self) -> tuple[int, int]:
        status = os.fstat(self._descriptor)
        return status.st_size, status.st_mtime_ns

    def __len__(self) -> int:
        return self._found[0]

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(len(self))
        content = bytearray(max(stop - start, 0))
        self.read_into(memoryview(content), start)
        return bytes(content)

    def __bytes__(self) -> bytes:
        return self[:]

    def read_into(self, buffer: memoryview, offset: int = 0) -> None:
        """Fill a buffer with what begins at an offset."""
        read = 0
        while read < len(buffer) and (more := os.preadv(self._descriptor, [buffer[read:]], offset + read)):
            read += more
        if read < len(buffer) or self._status() != self._found:
            raise InputError(f"{self.name} has changed since the machine was started from it; start it again")


@dataclass(frozen=True, slots=True)
class Segment:
    """Bytes for guest memory, zero-filled up to size_bytes."""

    address: int
    content: bytes | Stored = field(repr=False)
    size_bytes: int

    @property
    def region(self) -> Region:
        """Give the addresses the segment occupies."""
        return Region(self.address, self.size_bytes)


@dataclass(frozen=True, slots=True)
class Boot:
    """Everything the machine needs to start the boot vCPU.

    segments  what to write, kernel first, then initrd and device tree; none overlap
    pc, x0    the boot vCPU's registers; x0 is the device tree's address, 0 under -bios as after QEMU's reset
    elf       the file whose symbols name guest addresses, for `Symbols`
    """

    kind: Kind
    segments: tuple[Segment, ...]
    pc: int
    x0: int
    dtb: Region
    initrd: Region | None
    elf: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class File:
    """A user's file in memory; name is what an error calls it."""

    name: str
    content: bytes = field(repr=False)


def read_file(path: str | os.PathLike[str], limit_bytes: int, name: str | None = None) -> File:
    """Read a whole regular file of 1 to limit_bytes bytes, or raise InputError. name defaults to the path."""
    name = os.fsdecode(path) if name is None else name
    try:
        # Asked before opening, because opening a FIFO would wait for its other end.
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{name} is {'a directory' if stat.S_ISDIR(status.st_mode) else 'not a regular file'}; allowed is a file")
        with Path(path).open("rb") as file:
            # Not even the limit is read of a file that is known to be longer.
            content = file.read(min(status.st_size, limit_bytes) + 1) if status.st_size <= limit_bytes else b""
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}") from None
    except ValueError:
        raise InputError(f"{name!r} cannot be read: a path holds no NUL") from None
    if max(status.st_size, len(content)) > limit_bytes:
        raise InputError(f"{name} has more than {_size(limit_bytes)}, which is the most allowed here")
    if not content:
        raise InputError(f"{name} is empty; allowed is a file with at least one byte")
    return File(name, content)


# An ELF may carry far more debug information than the guest has RAM; any other kernel is held against RAM once it is known.
MAX_ELF_BYTES: Final = 1 * GiB

Source = str | os.PathLike[str] | File


def load(
    ram: Region,
    tree: Callable[[Region | None], bytes],
    *,
    kernel: Source | None = None,
    bios: Source | None = None,
    initrd: Source | None = None,
) -> Boot:
    """Place the user's files and the device tree that tree(initrd) returns, or raise UserError or InputError."""
    if kernel is not None and bios is not None:
        raise UserError("-kernel and -bios exclude each other; give one of them")
    if kernel is None and bios is None:
        raise UserError("nothing to run; give -kernel F or -bios F")
    if bios is not None:
        if initrd is not None:
            raise UserError("-initrd needs -kernel; a -bios image has no way to be told where it is")
        started = _bios(_file(bios, FLASH_BANK_BYTES))
    else:
        assert kernel is not None
        started = _stored_image(kernel, ram) or _kernel(_file(kernel, MAX_ELF_BYTES), ram)

    initrd_segment = None
    if initrd is not None:
        initrd_file = _file(initrd, ram.size_bytes)
        initrd_segment = _place_initrd(initrd_file, started, ram)
    initrd_region = initrd_segment.region if initrd_segment else None

    taken = (*started.segments, *([initrd_segment] if initrd_segment else []))
    dtb = _place_dtb(tree(initrd_region), started, taken, ram)
    x0 = 0 if started.kind is Kind.BIOS else dtb.address
    return Boot(started.kind, (*taken, dtb), started.pc, x0, dtb.region, initrd_region, started.elf)


class _Started(NamedTuple):
    kind: Kind
    segments: tuple[Segment, ...]
    pc: int
    elf: bytes | None = None


def _file(source: Source, limit_bytes: int) -> File:
    if not isinstance(source, File):
        return read_file(source, limit_bytes)
    if not 1 <= len(source.content) <= limit_bytes:
        raise InputError(f"{source.name} has {len(source.content)} bytes; allowed are 1 to {limit_bytes}")
    return source


def _size(size_bytes: int) -> str:
    return f"{size_bytes // MiB} MiB" if size_bytes % MiB == 0 else f"{size_bytes} bytes"


def _align_up(address: int, alignment: int) -> int:
    return -(-address // alignment) * alignment


_GZIP_MAGIC: Final = b"\x1f\x8b"

# What people hand to -kernel by mistake: offset, magic, what it is, what to do.
_REFUSED: Final = (
    (4, b"zimg", "an EFI zboot image", "unpack it, and give the Image inside"),
    (0, b"\xd0\x0d\xfe\xed", "a device tree blob or FIT image", "give a device tree to -dtb, and the Image inside a FIT to -kernel"),
    (0, b"\x27\x05\x19\x56", "a U-Boot uImage", "give the Image inside"),
    (0, b"\xfd7zXZ\0", "compressed with xz", "unpack it"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it"),
    (0, b"\x04\x22\x4d\x18", "compressed with lz4", "unpack it"),
    (0, b"\x02\x21\x4c\x18", "compressed with lz4", "unpack it"),
    (0, b"BZh", "compressed with bzip2", "unpack it"),
    (0, b"\x5d\0\0", "compressed with lzma", "unpack it"),
    (0, b"\x89LZO", "compressed with lzop", "unpack it"),
    (0x24, b"\x18\x28\x6f\x01", "a 32-bit Arm zImage", "give an arm64 Image"),
    (0x38, b"RSC\x05", "a RISC-V Image", "give an arm64 Image"),
    (0x202, b"HdrS", "an x86 bzImage", "give an arm64 Image"),
)


def _refuse_by_name(file: File) -> None:
    for offset, magic, what, remedy in _REFUSED:
        if file.content.startswith(magic, offset):
            raise InputError(f"{file.name} is {what}; allowed are ELF, arm64 Image (also gzipped) and flat binary: {remedy}")


def _kernel(file: File, ram: Region) -> _Started:
    if file.content.startswith(_GZIP_MAGIC):
        file = File(file.name, _gunzip(file, ram.size_bytes))
    if file.content.startswith(elf.MAGIC):
        return _elf(file, ram)
    if file.content.startswith(_IMAGE_MAGIC, _IMAGE_MAGIC_AT):
        return _image(file.name, file.content, ram)
    _refuse_by_name(file)
    return _flat(file, ram)


def _gunzip(file: File, limit_bytes: int) -> bytes:
    gzip = zlib.decompressobj(wbits=31)
    try:
        content = gzip.decompress(file.content, limit_bytes + 1)
    except zlib.error:
        raise InputError(f"{file.name} is a corrupt gzip file; allowed is an intact one") from None
    if len(content) > limit_bytes:
        raise InputError(f"{file.name} unpacks to more than the {_size(limit_bytes)} of RAM; use a larger -m")
    if not gzip.eof:
        raise InputError(f"{file.name} is a truncated gzip file; allowed is a whole one")
    if not content:
        raise InputError(f"{file.name} unpacks to nothing; allowed is a file with at least one byte")
    return content


# Documentation/arm64/booting.rst: the header's fields that matter here, and where the magic is.
_IMAGE_HEADER: Final = struct.Struct("<8xQQQ24x4s4x")  # text_offset, image_size, flags, magic
_IMAGE_MAGIC: Final = b"ARM\x64"
_IMAGE_MAGIC_AT: Final = 0x38
_IMAGE_ALIGNMENT: Final = 2 * MiB
_OLD_TEXT_OFFSET: Final = 0x8_0000
_FLAG_BIG_ENDIAN: Final = 1


_LARGE_BYTES: Final = 1 * MiB


def _stored_image(source: Source, ram: Region) -> _Started | None:
    """Place a large Image without reading it; None for anything else, a file that cannot be read included."""
    try:
        if isinstance(source, File) or not stat.S_ISREG(os.stat(source).st_mode):
            return None
        stored = Stored(source)
    except (OSError, ValueError):
        return None
    head = stored[: _IMAGE_HEADER.size]
    if len(stored) < _LARGE_BYTES or head.startswith((_GZIP_MAGIC, elf.MAGIC)) or not head.startswith(_IMAGE_MAGIC, _IMAGE_MAGIC_AT):
        return None
    return _image(stored.name, stored, ram)


def _image(name: str, content: bytes | Stored, ram: Region) -> _Started:
    if len(content) < _IMAGE_HEADER.size:
        raise InputError(f"{name} is a truncated arm64 Image: {len(content)} bytes, and its header alone has {_IMAGE_HEADER.size}")
    text_offset, image_size, flags, _magic = _IMAGE_HEADER.unpack(content[: _IMAGE_HEADER.size])
    if image_size == 0:
        # Before Linux 3.17 text_offset could be in either byte order, and flags did not exist.
        text_offset, flags = _OLD_TEXT_OFFSET, 0
    if flags & _FLAG_BIG_ENDIAN:
        raise InputError(f"{name} is a big-endian arm64 Image (flags {flags:#x}); allowed are little-endian ones")
    address = _align_up(ram.base, _IMAGE_ALIGNMENT) + text_offset
    segment = Segment(address, content, max(image_size, len(content)))
    _check_fits(name, segment, ram)
    return _Started(Kind.IMAGE, (segment,), address)


# Where QEMU puts a raw AArch64 image, and kvm-unit-tests link theirs.
_FLAT_OFFSET: Final = 0x8_0000


def _flat(file: File, ram: Region) -> _Started:
    segment = Segment(ram.base + _FLAT_OFFSET, file.content, len(file.content))
    _check_fits(file.name, segment, ram)
    return _Started(Kind.FLAT, (segment,), segment.address)


def _check_fits(name: str, segment: Segment, ram: Region) -> None:
    if not ram.contains(segment.address, segment.size_bytes):
        raise InputError(f"{name} needs {segment.region}, which is not all within RAM, {ram}; use a larger -m or a smaller image")


def _bios(file: File) -> _Started:
    if file.content.startswith(elf.MAGIC):
        raise InputError(f"{file.name} is an ELF; allowed with -bios is a flat image for address 0: give the ELF to -kernel")
    return _Started(Kind.BIOS, (Segment(FLASH.base, file.content, len(file.content)),), FLASH.base)


def _elf(file: File, ram: Region) -> _Started:
    entry, headers = elf.executable(file.name, file.content)
    pc = None
    segments = []
    for header in headers:
        start, end = header.offset, header.offset + header.file_bytes
        segment = Segment(header.physical, file.content[start:end], header.memory_bytes)
        if not any(region.contains(segment.address, segment.size_bytes) for region in (ram, FLASH)):
            raise InputError(f"{file.name} has a segment at {segment.region}; allowed are RAM, {ram}, and flash, {FLASH}")
        if 0 <= entry - header.virtual < header.file_bytes:
            # As QEMU: the entry point is a virtual address, and execution starts with the MMU off.
            pc = entry - header.virtual + header.physical
        segments.append(segment)
    segments.sort(key=lambda segment: segment.address)
    for first, second in itertools.pairwise(segments):
        if first.region.overlaps(second.region):
            raise InputError(f"{file.name} has overlapping segments at {first.region} and {second.region}; allowed are disjoint ones")
    if not segments:
        raise InputError(f"{file.name} has nothing to load; allowed is an ELF with at least one PT_LOAD segment")
    if pc is None:
        raise InputError(f"{file.name} has its entry point {entry:#x} outside its segments; allowed is one inside")
    return _Started(Kind.ELF, tuple(segments), pc, file.content)


# Linux before 4.2 finds its device tree only within 512 MiB of the kernel, and maps it in 2 MiB blocks.
_DTB_WINDOW_BYTES: Final = 512 * MiB
_DTB_ALIGNMENT: Final = 2 * MiB
# Free memory kept above an image that does not say how much it needs: kvm-unit-tests' stack and page tables follow it.
_GAP_BYTES: Final = 1 * MiB
_INITRD_OFFSET: Final = 128 * MiB


def _above_kernel(started: _Started, ram: Region) -> int:
    top = max((segment.region.end for segment in started.segments if ram.overlaps(segment.region)), default=ram.base)
    return top + (0 if started.kind is Kind.IMAGE else _GAP_BYTES)


def _above_half(started: _Started, ram: Region) -> int:
    return max(ram.base + min(ram.size_bytes // 2, _INITRD_OFFSET), _above_kernel(started, ram))


def _place_initrd(file: File, started: _Started, ram: Region) -> Segment:
    segment = Segment(_align_up(_above_half(started, ram), PAGE_BYTES), file.content, len(file.content))
    if not ram.contains(segment.address, segment.size_bytes):
        raise InputError(f"{file.name} as initrd needs {segment.region}, which is not all within RAM, {ram}; use a larger -m")
    return segment


def _place_dtb(blob: bytes, started: _Started, taken: tuple[Segment, ...], ram: Region) -> Segment:
    after = max(_above_half(started, ram), *(segment.region.end for segment in taken))
    # As QEMU: at the base of RAM for what is no Linux and leaves it free, else above everything.
    # The rest is for small RAM and for an initrd so large that it ends outside the window.
    preferred = [ram.base] if started.kind in (Kind.ELF, Kind.BIOS) else []
    candidates = (
        *preferred,
        _align_up(after, _DTB_ALIGNMENT),
        _align_up(_above_kernel(started, ram), _DTB_ALIGNMENT),
        _align_up(after, PAGE_BYTES),
        ram.base,
    )
    free = [
        address
        for address in candidates
        if ram.contains(address, len(blob)) and not any(Region(address, len(blob)).overlaps(segment.region) for segment in taken)
    ]
    near = [address for address in free if address + len(blob) <= ram.base + _DTB_WINDOW_BYTES]
    for address in (*near, *free):
        return Segment(address, blob, len(blob))
    raise InputError(f"no room for a device tree of {len(blob)} bytes beside what is loaded into RAM, {ram}; use a larger -m")
