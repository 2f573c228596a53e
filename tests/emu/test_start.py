"""What a plain run does not import, since importing it is most of a start."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from guests import elf_path

UNUSED = (
    "unicorn",  # the Python binding; emu/unicorn.py is ours
    "elftools",
    "msgspec",
    "rich",
    "capstone",
    "shutil",
    "random",
    "platform",
    "traceback",
    "difflib",
    "json",
    "tomllib",
    "tempfile",
    "importlib.metadata",
    "emu.state",
    "emu.kallsyms",
    "emu.devices.gicv3",
    "firmware.hosts.qemu",
    "firmware.hosts.xen",
)


@pytest.fixture(scope="module")
def imported() -> frozenset[str]:
    command = [sys.executable, "-X", "importtime", "-m", "emu", "run", "-kernel", str(elf_path("version-loop")), "-host", "kvm-6.12"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL).stderr.splitlines()
    return frozenset(match[1] for line in lines if (match := re.fullmatch(r"import time: .*\| +(\S+)", line)))


def test_the_run_itself_is_seen(imported: frozenset[str]) -> None:
    assert {"emu.machine", "emu.unicorn", "firmware.hosts.kvm"} <= imported


@pytest.mark.parametrize("module", UNUSED)
def test_a_plain_run_does_not_import(module: str, imported: frozenset[str]) -> None:
    assert module not in imported
