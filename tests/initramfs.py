"""A small user space for Debian's kernel: busybox, and an /init that runs what the kernel's command line asks for, or a shell.

    python -m tests.initramfs

writes it into the ignored .cache, for `make linux`. The kernel hands what it does not know on its command line to /init as environment
(Linux Documentation/admin-guide/kernel-parameters.rst), so `RUN="poweroff -f"` there is what /init runs in place of a shell.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from tests import kernels

PATH: Final = kernels.FOLDER.parent / "initramfs.cpio"

_INIT: Final = b"""#!/bin/busybox sh
export PATH=/bin HOME=/
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
if [ -n "$RUN" ]; then
    eval "$RUN"
else
    echo "CPUs $(cat /sys/devices/system/cpu/online) are online; poweroff -f and reboot -f end this."
    setsid cttyhack sh
fi
poweroff -f
"""

_MAGIC: Final = b"070701"
_FOLDER: Final = 0o040755
_FILE: Final = 0o100755


def archive(entries: list[tuple[str, int, bytes]]) -> bytes:
    """Return a cpio archive in the format newc, of (name, mode, content), owned by root and without a date."""
    packed = bytearray()
    for number, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        path = name.encode() + b"\0"
        # ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
        for part in (_MAGIC + b"".join(b"%08X" % field for field in fields) + path, content):
            packed += part
            packed += bytes(-len(packed) % 4)
    return bytes(packed)


def initramfs(busybox: bytes) -> bytes:
    """Return the archive."""
    folders = [(name, _FOLDER, b"") for name in ("bin", "dev", "proc", "sys")]
    return archive([*folders, ("bin/busybox", _FILE, busybox), ("init", _FILE, _INIT)])


def write(path: Path = PATH) -> Path:
    """Write it where it is not there yet, in one step, and return where it is."""
    content = initramfs(kernels.BUSYBOX.read_bytes())
    if not path.is_file() or path.read_bytes() != content:
        made = path.with_name(f"{path.name}.new")
        made.write_bytes(content)
        made.replace(path)
    return path


if __name__ == "__main__":
    print(write(), file=sys.stderr)
