"""Debian's arm64 kernel, unmodified, to user space: CPUs started, unplugged and replugged, reset, moved between hosts, switched off.

What user space does stands on the kernel's command line (tests/initramfs.py).
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from emu.hosts import host_of
from emu.machine import Machine
from emu.migrate import destination_of, move
from emu.outcome import ExitCode, Outcome
from emu.setup import Choices, Setup, make
from emu.words import CallPoint, parse_smp
from firmware.policy import PSEUDO_REGISTER
from tests import initramfs, real

MAX_INSNS: Final = 4_000_000_000
RAM_BYTES: Final = 256 << 20
CPUS: Final = "/sys/devices/system/cpu"
HOTPLUG: Final = f"cd {CPUS}; for c in 1 2 3 1; do echo 0 > cpu$c/online; cat online; echo 1 > cpu$c/online; done; cat online"
PROMPT: Final = b"/ # \x1b[6n"


@functools.cache
def user_space() -> Path:
    real.kernel()
    return initramfs.write()


def setup_of(
    does: str,
    *,
    smp: int = 1,
    host: str = "kvm-6.12",
    conduit: str | None = None,
    psci: str | None = None,
    cap: tuple[str, ...] = (),
    **more: object,
) -> Setup:
    choices = Choices(host=host, psci=psci, conduit=conduit, cap=cap, mpidrs=parse_smp(str(smp)), ram_bytes=RAM_BYTES)
    append = f'console=ttyAMA0 panic=-1 RUN="{does}"' if does else "console=ttyAMA0 panic=-1"
    changes = {"kernel": real.kernel(), "initrd": user_space(), "append": append, "max_insns": MAX_INSNS, **more}
    return dataclasses.replace(make(choices), **changes)  # type: ignore[arg-type]


def run(setup: Setup) -> tuple[Outcome, str]:
    console = bytearray()
    return Machine(setup, output=console.extend).run(), console.decode("utf-8", "backslashreplace").replace("\r", "")


def said_by_user_space(console: str) -> list[str]:
    """Return what is not the kernel's."""
    return [line for line in console.splitlines() if line and not re.match(r"\[ *\d+\.\d+\] ", line)]


@pytest.mark.parametrize("conduit", ["hvc", "smc"])
@pytest.mark.parametrize("smp", [1, 2, 4])
def test_the_kernel_comes_to_user_space_with_all_its_cpus_and_switches_off(smp: int, conduit: str) -> None:
    outcome, console = run(setup_of(f"cat {CPUS}/online", smp=smp, conduit=conduit))

    assert outcome == (ExitCode.OK, "system off")
    assert said_by_user_space(console) == ["0" if smp == 1 else f"0-{smp - 1}"]
    assert console.count("] CPU") - console.count("] CPU features") >= smp - 1
    assert console.rstrip().endswith("reboot: Power down")


@pytest.mark.parametrize("gic", [2, 3])
def test_cpus_are_unplugged_and_plugged_in_again(gic: int) -> None:
    setup = setup_of(HOTPLUG, smp=4, gic=gic)
    console = bytearray()
    machine = Machine(setup, output=console.extend)
    outcome = machine.run()

    assert outcome == (ExitCode.OK, "system off")
    text = console.decode().replace("\r", "")
    assert said_by_user_space(text) == ["0,2-3", "0-1,3", "0-2", "0,2-3", "0-3"]
    assert re.findall(r"psci: CPU(\d) killed", text) == ["1", "2", "3", "1"]


def test_a_reboot_boots_again_and_the_shell_is_typed_at() -> None:
    console, lines = bytearray(), [b"echo typed $((6 * 7)); reboot -f\n", b"poweroff -f\n"]
    typed = bytearray()

    def key(limit: int) -> bytes:
        # A line for each prompt, which ends with a question to the terminal.
        if len(lines) > 2 - console.count(PROMPT):
            typed.extend(lines.pop(0))
        taken = bytes(typed[:limit])
        del typed[:limit]
        return taken

    machine = Machine(setup_of("", smp=2), output=console.extend, typed=key)

    assert machine.run() == (ExitCode.OK, "system off")
    text = console.decode().replace("\r", "")
    assert text.count("Booting Linux on physical CPU 0x0") == 2
    assert "\ntyped 42\n" in text
    assert text.count("CPUs 0-1 are online") == 2


