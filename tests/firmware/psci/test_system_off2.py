"""SYSTEM_OFF2: hibernation, from 1.3."""

from __future__ import annotations

import pytest

from firmware.abi import PowerState, Psci, Version
from tests.firmware.harness import HOST_VERSIONS, JUNK, SHUTDOWN, V1_3, call, left, make, returned

FIDS = (0x8400_0015, 0xC400_0015)


@pytest.mark.parametrize("fid", FIDS, ids=hex)
@pytest.mark.parametrize("off_type", [0, 1, JUNK, JUNK | 1], ids=hex)
def test_hibernate_off_and_its_alias_shut_down_with_a_flag(fid: int, off_type: int) -> None:
    firmware = make("spec")

    assert call(firmware, fid, off_type, 0) == left("spec", SHUTDOWN, 1)
    assert firmware.power.states == [PowerState.OFF, PowerState.OFF]


@pytest.mark.parametrize("fid", FIDS, ids=hex)
@pytest.mark.parametrize(("off_type", "cookie"), [(2, 0), (0x8000_0000, 0), (0xFFFF_FFFF, 0), (0, 1), (1, 1), (1, 0x8000_0000)])
def test_another_type_or_a_cookie_is_refused(fid: int, off_type: int, cookie: int) -> None:
    firmware = make("spec")

    assert call(firmware, fid, off_type, cookie) == returned("spec", Psci.INVALID_PARAMETERS)
    assert firmware.power.states[0] is PowerState.ON


def test_the_cookie_is_64_bits_wide_in_the_smc64_form_alone() -> None:
    assert call(make("spec"), FIDS[1], 1, 1 << 32) == returned("spec", Psci.INVALID_PARAMETERS)
    assert call(make("spec"), FIDS[0], 1, 1 << 32) == left("spec", SHUTDOWN, 1)


@pytest.mark.parametrize(("host", "version"), [pair for pair in HOST_VERSIONS if pair != ("spec", V1_3)], ids=str)
@pytest.mark.parametrize("fid", FIDS, ids=hex)
def test_it_is_absent_before_1_3(host: str, version: Version, fid: int) -> None:
    assert call(make(host, psci=version), fid, 1) == returned(host, Psci.NOT_SUPPORTED)
