"""The door: conduits, immediates, the fast path in front of KVM's dispatcher, state and restore."""

from __future__ import annotations

import pytest

from firmware.abi import Psci, Version
from firmware.dispatch import Firmware, check_function_name
from firmware.errors import UserError
from firmware.host import Mitigations
from firmware.trap import Access, Conduit, Enter, MpState, MpStateValue, Reply, Resume, Woken
from tests.firmware.harness import ENTRY, HOST_VERSIONS, JUNK, V0_1, V1_0, call, entered, make, returned

HVC, SMC = Conduit.HVC, Conduit.SMC
UNDEFINED = Reply(resume=Resume.UNDEF)
CHOICES = {"hvc": frozenset({HVC}), "smc": frozenset({SMC}), "both": frozenset({HVC, SMC}), "none": frozenset[Conduit]()}

# ---- conduits


@pytest.mark.parametrize("host", ["spec", "qemu-7"])
@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("imm", [0, 1])
@pytest.mark.parametrize("conduit", Conduit)
def test_the_platform_decides_which_conduit_there_is(host: str, choice: str, conduit: Conduit, imm: int) -> None:
    firmware = make(host, conduits=CHOICES[choice])
    before = firmware.state()

    reply = call(firmware, "SYSTEM_OFF", conduit=conduit, imm=imm)

    assert (reply == UNDEFINED) is (conduit not in CHOICES[choice])
    assert (firmware.state() == before) is (conduit not in CHOICES[choice])


@pytest.mark.parametrize("choice", ["hvc", "smc", "both"])
@pytest.mark.parametrize("conduit", Conduit)
def test_kvm_serves_both_whatever_the_node_says(choice: str, conduit: Conduit) -> None:
    assert call(make("kvm-6.12", conduits=CHOICES[choice]), "PSCI_VERSION", conduit=conduit) == returned("kvm-6.12", 0x1_0001)


@pytest.mark.parametrize("conduit", Conduit)
@pytest.mark.parametrize("fid", [0x8400_0000, 0x8000_8000, 0x1337], ids=hex)
def test_without_firmware_kvm_serves_none(conduit: Conduit, fid: int) -> None:
    assert call(make("kvm-6.12", conduits=CHOICES["none"]), fid, conduit=conduit) == UNDEFINED


# ---- immediates


@pytest.mark.parametrize("imm", [1, 0x8000, 0xFFFF], ids=hex)
@pytest.mark.parametrize("fid", [0x8400_0000, 0x8400_0008, 0xC400_0003, 0x8000_8000, 0x1337], ids=hex)
def test_kvm_refuses_an_smc_with_an_immediate_in_x0_alone(imm: int, fid: int) -> None:
    firmware = make("kvm-6.12")
    before = firmware.state()

    assert call(firmware, fid, 1, ENTRY, conduit=SMC, imm=imm) == Reply(((0, 0xFFFF_FFFF_FFFF_FFFF),))
    assert firmware.state() == before


@pytest.mark.parametrize(("host", "conduit"), [("spec", HVC), ("spec", SMC), ("qemu-7", HVC), ("qemu-7", SMC), ("kvm-6.12", HVC)])
def test_elsewhere_an_immediate_is_not_looked_at(host: str, conduit: Conduit) -> None:
    for imm in (1, 0xFFFF):
        assert call(make(host), "CPU_ON", 1, ENTRY, conduit=conduit, imm=imm) == call(make(host), "CPU_ON", 1, ENTRY, conduit=conduit)


# ---- KVM's answer at EL2

WORKAROUNDS = (0x8000_8000, 0x8000_7FFF, 0x8000_3FFF)
FAST = Reply(((0, 0), (1, 0)))


@pytest.mark.parametrize("fid", WORKAROUNDS, ids=hex)
@pytest.mark.parametrize("imm", [0, 1, 0xFFFF])
@pytest.mark.parametrize("state", ["unaffected", "mitigated", "vulnerable"])
@pytest.mark.parametrize("psci", [None, V0_1], ids=["latest", "0.1"])
def test_an_hvc_of_a_workaround_is_answered_whatever_is_advertised(fid: int, imm: int, state: str, psci: Version | None) -> None:
    firmware = make("kvm-6.12", psci=psci, mitigations=(Mitigations(state, state, state),))

    assert call(firmware, fid, 1, 2, 3, imm=imm) == FAST
    assert call(firmware, JUNK | fid, 1, 2, 3, imm=imm) == FAST


@pytest.mark.parametrize("fid", WORKAROUNDS, ids=hex)
def test_an_smc_of_a_workaround_is_not_supported(fid: int) -> None:
    assert call(make("kvm-6.12"), fid, conduit=SMC) == returned("kvm-6.12", Psci.NOT_SUPPORTED)


@pytest.mark.parametrize("fid", WORKAROUNDS, ids=hex)
@pytest.mark.parametrize("conduit", Conduit)
def test_below_the_fast_path_kvm_has_no_such_function(fid: int, conduit: Conduit) -> None:
    firmware = make("kvm-6.12", el2_fast_path=False)

    assert call(firmware, fid, conduit=conduit) == returned("kvm-6.12", Psci.NOT_SUPPORTED)


@pytest.mark.parametrize("fid", [0x8000_8001, 0x8000_7FFE, 0x8000_3FFE, 0xC000_8000, 0x0000_8000, 0x8001_8000], ids=hex)
def test_the_fast_path_answers_nothing_else(fid: int) -> None:
    assert call(make("kvm-6.12"), fid) == returned("kvm-6.12", Psci.NOT_SUPPORTED)


