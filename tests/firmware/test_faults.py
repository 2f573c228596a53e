"""Faults: each does to a reply what its name says, to the reply it names, and to no other."""

from __future__ import annotations

import dataclasses

import pytest

from firmware.abi import MASK64, SVE_HINT, PowerState, Psci, Version
from firmware.dispatch import Firmware, configuration
from firmware.errors import UserError
from firmware.faults import (
    AnyFault,
    Delay,
    Drop,
    Exchange,
    Fault,
    Poison,
    Replace,
    TrustedOsOn,
    Undefined,
    UnknownUndefined,
    WrongConduit,
    ZeroExtend,
)
from firmware.hosts import HOSTS
from firmware.hosts.kvm_releases import RELEASES
from firmware.overlay import check_faults, with_faults
from firmware.table import Faulty
from firmware.trap import Conduit, Enter, Reply, Resume, Runnable
from tests.firmware.harness import CONTEXT, ENTRY, V0_1, V0_2, V1_0, V1_1, call, entered, fid_of, make, returned

UNDEFINED = Reply(resume=Resume.UNDEF)
NOT_SUPPORTED_32 = 0xFFFF_FFFF


def broken(
    *faults: AnyFault, host: str = "spec", psci: Version | None = None, conduits: frozenset[Conduit] = frozenset(Conduit)
) -> Firmware:
    return Firmware(with_faults(configuration(HOSTS[host], (0, 1), psci=psci, conduits=conduits), faults))


def with_x0(value: int) -> Replace:
    return Replace(((0, value),))


def test_a_replaced_answer_is_given_once_and_the_call_is_not_done() -> None:
    firmware = broken(Fault("CPU_ON", with_x0(Psci.INTERNAL_FAILURE), nth=1), host="kvm-6.12")

    first, second = (call(firmware, "CPU_ON", 1, ENTRY, CONTEXT) for _ in range(2))

    assert first == returned("kvm-6.12", Psci.INTERNAL_FAILURE)
    assert second == returned("kvm-6.12", Psci.SUCCESS, effects=(Runnable(1),))


def test_replies_are_counted_over_all_vcpus_and_both_forms() -> None:
    firmware = broken(Fault("AFFINITY_INFO", with_x0(Psci.DISABLED), nth=3))

    replies = [call(firmware, "AFFINITY_INFO", 1, vcpu=vcpu, smc64=smc64) for vcpu, smc64 in ((0, True), (1, False), (0, False), (0, True))]

    off = returned("spec", PowerState.OFF)
    assert replies == [off, off, returned("spec", Psci.DISABLED), off]


def test_a_value_is_written_as_wide_as_it_is_and_a_code_as_wide_as_the_host_makes_it() -> None:
    firmware = broken(Fault("CPU_ON", with_x0(0x1234_5678_9ABC_DEF0), nth=1), Fault("CPU_ON", with_x0(Psci.DENIED), nth=2), host="u-boot")

    replies = [call(firmware, "CPU_ON", 1, ENTRY, 0, conduit=Conduit.SMC) for _ in range(2)]

    assert replies == [Reply(((0, 0x1234_5678_9ABC_DEF0),)), Reply(((0, 0xFFFF_FFFD),))]


def test_registers_beside_x0_are_written_after_the_call_was_done() -> None:
    firmware = broken(Fault("CPU_ON", Replace(((2, 7),))))

    assert call(firmware, "CPU_ON", 1, ENTRY, 0) == Reply(((0, 0), (2, 7)), effects=(Runnable(1),))


def test_a_condition_on_x1_lets_every_other_call_be() -> None:
    off2 = 0xC400_0015
    firmware = broken(Fault("PSCI_FEATURES", with_x0(Psci.DENIED), x1=off2))

    assert call(firmware, "PSCI_FEATURES", off2) == returned("spec", Psci.DENIED)
    assert call(firmware, "PSCI_FEATURES", 0x8400_0015) == returned("spec", 1)


def test_one_code_is_exchanged_for_another_and_all_others_stay() -> None:
    firmware = broken(Fault("PSCI_FEATURES", Exchange(Psci.NOT_SUPPORTED, Psci.DENIED)))

    assert call(firmware, "PSCI_FEATURES", 0x8400_001F) == returned("spec", Psci.DENIED)
    assert call(firmware, "PSCI_FEATURES", 0x8400_0002) == returned("spec", Psci.SUCCESS)


def test_zero_extension_is_for_negative_answers_of_32_bits_alone() -> None:
    firmware = broken(Fault("PSCI_FEATURES", ZeroExtend()), Fault("PSCI_VERSION", ZeroExtend()))

    assert call(firmware, "PSCI_FEATURES", 0x8400_001F) == Reply(((0, NOT_SUPPORTED_32),))
    assert call(firmware, "PSCI_VERSION") == returned("spec", 0x1_0003)


