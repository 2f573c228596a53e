"""The real things that tests compare with or run: QEMU, U-Boot and the cross compiler.

Each function returns what it is asked for. Where that is not installed it skips the test that asks, and fails it where the environment
variable CI is `true`: there, a skipped comparison would look like one that was made.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final, NoReturn

import pytest

CROSS: Final = "aarch64-linux-gnu-"
_KERNEL: Final = Path(__file__).parent.parent / ".cache" / "kernels" / "Image"
_U_BOOT: Final = Path("/usr/lib/u-boot/qemu_arm64/u-boot.bin")


def qemu() -> str:
    """Find QEMU's system emulator for AArch64 (Debian: qemu-system-arm)."""
    return _program("qemu-system-aarch64")


def u_boot() -> Path:
    """Find U-Boot for QEMU's machine virt (Debian: u-boot-qemu)."""
    if not _U_BOOT.is_file():
        _missing(f"{_U_BOOT} (Debian: u-boot-qemu)")
    return _U_BOOT


def dtc() -> str:
    """Find the device tree compiler (Debian: device-tree-compiler)."""
    return _program("dtc")


def cross_compiler() -> str:
    """Find gcc for AArch64 (Debian: gcc-aarch64-linux-gnu)."""
    return _program(f"{CROSS}gcc")


def kernel() -> Path:
    """Find Debian's arm64 kernel (`make kernels`)."""
    if not _KERNEL.is_file():
        _missing("Debian's arm64 kernel (make kernels)")
    return _KERNEL


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        _missing(name)
    return path


def _missing(what: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is not installed, and CI may not do without")
    pytest.skip(f"{what} is not installed")