def test_only_kvm_has_the_fast_path() -> None:
    assert call(make("qemu-7"), WORKAROUNDS[0]) == returned("qemu-7", Psci.NOT_SUPPORTED)
    assert call(make("spec"), WORKAROUNDS[0], imm=1) == Reply()


# ---- function IDs


@pytest.mark.parametrize(("host", "answer"), [("spec", 0x1_0003), ("kvm-6.12", 0x1_0001), ("qemu-7", Psci.NOT_SUPPORTED)])
def test_all_hosts_but_qemu_look_at_the_low_half_of_x0(host: str, answer: int) -> None:
    assert call(make(host), JUNK | 0x8400_0000) == returned(host, answer)


# ---- state


def busy(host: str, psci: Version | None) -> Firmware:
    """Return a firmware in which every part of the state has moved."""
    firmware = make(host, vcpus=4, psci=psci, seed=3)
    if firmware.config.host.registers:
        firmware.set_one_reg(0x6030_0000_0016_0001, 0)
    firmware.handle(Enter(0))
    for vcpu in (1, 2):
        call(firmware, "CPU_ON", vcpu, ENTRY + vcpu * 4, vcpu, big_endian=vcpu == 1)
    firmware.handle(Enter(2))
    call(firmware, 0xC400_0053, 192)
    firmware.handle(MpState(3, MpStateValue.SUSPENDED))
    call(firmware, "CPU_SUSPEND", 0, vcpu=2, time_ns=123_456)
    return firmware


@pytest.mark.parametrize(("host", "version"), HOST_VERSIONS, ids=str)
def test_a_restored_firmware_goes_on_as_the_first_would(host: str, version: Version) -> None:
    first = busy(host, version)
    second = make(host, vcpus=4, psci=version)
    assert second.state() != first.state()

    second.restore(first.state())

    assert second.state() == first.state()
    assert second.config == first.config
    for event in (Enter(1), Woken(2), Access(1)):
        assert second.handle(event) == first.handle(event)
    for fid in (0x8400_0000, 0xC400_0053, 0x8600_0001, 0xC500_0020, 0x8400_0002):
        assert call(second, fid, 1) == call(first, fid, 1)
    assert second.state() == first.state()


def test_restoring_brings_back_versions_bitmaps_and_the_first_run() -> None:
    firmware = make("kvm-6.12", psci=V1_0)
    firmware.set_one_reg(0x6030_0000_0016_0000, 0)
    firmware.handle(Enter(0))
    other = make("kvm-6.12")

    other.restore(firmware.state())

    assert call(other, "PSCI_VERSION") == returned("kvm-6.12", 0x1_0000)
    assert call(other, 0x8400_0050) == returned("kvm-6.12", Psci.NOT_SUPPORTED)
    with pytest.raises(UserError, match=r"^EBUSY: "):
        other.set_one_reg(0x6030_0000_0016_0000, 1)


def test_restoring_a_vm_without_the_feature_bit_gives_0_1() -> None:
    other = make("kvm-6.12")

    other.restore(make("kvm-6.12", psci=V0_1).state())

    assert call(other, 0x8400_0000) == returned("kvm-6.12", Psci.NOT_SUPPORTED)
    assert other.get_one_reg(0x6030_0000_0014_0000) == 0x1


def test_replacing_the_host_changes_every_answer_and_no_power_state() -> None:
    firmware = make("spec")
    call(firmware, "CPU_ON", 1, ENTRY)
    assert call(firmware, "AFFINITY_INFO", 0) == returned("spec", 0)

    firmware.configure(make("kvm-6.12").config)

    assert call(firmware, "AFFINITY_INFO", 0) == returned("kvm-6.12", 0)
    assert call(firmware, "AFFINITY_INFO", 1) == returned("kvm-6.12", 0)
    assert call(firmware, "PSCI_VERSION") == returned("kvm-6.12", 0x1_0001)
    assert firmware.handle(Enter(1)) == entered(ENTRY, 0)


def test_a_state_is_a_value_that_later_events_do_not_change() -> None:
    firmware = make("spec")
    state = firmware.state()
    call(firmware, "CPU_ON", 1, ENTRY, 7, time_ns=5)
    moved = firmware.state()
    firmware.handle(Enter(1))

    assert len({state, moved, firmware.state()}) == 3
    firmware.restore(moved)
    assert firmware.handle(Enter(1)) == entered(ENTRY, 7)
    firmware.restore(state)
    assert call(firmware, "AFFINITY_INFO", 1) == returned("spec", 1)


# ---- names


def test_an_unknown_function_is_refused_with_the_nearest() -> None:
    config = make("spec").config

    assert check_function_name(config, "CPU_ON") == "CPU_ON"
    with pytest.raises(UserError, match=r"^unknown function 'CPU_OM'; did you mean CPU_ON\?$"):
        check_function_name(config, "CPU_OM")


def test_a_guest_that_draws_numbers_for_ever_fills_no_store_of_ours() -> None:
    firmware = make("spec")
    size_before = sum(len(value) for value in vars(firmware).values() if isinstance(value, dict))

    for _ in range(100):
        call(firmware, "TRNG_RND64", 64)

    assert sum(len(value) for value in vars(firmware).values() if isinstance(value, dict)) == size_before
