"""Debian's arm64 kernel, unmodified, on a GICv3: more CPUs than a GICv2 has, and every CPU model."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from emu import snapshot
from emu.engine import CPU_MODELS
from emu.machine import Machine
from emu.outcome import ExitCode
from emu.state import adopt
from emu.words import CallPoint
from tests import real
from tests.test_linux_userspace import CPUS, MAX_INSNS, run, said_by_user_space, setup_of, user_space

REPLUG: Final = "for c in 1 9 15; do echo 0 > cpu$c/online; done; cat online; for c in 15 9 1; do echo 1 > cpu$c/online; done; cat online"


def redistributors(console: str) -> list[int]:
    return [int(each) for each in re.findall(r"GICv3: CPU(\d+): found redistributor", console)]


def test_sixteen_cpus_come_up_are_replugged_and_switched_off_in_the_same_bytes_every_time() -> None:
    files = ["-kernel", str(real.kernel()), "-initrd", str(user_space()), "-m", "256M", "-max-insns", str(MAX_INSNS)]
    append = f'console=ttyAMA0 panic=-1 RUN="cd {CPUS}; cat online; {REPLUG}"'
    command = [sys.executable, "-m", "emu", "run", *files, "-smp", "16", "-append", append]
    runs = []
    for seed in ("1", "2"):  # Python's, of hashes
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        runs.append(subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL, env=environment, timeout=110).stdout)

    assert runs[0] == runs[1]
    console = runs[0].decode().replace("\r", "")
    assert said_by_user_space(console) == ["0-15", "0,2-8,10-14", "0-15"]
    assert redistributors(console) == [*range(16), 15, 9, 1]
    assert "smp: Brought up 1 node, 16 CPUs" in console
    assert "detected: GIC system register CPU interface" in console
    assert console.rstrip().endswith("reboot: Power down")


@pytest.mark.nightly  # half a minute for the largest machine
@pytest.mark.parametrize("cpus", [9, 32, 123])
def test_as_many_cpus_as_there_is_room_for_come_up(cpus: int) -> None:
    outcome, console = run(setup_of(f"cat {CPUS}/online", smp=cpus))

    assert outcome == (ExitCode.OK, "system off")
    assert said_by_user_space(console) == [f"0-{cpus - 1}"]
    assert redistributors(console) == list(range(cpus))


@pytest.mark.nightly  # eight boots
@pytest.mark.parametrize("gic", [2, 3])
@pytest.mark.parametrize("cpu", CPU_MODELS)
def test_every_cpu_model_comes_to_user_space(cpu: str, gic: int) -> None:
    setup = setup_of(f"cat {CPUS}/online", smp=4, cpu=cpu, gic=gic)
    (outcome, console), again = run(setup), run(setup)

    assert outcome == (ExitCode.OK, "system off")
    assert said_by_user_space(console) == ["0-3"]
    assert (outcome, console) == again


@pytest.mark.nightly  # a boot and a half of sixteen CPUs
def test_a_snapshot_of_sixteen_cpus_goes_on_as_the_machine_itself_does(tmp_path: Path) -> None:
    console = bytearray()
    machine = Machine(setup_of(f"cat {CPUS}/online", smp=16), output=console.extend)
    assert machine.run(CallPoint("CPU_ON", 9)) == (ExitCode.OK, "--until was met")
    path = tmp_path / "sixteen.snapshot"
    snapshot.take(machine).save(path)
    before = len(console)

    kept = snapshot.read(path)
    continued = bytearray()
    other = Machine(kept.setup, output=continued.extend)
    adopt(other, kept.state)

    assert machine.run() == other.run() == (ExitCode.OK, "system off")
    assert continued == console[before:]
    assert b"\r\n0-15\r\n" in continued
