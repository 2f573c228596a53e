"""MIGRATE, MIGRATE_INFO_TYPE, MIGRATE_INFO_UP_CPU: a Trusted OS that can sit on one CPU, or none."""

from __future__ import annotations

import pytest

from firmware.abi import Psci, Version
from firmware.dispatch import Firmware
from firmware.host import TrustedOs
from firmware.hosts import host_named
from tests.firmware.harness import HOST_VERSIONS, HOSTS, JUNK, V0_1, V0_2, call, make, returned

MPIDRS = (0x0, 0x100, 0x81_0000_0000)
MIGRATE, MIGRATE_INFO_TYPE, MIGRATE_INFO_UP_CPU = (0x8400_0005, 0xC400_0005), 0x8400_0006, (0x8400_0007, 0xC400_0007)


def with_trusted_os(type_: int, vcpu: int) -> Firmware:
    return make(host_named("spec").evolve(trusted_os=TrustedOs(type_, vcpu), cite="a test"), mpidrs=MPIDRS)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("fid", [*MIGRATE, *MIGRATE_INFO_UP_CPU], ids=hex)
def test_without_a_trusted_os_there_is_nothing_to_migrate(host: str, fid: int) -> None:
    firmware = make(host)

    assert call(firmware, fid, 0) == returned(host, Psci.NOT_SUPPORTED)
    assert call(firmware, "PSCI_FEATURES", fid) == returned(host, Psci.NOT_SUPPORTED)


@pytest.mark.parametrize(("host", "version"), [pair for pair in HOST_VERSIONS if pair[1] >= V0_2], ids=str)
def test_migration_is_not_required(host: str, version: Version) -> None:
    assert call(make(host, psci=version), MIGRATE_INFO_TYPE) == returned(host, 2)


@pytest.mark.parametrize("type_", [0, 1])
@pytest.mark.parametrize("vcpu", [0, 1, 2])
def test_the_trusted_oss_type_and_cpu_are_told(type_: int, vcpu: int) -> None:
    firmware = with_trusted_os(type_, vcpu)

    assert call(firmware, MIGRATE_INFO_TYPE) == returned("spec", type_)
    for fid in MIGRATE_INFO_UP_CPU:
        assert call(firmware, fid) == returned("spec", MPIDRS[vcpu])
        assert call(firmware, "PSCI_FEATURES", fid) == returned("spec", 0)


@pytest.mark.parametrize(
    ("type_", "on", "target", "code"),
    [
        (0, 0, 0x1, Psci.INVALID_PARAMETERS),
        (1, 0, 0x1, Psci.INVALID_PARAMETERS),
        (0, 1, 0x1, Psci.INVALID_PARAMETERS),
        (1, 0, 0x100, Psci.DENIED),
        (1, 1, 0x100, Psci.DENIED),
        (0, 1, 0x100, Psci.NOT_PRESENT),
        (0, 0, 0x100, Psci.INTERNAL_FAILURE),
    ],
)
def test_migrate_refuses_target_then_type_then_place_and_at_last_declines(type_: int, on: int, target: int, code: Psci) -> None:
    firmware = with_trusted_os(type_, on)
    before = firmware.state()

    for fid in MIGRATE:
        assert call(firmware, fid, target) == returned("spec", code)
    assert firmware.state() == before


def test_migrate_has_a_0_1_id_too() -> None:
    host = host_named("spec").evolve(trusted_os=TrustedOs(1, 0), cite="a test")

    assert call(make(host, psci=V0_1), 0x95C1_BA61, 1) == returned("spec", Psci.DENIED)


def test_migrate_looks_at_the_low_half_of_an_smc32_target() -> None:
    firmware = with_trusted_os(1, 0)

    assert call(firmware, MIGRATE[0], JUNK | 0x100) == returned("spec", Psci.DENIED)
    assert call(firmware, MIGRATE[1], JUNK | 0x100) == returned("spec", Psci.INVALID_PARAMETERS)
