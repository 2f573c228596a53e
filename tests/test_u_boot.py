"""A boot loader that knows nothing of us: U-Boot for QEMU's machine virt, started with -bios, used at its prompt.

U-Boot asks nothing while it starts. `poweroff` calls SYSTEM_OFF at once; `reset` asks for the version, from 1.0 on whether there is a
SYSTEM_RESET2, and then calls SYSTEM_RESET all the same, because SYSTEM_RESET2 is for `reset -w`.
"""

from __future__ import annotations

import dataclasses
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from emu.machine import Machine
from emu.outcome import ExitCode
from emu.report import Log
from emu.setup import Choices, make
from tests import real

ENOUGH_INSTRUCTIONS: Final = 1_000_000_000
TIMEOUT_S: Final = 60
PLACES: Final = (
    ("spec", "0.2"),
    ("spec", "1.0"),
    ("spec", "1.1"),
    ("kvm-6.12", "0.2"),
    ("kvm-6.12", "1.0"),
    ("kvm-6.12", "1.1"),
    ("qemu-7", "1.1"),
)
NEWEST: Final = (("spec", "1.3"), ("kvm-6.12", "1.1"), ("qemu-7", "1.1"))
VERSION_WORDS: Final = {"0.2": "0x2 (0.2)", "1.0": "0x10000 (1.0)", "1.1": "0x10001 (1.1)", "1.3": "0x10003 (1.3)"}

# What is typed, each part once what it waits for has been printed since the part before.
Script = tuple[tuple[bytes, bytes], ...]
TO_THE_PROMPT: Final = ((b"stop autoboot", b" "),)
POWEROFF: Final[Script] = (*TO_THE_PROMPT, (b"=> ", b"poweroff\n"))
RESET: Final[Script] = (*TO_THE_PROMPT, (b"=> ", b"reset\n"))
WARM_RESET: Final[Script] = (*TO_THE_PROMPT, (b"=> ", b"reset -w\n"))


class Typist:
    """Somebody at the console, who reads before typing."""

    def __init__(self, script: Script) -> None:
        self.printed = bytearray()
        self._script = list(script)
        self._read_to = 0
        self._typing = b""

    def type(self, limit: int) -> bytes:
        """Give up to `limit` characters."""
        if not self._typing and self._script:
            awaited, text = self._script[0]
            at = self.printed.find(awaited, self._read_to)
            if at >= 0:
                self._read_to = at + len(awaited)
                self._typing = text
                del self._script[0]
        typed, self._typing = self._typing[:limit], self._typing[limit:]
        return typed


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """What can be seen of a run: its exit code, what it printed, and the -d log."""

    code: int
    console: str
    log: str

    @property
    def calls(self) -> list[str]:
        """Name each call with its answer, in order."""
        return re.findall(r"cpu0 (?:hvc|smc) +\S+ +(\S.*)$", self.log, re.MULTILINE)


def run(
    script: Script,
    host: str,
    version: str | None = None,
    conduit: str = "hvc",
    *,
    no_reboot: bool = False,
    until: bytes | None = None,
    smp: int = 1,
) -> Run:
    """Start U-Boot and type to it."""
    setup = make(Choices(host=host, psci=version, conduit=conduit, mpidrs=tuple(range(smp))))
    pattern = None if until is None else re.compile(until)
    setup = dataclasses.replace(setup, bios=real.u_boot(), no_reboot=no_reboot, until=pattern, max_insns=ENOUGH_INSTRUCTIONS)
    typist, lines = Typist(script), io.StringIO()
    machine = Machine(setup, output=typist.printed.extend, typed=typist.type)
    Log(machine, frozenset({"psci", "int"}), lines)
    outcome = machine.run()
    return Run(outcome.code, typist.printed.decode("ascii"), lines.getvalue())


every_place = pytest.mark.parametrize(("host", "version"), PLACES, ids=lambda word: word)
newest = pytest.mark.parametrize(("host", "version"), NEWEST, ids=lambda word: word)


