"""KVM's vendor service: UID, features, PTP, each behind its bit."""

from __future__ import annotations

import pytest

from firmware.abi import Psci, Version
from firmware.dispatch import Firmware
from tests.firmware.harness import HOST_VERSIONS, JUNK, call, make, returned

FEATURES, PTP, CALL_UID = 0x8600_0000, 0x8600_0001, 0x8600_FF01
BMAP, BMAP_2 = 0x6030_0000_0016_0002, 0x6030_0000_0016_0003
UID = (0xB66F_B428, 0xE911_C52E, 0x564B_CAA9, 0x743A_004D)
WALL_NS = 0x1122_3344_5566_7788
HOSTS = ("spec", "kvm-6.12")


def offering(host: str, bits: int) -> Firmware:
    firmware = make(host, wall_clock_ns=WALL_NS)
    firmware.set_one_reg(BMAP, bits)
    return firmware


@pytest.mark.parametrize("version", [version for host, version in HOST_VERSIONS if host == "kvm-6.12"], ids=str)
def test_kvm_tells_every_guest_who_it_is(version: Version) -> None:
    firmware = make("kvm-6.12", psci=version)

    assert call(firmware, CALL_UID) == returned("kvm-6.12", *UID)
    assert call(firmware, FEATURES) == returned("kvm-6.12", 0x3, 0, 0, 0)


@pytest.mark.parametrize("host", ["spec", "qemu-7"])
@pytest.mark.parametrize("fid", [FEATURES, PTP, CALL_UID], ids=hex)
def test_other_hosts_offer_nothing_by_default(host: str, fid: int) -> None:
    assert call(make(host), fid) == returned(host, Psci.NOT_SUPPORTED)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("bits", range(4), ids=hex)
def test_bit_0_offers_uid_and_features_and_bit_1_ptp(host: str, bits: int) -> None:
    firmware = offering(host, bits)
    refused = returned(host, Psci.NOT_SUPPORTED)

    assert call(firmware, CALL_UID) == (returned(host, *UID) if bits & 1 else refused)
    assert call(firmware, FEATURES) == (returned(host, bits, 0, 0, 0) if bits & 1 else refused)
    assert (call(firmware, PTP) == refused) is not bool(bits & 2)


def test_the_second_bitmap_shows_in_x2() -> None:
    firmware = offering("spec", 0x1)

    firmware.set_one_reg(BMAP_2, 0x2)

    assert call(firmware, FEATURES) == returned("spec", 0x1, 0, 0x2, 0)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("fid", [0xC600_0040, 0xC600_0041], ids=hex)
def test_discover_impl_is_advertised_and_has_no_handler(host: str, fid: int) -> None:
    assert call(offering(host, 0x3), fid) == returned(host, Psci.NOT_SUPPORTED)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("counter", [0, 1, JUNK, JUNK | 1], ids=hex)
def test_ptp_returns_wall_clock_and_counter_of_one_instant(host: str, counter: int) -> None:
    firmware = offering(host, 0x2)
    hour_ns = 3_600_000_000_000
    wall, ticks = WALL_NS + hour_ns, 3600 * 62_500_000
    words = (wall >> 32, wall & 0xFFFF_FFFF, ticks >> 32, ticks & 0xFFFF_FFFF)

    assert call(firmware, PTP, counter, time_ns=hour_ns) == returned(host, *words)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("counter", [2, 0xFFFF_FFFF], ids=hex)
def test_ptp_knows_no_third_counter(host: str, counter: int) -> None:
    assert call(offering(host, 0x2), PTP, counter) == returned(host, Psci.NOT_SUPPORTED)
