"""The fuzzer on Debian's kernel."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Final

import pytest

from emu.commands.probe import LINUX_HAS_ASKED
from emu.fuzz.campaign import REFERENCE
from emu.fuzz.guest import Store
from emu.fuzz.mutate import mutated
from emu.fuzz.worlds import Worlds
from emu.outcome import ExitCode
from tests import real
from tests.fuzzed import ANY_HOST, guest_of

_CASES: Final = 40


def worlds(*, careful: bool) -> Worlds:
    kernel, store = real.kernel(), Store()
    store.add(kernel.read_bytes())
    guest = guest_of(kernel, "-smp 1 -append earlycon", until=f"console:{LINUX_HAS_ASKED.decode()}")
    return Worlds(guest._replace(max_insns=300_000_000), REFERENCE, store.paths, careful=careful)


def test_a_kernel_runs_from_the_checkpoint_as_it_does_in_a_fork() -> None:
    quick, forked, draw = worlds(careful=False), worlds(careful=True), Random(7)
    profile = (("PSCI_VERSION", 1), ("MIGRATE_INFO_TYPE", 1))
    cases = [mutated(REFERENCE, profile, ANY_HOST, draw).case for _ in range(_CASES)]
    cases = [case for case in cases if case.plain == REFERENCE and not case.compatible and not case.conduit]

    for case in cases:
        one, other = quick.run(case), forked.run(case)
        assert (one is None) == (other is None), case
        if one is not None and other is not None:
            assert one._replace(blocks=()) == other._replace(blocks=()), case


@pytest.mark.nightly  # ten minutes, and what it finds again
@pytest.mark.timeout(2400)
def test_ten_minutes_find_what_replays_and_no_bug_that_is_not_known(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "emu", "fuzz", "-kernel", str(real.kernel()), "-m", "256M", "--time", "10m", "-j", "2"]
    done = subprocess.run([*command, "--corpus", str(tmp_path)], check=False, capture_output=True, text=True)

    findings = sorted([*tmp_path.glob("crashes/*.toml"), *tmp_path.glob("hangs/*.toml")])
    assert done.returncode in (ExitCode.OK, ExitCode.CHECK_FAILED), done.stderr
    assert findings
    for finding in findings:
        assert finding.stem.rpartition(",")[2] in ("legal", "broken")
        again = subprocess.run([sys.executable, "-m", "emu", "replay", str(finding)], check=False, capture_output=True, text=True)
        assert again.stdout.endswith("the same run, to the byte\n"), (finding, again.stdout, again.stderr)
    # An error is read as a version (see the linter's test of Linux); on correct firmware there is none to be read.
    assert [finding.name for finding in findings if finding.stem.endswith("legal")] == []
