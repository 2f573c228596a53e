"""PV time: discovery knows the service wherever its bit is set; its own answers depend on a configured structure."""

from __future__ import annotations

import pytest

from firmware.abi import Psci, Version
from firmware.trap import WriteMemory
from tests.firmware.harness import HOST_VERSIONS, JUNK, call, make, returned

FEATURES, ST, ARCH_FEATURES = 0xC500_0020, 0xC500_0021, 0x8000_0001
STD_HYP_BMAP = 0x6030_0000_0016_0001
BASE = 0x4700_0000
HOSTS = ("spec", "kvm-6.12")


@pytest.mark.parametrize(("host", "version"), [pair for pair in HOST_VERSIONS if pair[0] in HOSTS], ids=str)
def test_each_vcpu_has_its_own_structure_which_the_call_clears(host: str, version: Version) -> None:
    firmware = make(host, vcpus=3, psci=version, pv_time_base=BASE)

    for vcpu in range(3):
        address = BASE + 64 * vcpu
        assert call(firmware, ST, vcpu=vcpu) == returned(host, address, effects=(WriteMemory(address, bytes(64)),))


@pytest.mark.parametrize("host", HOSTS)
def test_features_knows_the_two_functions_by_the_low_half(host: str) -> None:
    firmware = make(host, pv_time_base=BASE)

    for fid in (FEATURES, ST):
        assert call(firmware, FEATURES, fid) == returned(host, 0)
        assert call(firmware, FEATURES, JUNK | fid) == returned(host, 0)
    for fid in (0, 0xC500_0022, 0x8500_0020, 0xC400_0053, ARCH_FEATURES):
        assert call(firmware, FEATURES, fid) == returned(host, Psci.NOT_SUPPORTED)


@pytest.mark.parametrize("host", HOSTS)
def test_without_a_structure_the_service_is_discovered_and_refuses(host: str) -> None:
    firmware = make(host)

    assert call(firmware, ARCH_FEATURES, FEATURES) == returned(host, 0)
    assert call(firmware, FEATURES, FEATURES) == returned(host, Psci.NOT_SUPPORTED)
    assert call(firmware, FEATURES, ST) == returned(host, Psci.NOT_SUPPORTED)
    assert call(firmware, ST) == returned(host, Psci.NOT_SUPPORTED)


@pytest.mark.parametrize("host", HOSTS)
def test_the_bitmap_hides_it_all(host: str) -> None:
    firmware = make(host, pv_time_base=BASE)

    firmware.set_one_reg(STD_HYP_BMAP, 0)

    assert call(firmware, ARCH_FEATURES, FEATURES) == returned(host, Psci.NOT_SUPPORTED)
    assert call(firmware, FEATURES, FEATURES) == returned(host, Psci.NOT_SUPPORTED)
    assert call(firmware, ST) == returned(host, Psci.NOT_SUPPORTED)


@pytest.mark.parametrize("fid", [FEATURES, ST, 0x8500_0020, 0x8500_0021], ids=hex)
def test_qemu_has_no_pv_time(fid: int) -> None:
    assert call(make("qemu-7", pv_time_base=BASE), fid, FEATURES) == returned("qemu-7", Psci.NOT_SUPPORTED)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("fid", [0x8500_0020, 0x8500_0021], ids=hex)
def test_there_is_no_smc32_form(host: str, fid: int) -> None:
    assert call(make(host, pv_time_base=BASE), fid, FEATURES) == returned(host, Psci.NOT_SUPPORTED)