def test_poison_spoils_the_result_registers_and_leaves_the_answer() -> None:
    reply = call(broken(Fault("PSCI_VERSION", Poison(1, 3))), "PSCI_VERSION")

    assert [number for number, _ in reply.regs] == [0, 1, 2, 3]
    assert reply.regs[0] == (0, 0x1_0003)
    assert len({value for _, value in reply.regs}) == 4


@pytest.mark.parametrize(("host", "psci", "poisoned"), [("spec", V0_2, True), ("qemu-7", V1_1, True), ("spec", V1_0, False)])
def test_poison_reaches_x4_to_x17_only_while_smccc_1_0_is_in_force(host: str, psci: Version, poisoned: bool) -> None:
    firmware = broken(Fault("PSCI_VERSION", Poison(4, 17)), host=host, psci=psci)

    reply = call(firmware, "PSCI_VERSION")

    assert [number for number, _ in reply.regs] == [0, *(range(4, 18) if poisoned else ())]


def test_poison_that_smccc_forbids_is_refused() -> None:
    config = broken(Fault("PSCI_VERSION", Poison(4, 17))).config

    with pytest.raises(UserError, match=r"SMCCC 1\.3 is in force, and from 1.1 on the firmware keeps x4 to x17"):
        check_faults(config)


def test_a_poisoned_call_that_does_not_return_is_as_it_was() -> None:
    assert call(broken(Fault("CPU_OFF", Poison(1, 3))), "CPU_OFF") == call(make(), "CPU_OFF")


def test_a_delayed_cpu_on_is_pending_for_that_many_calls_and_done_by_the_next() -> None:
    firmware = broken(Fault("CPU_ON", Delay(2)))

    replies = [call(firmware, "CPU_ON", 1, ENTRY, 0) for _ in range(3)]

    pending = returned("spec", Psci.ON_PENDING)
    assert replies == [pending, pending, returned("spec", Psci.SUCCESS, effects=(Runnable(1),))]


def test_a_delayed_affinity_info_begins_at_its_number() -> None:
    firmware = broken(Fault("AFFINITY_INFO", Delay(2), nth=2))

    replies = [call(firmware, "AFFINITY_INFO", 1) for _ in range(4)]

    off, pending = returned("spec", PowerState.OFF), returned("spec", PowerState.ON_PENDING)
    assert replies == [off, pending, pending, off]


def test_a_dropped_cpu_on_answers_success_and_starts_nothing() -> None:
    firmware = broken(Fault("CPU_ON", Drop()))

    assert call(firmware, "CPU_ON", 1, ENTRY, 0) == returned("spec", Psci.SUCCESS)
    assert firmware.power.states == [PowerState.ON, PowerState.OFF]


def test_an_undefined_call_does_nothing() -> None:
    firmware = broken(Fault("CPU_ON", Undefined(), nth=1))

    assert call(firmware, "CPU_ON", 1, ENTRY, 0) == UNDEFINED
    assert firmware.power.states == [PowerState.ON, PowerState.OFF]


def test_two_faults_on_one_reply_apply_in_their_order() -> None:
    firmware = broken(Fault("CPU_ON", with_x0(Psci.DENIED)), Fault("CPU_ON", ZeroExtend()))

    assert call(firmware, "CPU_ON", 1, ENTRY, 0) == Reply(((0, 0xFFFF_FFFD),))


@pytest.mark.parametrize("word", [-1, 0, 0x2_0000, 0xFFFF_FFFF])
def test_a_version_no_host_has_changes_what_is_said_and_nothing_that_is_done(word: int) -> None:
    firmware = broken(Fault("PSCI_VERSION", with_x0(word)))

    assert call(firmware, "PSCI_VERSION") == Reply(((0, word & MASK64),))
    assert call(firmware, "CPU_ON", 1, ENTRY, CONTEXT) == call(make(), "CPU_ON", 1, ENTRY, CONTEXT)


def test_a_function_the_host_does_not_serve_can_be_faulted_too() -> None:
    firmware = broken(Fault("PSCI_FEATURES", with_x0(Psci.SUCCESS)), psci=V0_2)

    assert call(firmware, 0x8400_000A, 0x8400_0012) == returned("spec", Psci.SUCCESS)


def test_an_unknown_function_is_undefined_where_the_fault_says_so_and_a_known_one_is_not() -> None:
    firmware = broken(UnknownUndefined(), psci=V0_2, host="kvm-6.12")

    assert call(firmware, 0x8400_000A) == UNDEFINED
    assert call(firmware, "PSCI_VERSION") == returned("kvm-6.12", 2)