@pytest.mark.parametrize(
    ("host", "version", "conduit"), [*((*place, "hvc") for place in PLACES), *((*place, "smc") for place in NEWEST)], ids=lambda word: word
)
def test_poweroff_at_the_prompt_is_a_system_off_and_ends_well(host: str, version: str, conduit: str) -> None:
    off = run(POWEROFF, host, version, conduit)

    assert off.code == ExitCode.OK
    assert off.console.endswith("=> poweroff\r\npoweroff ...\r\n")
    assert off.calls == ["SYSTEM_OFF() = system shutdown; cpu0 ON -> OFF"]
    assert f"cpu0 {conduit} " in off.log


@every_place
def test_reset_asks_what_its_version_permits_and_ends_with_the_code_for_a_reset(host: str, version: str) -> None:
    reset = run(RESET, host, version, "smc", no_reboot=True)

    assert reset.code == ExitCode.RESET
    assert reset.console.endswith("=> reset\r\nresetting ...\r\n")
    assert reset.calls == asked_by_reset(host, version)


@newest
def test_after_a_reset_u_boot_starts_again_and_can_be_powered_off(host: str, version: str) -> None:
    twice = run(RESET + POWEROFF, host, version)

    assert twice.code == ExitCode.OK
    assert twice.console.count("U-Boot 20") == twice.console.count("stop autoboot") == 2
    assert [line for line in twice.console.splitlines() if line.startswith("=> ")] == ["=> reset", "=> poweroff"]
    assert twice.calls == [*asked_by_reset(host, version), "SYSTEM_OFF() = system shutdown; cpu0 ON -> OFF"]
    assert twice.log.count("system reset\n") == 1


def test_a_second_run_has_the_same_console_and_log_to_the_byte() -> None:
    assert run(RESET + POWEROFF, "kvm-6.12", smp=4) == run(RESET + POWEROFF, "kvm-6.12", smp=4)


def asked_by_reset(host: str, version: str) -> list[str]:
    calls = [f"PSCI_VERSION() = {VERSION_WORDS[version]}"]
    if version != "0.2":
        offered = version != "1.0" and host != "qemu-7"
        calls.append(f"PSCI_FEATURES(psci_func_id=SYSTEM_RESET2) = {'0x0' if offered else 'NOT_SUPPORTED'}")
    return [*calls, "SYSTEM_RESET() = system reset; cpu0 ON -> OFF"]


@pytest.mark.parametrize("host", ["spec", "kvm-6.12"])
def test_a_warm_reset_is_a_system_reset2_where_there_is_one(host: str) -> None:
    reset = run(WARM_RESET, host, no_reboot=True)

    assert reset.code == ExitCode.RESET
    assert reset.calls[-1].startswith("SYSTEM_RESET2(reset_type=0x0, cookie=0x0) = system reset, flags 0x1")


@pytest.mark.parametrize("version", ["0.1", "none"])
def test_without_psci_0_2_u_boot_can_neither_power_off_nor_reset(version: str) -> None:
    off = run(POWEROFF, "spec", version, until=b"Power off not supported on this platform")
    reset = run(RESET, "spec", version)

    assert off.code == ExitCode.OK
    assert off.calls == ([] if version == "none" else ["SYSTEM_OFF() = NOT_SUPPORTED"])
    assert "System reset not supported on this platform" in reset.console
    assert (reset.code, reset.calls) == (ExitCode.DEADLOCK, [])


def test_the_command_line_takes_the_typing_from_a_file_and_repeats_itself(tmp_path: Path) -> None:
    typing = tmp_path / "typing"
    typing.write_bytes(b"\npoweroff\n")

    first, second = (on_the_command_line(typing) for _ in range(2))

    code, console, log = first
    assert code == 0
    assert console.endswith(b"=> poweroff\r\npoweroff ...\r\n")
    assert log.count(b"\n") == log.count(b"SYSTEM_OFF() = system shutdown") == 1
    assert second == first


def on_the_command_line(typing: Path) -> tuple[int, bytes, bytes]:
    command = [sys.executable, "-m", "emu", "run", "-bios", str(real.u_boot()), "-host", "qemu-7", "-nographic", "-d", "psci"]
    with typing.open("rb") as stdin:
        done = subprocess.run(command, check=False, stdin=stdin, capture_output=True, timeout=TIMEOUT_S)
    return done.returncode, done.stdout, done.stderr
