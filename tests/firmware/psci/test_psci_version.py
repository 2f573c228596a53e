"""PSCI_VERSION: the offered version, and nothing under 0.1."""

from __future__ import annotations

import pytest

from firmware.abi import Psci, Version
from firmware.trap import Conduit
from tests.firmware.harness import HOST_VERSIONS, V0_1, V0_2, V1_0, V1_1, V1_2, V1_3, call, make, returned

WORDS = {V0_2: 0x2, V1_0: 0x1_0000, V1_1: 0x1_0001, V1_2: 0x1_0002, V1_3: 0x1_0003}
DEFAULTS = {"spec": 0x1_0003, "kvm-6.12": 0x1_0001, "qemu-7": 0x1_0001}


@pytest.mark.parametrize(("host", "word"), DEFAULTS.items())
def test_a_host_offers_its_latest_version_unless_told_otherwise(host: str, word: int) -> None:
    assert call(make(host), "PSCI_VERSION") == returned(host, word)


@pytest.mark.parametrize(("host", "version"), [pair for pair in HOST_VERSIONS if pair[1] != V0_1], ids=str)
def test_the_offered_version_is_the_answer_on_every_vcpu_and_conduit(host: str, version: Version) -> None:
    firmware = make(host, psci=version)

    for vcpu in (0, 1):
        for conduit in Conduit:
            assert call(firmware, 0x8400_0000, 0x55, vcpu=vcpu, conduit=conduit) == returned(host, WORDS[version])


@pytest.mark.parametrize("host", ["spec", "kvm-6.12"])
def test_a_0_1_guest_has_no_psci_version(host: str) -> None:
    assert call(make(host, psci=V0_1), 0x8400_0000) == returned(host, Psci.NOT_SUPPORTED)


@pytest.mark.parametrize(("host", "version"), HOST_VERSIONS, ids=str)
def test_there_is_no_smc64_form(host: str, version: Version) -> None:
    assert call(make(host, psci=version), 0xC400_0000) == returned(host, Psci.NOT_SUPPORTED)


@pytest.mark.parametrize("host", ["spec", "kvm-6.12"])
def test_an_accepted_register_write_is_in_force_at_the_next_call_of_every_vcpu(host: str) -> None:
    firmware = make(host)
    call(firmware, "PSCI_VERSION")

    firmware.set_one_reg(0x6030_0000_0014_0000, 0x2)

    assert call(firmware, "PSCI_VERSION", vcpu=1) == returned(host, 0x2)
