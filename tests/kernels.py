"""`make kernels`: fetch the unmodified kernel that the tests boot, and a busybox for it, from Debian 12's arm64 archive.

    python -m tests.kernels

Debian's `linux-image-6.1.0-NN-cloud-arm64`, the newest there is, and `busybox-static`, downloaded by apt with lists and caches of their
own, so that neither root nor a change to this machine's packages is needed. apt holds what it downloads against the archive's signed
hashes; what was unpacked is recorded in SHA256SUMS, and later runs are held against that. Nothing of it is committed.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).resolve().parent.parent / ".cache" / "kernels"
IMAGE: Final = FOLDER / "Image"
BUSYBOX: Final = FOLDER / "busybox"

_SUMS: Final = "SHA256SUMS"
_SERIES: Final = "linux-image-6.1.0-"
_KERNEL: Final = re.compile(re.escape(_SERIES) + r"(\d+)-cloud-arm64")
_BUSYBOX: Final = "busybox-static"
_GZIP_MAGIC: Final = b"\x1f\x8b"
_IMAGE_MAGIC: Final = b"ARM\x64"  # Documentation/arm64/booting.rst
_IMAGE_MAGIC_AT: Final = 0x38
_TIMEOUT_S: Final = 600


class FetchError(Exception):
    """Say in one sentence why there is no kernel."""


def newest(packages: list[str]) -> str | None:
    """Return the newest of Debian's 6.1 cloud kernels among package names; None if there is none."""
    versions = [int(match[1]) for name in packages if (match := _KERNEL.fullmatch(name))]
    return f"{_SERIES}{max(versions)}-cloud-arm64" if versions else None


def check(folder: Path) -> None:
    """Hold a folder against its own SHA256SUMS."""
    try:
        lines = (folder / _SUMS).read_text(encoding="ascii").splitlines()
        for digest, name in (line.split("  ", 1) for line in lines):
            if _sha256(folder / name) != digest:
                raise FetchError(f"{folder / name} is not what was downloaded; remove {folder} and fetch again")
    except (OSError, ValueError) as error:
        raise FetchError(f"{folder} is damaged ({error}); remove it and fetch again") from None


def fetch(folder: Path = FOLDER) -> bool:
    """Fill a folder, or check one that is filled; return whether anything was downloaded."""
    if folder.exists():
        check(folder)
        return False
    for program in ("apt-get", "apt-cache", "dpkg"):
        if shutil.which(program) is None:
            raise FetchError(f"{program} is not installed; kernels are fetched with Debian's apt")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", dir=folder.parent) as name:
        work = Path(name)
        filled = _fill(work)
        try:
            # In one step, so that a folder of this name is always whole.
            filled.rename(folder)
        except OSError as error:
            if not folder.exists():
                raise FetchError(f"{folder} cannot be made: {error.strerror}") from None
            check(folder)  # somebody else was faster
    return True


def _fill(work: Path) -> Path:
    options = _apt_options(work / "apt")
    _run(["apt-get", *options, "--quiet", "--quiet", "update"], work, "the list of Debian's arm64 packages cannot be fetched")
    listed = _run(["apt-cache", *options, "pkgnames", _SERIES], work, "apt cannot list the packages it has fetched")
    kernel = newest(listed.split())
    if kernel is None:
        raise FetchError(f"this machine's apt sources have no {_SERIES}NN-cloud-arm64; Debian 12 (bookworm) has")
    wanted = [kernel, _BUSYBOX]
    _run(["apt-get", *options, "--quiet", "--quiet", "download", *wanted], work, f"{' and '.join(wanted)} cannot be downloaded")
    for package in wanted:
        for archive in work.glob(f"{package}_*.deb"):
            _run(["dpkg", "-x", str(archive), str(work / package)], work, f"{archive.name} cannot be unpacked")
    filled = work / "filled"
    filled.mkdir()
    _copy(work / kernel / "boot" / f"vmlinuz-{kernel.removeprefix('linux-image-')}", filled / IMAGE.name)
    _copy(work / _BUSYBOX / "bin" / "busybox", filled / BUSYBOX.name)
    (filled / BUSYBOX.name).chmod(0o755)
    if not (filled / IMAGE.name).read_bytes().startswith(_IMAGE_MAGIC, _IMAGE_MAGIC_AT):
        raise FetchError(f"{kernel} holds no arm64 Image where one was expected")
    packages = sorted(archive.name.replace("%3a", ":") for archive in work.glob("*.deb"))
    (filled / "PACKAGES").write_text("".join(f"{package}\n" for package in packages), encoding="ascii")
    sums = [f"{_sha256(path)}  {path.name}\n" for path in sorted(filled.iterdir())]
    (filled / _SUMS).write_text("".join(sums), encoding="ascii")
    return filled


def _apt_options(state: Path) -> list[str]:
    for folder in ("lists/partial", "cache/archives/partial", "log"):
        (state / folder).mkdir(parents=True)
    (state / "status").touch()
    values = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "root",  # else apt complains that its own user cannot write here
        "APT::Get::AllowUnauthenticated": "false",
        "Acquire::AllowInsecureRepositories": "false",
        "Acquire::Languages": "none",
        "Dir::State::Lists": str(state / "lists"),
        "Dir::State::status": str(state / "status"),
        "Dir::Cache": str(state / "cache"),
        "Dir::Log": str(state / "log"),
    }
    return [f"-o{name}={value}" for name, value in values.items()]


def _run(command: list[str], folder: Path, otherwise: str) -> str:
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command, check=False, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise FetchError(f"{otherwise}: {command[0]} took longer than {_TIMEOUT_S} s") from None
    if done.returncode:
        said = [line.removeprefix("E: ") for line in done.stderr.splitlines() if line.startswith("E: ")] or done.stderr.splitlines()
        raise FetchError(f"{otherwise}: {said[0] if said else f'{command[0]} ended with {done.returncode}'}")
    return done.stdout


def _copy(source: Path, target: Path) -> None:
    try:
        content = source.read_bytes()
    except OSError as error:
        raise FetchError(f"the package holds no {source.name} where one was expected: {error.strerror}") from None
    target.write_bytes(gzip.decompress(content) if content.startswith(_GZIP_MAGIC) else content)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> int:
    try:
        downloaded = fetch()
    except (FetchError, OSError) as failed:
        print(f"kernels: {failed}", file=sys.stderr)
        return 1
    packages = (FOLDER / "PACKAGES").read_text(encoding="ascii").split()
    print(f"kernels: {', '.join(packages)} {'downloaded' if downloaded else 'are there'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
