"""SYSTEM_RESET2: a warm or a vendor's reset; the VMM reads type and cookie where the caller put them."""

from __future__ import annotations

import pytest

from firmware.abi import MASK64, PowerState, Psci, Version
from firmware.trap import MpState, MpStateValue
from tests.firmware.harness import JUNK, RESET, V0_2, V1_0, V1_1, V1_3, call, left, make, returned

FIDS = (0x8400_0012, 0xC400_0012)
FAILURE = (0, -6 & MASK64)
GOOD = (0x0, 0x8000_0000, 0xFFFF_FFFF)
RESERVED = (0x1, 0x2, 0x7FFF_FFFF)


@pytest.mark.parametrize("fid", FIDS, ids=hex)
@pytest.mark.parametrize("reset_type", GOOD, ids=hex)
def test_spec_writes_nothing_and_stops_every_vcpu(fid: int, reset_type: int) -> None:
    firmware = make("spec")

    assert call(firmware, fid, reset_type, 0x55) == left("spec", RESET, 1)
    assert firmware.power.states == [PowerState.OFF, PowerState.OFF]


@pytest.mark.parametrize("reset_type", [*GOOD, JUNK, JUNK | 0x8000_0000], ids=hex)
def test_kvm_presets_x0_and_leaves_the_rest_for_the_vmm(reset_type: int) -> None:
    firmware = make("kvm-6.12")

    assert call(firmware, FIDS[1], reset_type, JUNK) == left("kvm-6.12", RESET, 1, regs=(FAILURE,))
    assert firmware.power.states == [PowerState.OFF, PowerState.OFF]


def test_kvm_narrows_the_registers_of_an_smc32_call() -> None:
    narrowed = (FAILURE, (1, 0x8000_0000), (2, 0x55), (3, 0x66))

    assert call(make("kvm-6.12"), FIDS[0], JUNK | 0x8000_0000, JUNK | 0x55, JUNK | 0x66) == left("kvm-6.12", RESET, 1, regs=narrowed)


@pytest.mark.parametrize("host", ["spec", "kvm-6.12"])
@pytest.mark.parametrize("fid", FIDS, ids=hex)
@pytest.mark.parametrize("reset_type", [*RESERVED, JUNK | 0x1], ids=hex)
def test_a_reserved_architectural_type_is_refused_by_its_low_half(host: str, fid: int, reset_type: int) -> None:
    firmware = make(host)

    assert call(firmware, fid, reset_type) == returned(host, Psci.INVALID_PARAMETERS)
    assert firmware.power.states[0] is PowerState.ON


@pytest.mark.parametrize("fid", FIDS, ids=hex)
@pytest.mark.parametrize(
    ("host", "version"), [("spec", V0_2), ("spec", V1_0), ("kvm-6.12", V0_2), ("kvm-6.12", V1_0), ("qemu-7", V1_1)], ids=str
)
def test_it_is_absent_before_1_1(fid: int, host: str, version: Version) -> None:
    assert call(make(host, psci=version), fid) == returned(host, Psci.NOT_SUPPORTED)


@pytest.mark.parametrize(("host", "version"), [("spec", V1_1), ("spec", V1_3), ("kvm-6.12", V1_1)], ids=str)
def test_a_vmm_that_goes_on_all_the_same_has_its_vcpus_on(host: str, version: Version) -> None:
    firmware = make(host, psci=version)
    call(firmware, FIDS[1])

    firmware.handle(MpState(0, MpStateValue.RUNNABLE))

    assert firmware.power.states == [PowerState.ON, PowerState.OFF]
