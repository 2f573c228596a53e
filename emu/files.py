"""The user's files as a command writes them: never over an input, never over another output, and nothing half done."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, Final

from firmware.errors import UserError

# Options of a machine that name a file.
OF_A_MACHINE: Final = ("kernel", "bios", "initrd", "dtb", "symbols")


def protect(inputs: Mapping[str, Path | None], outputs: Mapping[str, Path | None]) -> None:
    """Refuse an output file that is an input, or another output: nothing a user has is lost to a slip of the hand."""
    taken = {_identity(path): name for name, path in inputs.items() if path is not None}
    for name, path in outputs.items():
        if path is None or (path.exists() and not path.is_file()):
            continue  # /dev/null, a terminal or a pipe takes any number
        other = taken.setdefault(_identity(path), name)
        if other != name:
            raise UserError(f"{name} {path} would overwrite the file of {other}")


def _identity(path: Path) -> object:
    """Return what two names of one file have in common, hard links and files yet to be made included."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return os.path.abspath(path)
    return status.st_dev, status.st_ino


def opened(what: str, path: Path) -> BinaryIO:
    """Open a file for writing; raise UserError where that cannot be."""
    try:
        return path.open("wb")
    except (OSError, ValueError) as error:
        raise UserError(f"{what} cannot be written: {getattr(error, 'strerror', None) or error}") from None


def write(path: Path, content: bytes) -> None:
    """Write a file; raise UserError where that cannot be."""
    try:
        path.write_bytes(content)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}") from None


def replace(path: Path, parts: Iterable[bytes]) -> None:
    """Write a file whole or not at all: what was there stays until the new one is complete."""
    import tempfile  # noqa: PLC0415  for the few that replace a file

    name = None
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is not a regular file, and cannot be replaced")
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as stream:
            name = stream.name
            for part in parts:
                stream.write(part)
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
        name = None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}") from None
    finally:
        if name is not None:
            os.unlink(name)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
