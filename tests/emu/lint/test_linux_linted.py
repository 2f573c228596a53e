"""Debian's kernel, linted: two answers that are errors, and are read as versions."""

from __future__ import annotations

import json

import pytest

from emu.cli import main
from emu.outcome import ExitCode
from tests import real


@pytest.mark.nightly  # thirty boots: a minute on an idle core
@pytest.mark.timeout(900)
def test_linux_reads_two_errors_as_versions(capsys: pytest.CaptureFixture[str]) -> None:
    # drivers/firmware/psci/psci.c: `u32 ver = psci_0_2_get_version()` and psci_init_smccc's `u32 ret`.
    assert main(["lint", "-kernel", str(real.kernel()), "-m", "256M", "--json"]) == ExitCode.CHECK_FAILED

    found = json.loads(capsys.readouterr().out)["findings"]
    assert {(finding["rule"], finding["symbol"].partition("+")[0]) for finding in found} == {
        ("version-unsigned", "psci_0_2_get_version"),
        ("smccc-unsigned", "psci_probe"),
    }