@pytest.mark.parametrize(("source", "destination"), [("kvm-6.12", "kvm-6.13"), ("kvm-4.17", "kvm-7.0")])
def test_the_booted_kernel_is_moved_between_hosts_and_goes_on_to_its_end(source: str, destination: str) -> None:
    setup = setup_of(HOTPLUG, smp=4, host=source)
    console = bytearray()
    machine = Machine(setup, output=console.extend)
    assert machine.run(CallPoint("CPU_OFF", 2)) == (ExitCode.OK, "--until was met")

    machine_type = PSEUDO_REGISTER.machine_types[0]
    fresh = destination_of(setup.config, host_of(destination), PSEUDO_REGISTER, machine_type, None)
    moved = move(machine, fresh, PSEUDO_REGISTER, machine_type, output=console.extend)

    assert moved.machine is not None
    assert not moved.migration.version_changed
    assert moved.machine.run() == (ExitCode.OK, "system off")
    assert said_by_user_space(console.decode().replace("\r", "")) == ["0,2-3", "0-1,3", "0-2", "0,2-3", "0-3"]


def test_two_boots_give_the_same_bytes_time_stamps_included(tmp_path: Path) -> None:
    user_space()
    runs = []
    for seed in ("1", "2"):  # Python's, of hashes
        trace = tmp_path / f"{seed}.jsonl"
        options = ["-smp", "3", "-m", "256M", "-max-insns", str(MAX_INSNS), "-trace", str(trace)]
        files = ["-kernel", str(real.kernel()), "-initrd", str(user_space()), "-append", f'console=ttyAMA0 RUN="cat {CPUS}/online"']
        command = [sys.executable, "-m", "emu", "run", *files, *options]
        done = subprocess.run(
            command, check=True, capture_output=True, stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONHASHSEED": seed}, timeout=100
        )
        runs.append((done.stdout, trace.read_bytes()))

    assert runs[0] == runs[1]
    assert b"\r\n0-2\r\n" in runs[0][0]


def test_a_seed_is_another_schedule_and_the_same_one_every_time() -> None:
    consoles = [run(setup_of(f"cat {CPUS}/online", smp=4, seed=seed)) for seed in (1, 1, 2)]

    assert [outcome for outcome, _ in consoles] == [(ExitCode.OK, "system off")] * 3
    assert [said_by_user_space(console) for _, console in consoles] == [["0-3"]] * 3
    assert consoles[0] == consoles[1] != consoles[2]


def test_on_qemu_it_says_the_same_of_its_firmware_and_its_cpus(tmp_path: Path) -> None:
    setup = setup_of("true", smp=4, host="qemu-7")
    dtb = tmp_path / "tree.dtb"
    dtb.write_bytes(Machine(setup).board.device_tree)
    machine = ["-M", "virt", "-cpu", "cortex-a57", "-accel", "tcg,thread=single", "-smp", "4", "-m", "256", "-nographic", "-nic", "none"]
    files = ["-kernel", str(real.kernel()), "-initrd", str(user_space()), "-append", setup.append, "-dtb", str(dtb)]
    theirs = subprocess.run([real.qemu(), *machine, *files], check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=100).stdout

    outcome, ours = run(setup)

    assert outcome == (ExitCode.OK, "system off")
    assert said_of_firmware(ours) == said_of_firmware(theirs.decode().replace("\r", ""))
    assert "psci: PSCIv1.1 detected in firmware." in said_of_firmware(ours)
    assert "SMP: Total of 4 processors activated." in said_of_firmware(ours)


def said_of_firmware(console: str) -> list[str]:
    return re.findall(r"^\[ *\d+\.\d+\] ((?:psci|smccc|smp|SMP|CPU\d+): .*)", console, re.MULTILINE)