@pytest.mark.parametrize("host", ["spec", "kvm-6.12", "qemu-7"])
@pytest.mark.parametrize(("named", "other"), [(Conduit.HVC, Conduit.SMC), (Conduit.SMC, Conduit.HVC)])
def test_the_wrong_conduit_serves_all_and_the_right_one_nothing(host: str, named: Conduit, other: Conduit) -> None:
    firmware = broken(WrongConduit(), host=host, conduits=frozenset({named}))

    assert call(firmware, "PSCI_VERSION", conduit=named) == UNDEFINED
    assert call(firmware, "PSCI_VERSION", conduit=other) == call(make(host), "PSCI_VERSION")


@pytest.mark.parametrize("fault", [WrongConduit(), Fault("CPU_ON", Drop())], ids=str)
def test_a_fault_needs_firmware_that_is_served(fault: AnyFault) -> None:
    with pytest.raises(UserError, match="neither conduit is served, so there is no firmware to break"):
        check_faults(broken(fault, conduits=frozenset()).config)


@pytest.mark.parametrize(("migratable", "type_"), [(True, 0), (False, 1)])
def test_a_trusted_os_is_told_of_and_its_vcpu_may_not_go_off(migratable: bool, type_: int) -> None:
    firmware = broken(TrustedOsOn(1, migratable), host="qemu-7")

    assert call(firmware, "MIGRATE_INFO_TYPE") == returned("qemu-7", type_)
    assert call(firmware, "MIGRATE_INFO_UP_CPU") == returned("qemu-7", 1)
    assert call(firmware, "CPU_OFF", vcpu=1) == returned("qemu-7", Psci.DENIED)
    assert call(firmware, "CPU_OFF", vcpu=0).resume is Resume.NEVER


def test_a_trusted_os_needs_its_vcpu() -> None:
    with pytest.raises(UserError, match="there are only 2 CPUs"):
        broken(TrustedOsOn(2, migratable=False))


def test_faults_laid_over_themselves_change_nothing() -> None:
    config = broken(TrustedOsOn(1, migratable=False), Fault("CPU_ON", Drop())).config

    assert with_faults(config, config.faults) == config


def test_the_count_of_replies_is_state() -> None:
    firmware, other = (broken(Fault("CPU_ON", Drop(), nth=2)) for _ in range(2))
    call(firmware, "CPU_ON", 5, ENTRY, 0)

    other.restore(firmware.state())

    assert other.state() == firmware.state()
    assert call(other, "CPU_ON", 1, ENTRY, 0) == returned("spec", Psci.SUCCESS)


def test_the_0_1_ids_and_hinted_ids_are_the_function_s_too() -> None:
    old, new = broken(Fault("CPU_ON", Drop()), psci=V0_1), broken(Fault("CPU_ON", Drop()))

    assert call(old, "CPU_ON", 1, ENTRY, 0) == returned("spec", Psci.SUCCESS)
    assert call(new, fid_of(new, "CPU_ON") | SVE_HINT, 1, ENTRY, 0) == returned("spec", Psci.SUCCESS)


def test_faults_stay_when_a_register_is_written() -> None:
    firmware = broken(Fault("CPU_ON", Drop()), host="kvm-6.12")

    firmware.configure(dataclasses.replace(firmware.config, version=V0_2))

    assert call(firmware, "CPU_ON", 1, ENTRY, 0) == returned("kvm-6.12", Psci.SUCCESS)


def test_a_vcpu_that_a_fault_let_start_is_entered_as_ever() -> None:
    firmware = broken(Fault("CPU_ON", Poison(1, 3)))
    call(firmware, "CPU_ON", 1, ENTRY, CONTEXT)

    assert firmware.handle(Enter(1)) == entered(ENTRY, CONTEXT)


@pytest.mark.parametrize("host", [name for name, host in HOSTS.items() if host not in RELEASES] + ["kvm-4.15", "kvm-6.12"])
@pytest.mark.parametrize("conduit", Conduit)
def test_every_entry_that_no_fault_names_is_the_one_that_was_there(host: str, conduit: Conduit) -> None:
    config = configuration(HOSTS[host], (0, 1))
    plain = Firmware(config).tables.by_conduit[conduit]

    faulty = Firmware(with_faults(config, (Fault("CPU_ON", Drop()),))).tables.by_conduit[conduit]

    kept = {fid: entry for fid, entry in faulty.entries.items() if type(entry) is not Faulty}
    assert {type(entry) for entry in faulty.entries.values()} >= {type(entry) for entry in kept.values()}
    assert {fid: entry for fid, entry in kept.items() if isinstance(entry, Reply)} == {
        fid: entry for fid, entry in plain.entries.items() if isinstance(entry, Reply)
    }
    assert (faulty.default, faulty.mask, faulty.immediate) == (plain.default, plain.mask, plain.immediate)
