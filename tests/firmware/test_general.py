"""General service queries of the Standard Secure service."""

from __future__ import annotations

import pytest

from firmware.abi import Psci, Version
from tests.firmware.harness import HOST_VERSIONS, V0_1, V0_2, V1_0, V1_1, V1_2, V1_3, call, make, returned

COUNT, UID, REVISION = 0x8400_FF00, 0x8400_FF01, 0x8400_FF03
TRNG = 5
# IDs by PSCI version, after the standard's table; MIGRATE and MIGRATE_INFO_UP_CPU need a Trusted OS.
PSCI = {V0_1: 0, V0_2: 11, V1_0: 24, V1_1: 29, V1_2: 29, V1_3: 31}


@pytest.mark.parametrize(("version", "psci"), PSCI.items(), ids=str)
@pytest.mark.parametrize("trng", [True, False])
def test_the_count_is_of_the_ids_that_are_served(version: Version, psci: int, trng: bool) -> None:
    firmware = make("spec", psci=version)
    if not trng:
        firmware.set_one_reg(0x6030_0000_0016_0000, 0)

    assert call(firmware, COUNT) == returned("spec", psci + (TRNG if trng else 0))


def test_the_uid_is_four_words_and_not_minus_1() -> None:
    reply = call(make("spec"), UID)

    assert reply == returned("spec", 0x526A_0F8B, 0x374E_1D9C, 0x0A3F_648D, 0x15C9_E27B)
    assert reply.regs[0][1] != 0xFFFF_FFFF


def test_the_revision_is_1_0() -> None:
    assert call(make("spec"), REVISION) == returned("spec", 1, 0)


@pytest.mark.parametrize("smccc", [Version(1, 0), Version(1, 6)], ids=str)
def test_every_smccc_version_has_them(smccc: Version) -> None:
    assert call(make("spec", smccc=smccc), REVISION) == returned("spec", 1, 0)


@pytest.mark.parametrize("fid", [0x8000_FF00, 0x8000_FF01, 0x8000_FF03, 0xC400_FF01, 0x8400_FF02, 0x8500_FF01, 0x8600_FF03], ids=hex)
def test_no_other_owner_and_no_other_form_has_them(fid: int) -> None:
    assert call(make("spec"), fid) == returned("spec", Psci.NOT_SUPPORTED)


@pytest.mark.parametrize(("host", "version"), [pair for pair in HOST_VERSIONS if pair[0] != "spec"], ids=str)
@pytest.mark.parametrize("fid", [COUNT, UID, REVISION], ids=hex)
def test_kvm_and_qemu_have_none(host: str, version: Version, fid: int) -> None:
    assert call(make(host, psci=version), fid) == returned(host, Psci.NOT_SUPPORTED)
