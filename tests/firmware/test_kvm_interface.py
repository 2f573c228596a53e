"""KVM's user interface: what each ioctl refuses, release by release."""

from __future__ import annotations

import errno

import pytest

from firmware.errors import KernelError, RegisterListError, UserError
from firmware.host import Mitigations
from firmware.hosts import host_named
from firmware.kvm import KVM_ARM_VM_SMCCC_CTRL, KVM_ARM_VM_SMCCC_FILTER, KVM_CAP_ARM_SYSTEM_SUSPEND, Exit, FilterAction, Vm
from firmware.trap import Conduit, EntryState, MpStateValue, Resume

PSCI_VERSION = 0x6030_0000_0014_0000
STD_BMAP = 0x6030_0000_0016_0000
POWER_OFF, EL1_32BIT, PSCI_0_2 = 1 << 0, 1 << 1, 1 << 2
ENTRY, CONTEXT = 0xFEED_F00D, 0xDEAD_C0DE


def vm(host: str = "kvm-6.12", vcpus: int = 2, **columns: object) -> Vm:
    return Vm(host_named(host), tuple(range(vcpus)), **columns)  # type: ignore[arg-type]


def ready(host: str = "kvm-6.12", vcpus: int = 2, **columns: object) -> Vm:
    """Return a VM whose first vCPU runs and whose others are off."""
    machine = vm(host, vcpus, **columns)
    bits = PSCI_0_2 if machine.interface.features > 2 else 0
    for index, vcpu in enumerate(machine.vcpus):
        vcpu.init(features=(bits | (POWER_OFF if index else 0),))
    return machine


def refused(request: object, number: int) -> str:
    assert callable(request)
    with pytest.raises(KernelError) as error:
        request()
    assert errno.errorcode[error.value.errno] == errno.errorcode[number]
    return str(error.value)


def test_a_host_that_is_not_kvms_has_no_such_interface() -> None:
    with pytest.raises(UserError, match="qemu-7 is not a release of KVM"):
        vm("qemu-7")


# ---- KVM_ARM_VCPU_INIT


def test_nothing_can_be_asked_of_a_vcpu_that_was_not_initialised() -> None:
    vcpu = vm().vcpus[0]

    for request in (
        vcpu.run,
        lambda: vcpu.get_one_reg(PSCI_VERSION),
        lambda: vcpu.set_one_reg(PSCI_VERSION, 2),
        lambda: vcpu.get_reg_list(99),
    ):
        refused(request, errno.ENOEXEC)


@pytest.mark.parametrize(
    ("host", "target", "number"),
    [
        ("kvm-6.12", 3, errno.EINVAL),
        ("kvm-6.6", 5, 0),
        ("kvm-6.5", 5, errno.EINVAL),
        ("kvm-4.19", 4, 0),
        ("kvm-4.19", 0, errno.EINVAL),
    ],
)
def test_a_target_is_the_hosts_or_since_6_6_the_generic_one(host: str, target: int, number: int) -> None:
    vcpu = vm(host, target=4).vcpus[0]

    if number:
        refused(lambda: vcpu.init(target), number)
    else:
        vcpu.init(target)


@pytest.mark.parametrize(
    ("host", "features", "number"),
    [
        ("kvm-3.11", (PSCI_0_2,), errno.ENOENT),  # bit 2 came with 3.16
        ("kvm-3.16", (PSCI_0_2,), 0),
        ("kvm-4.5", (1 << 3,), errno.ENOENT),
        ("kvm-4.6", (1 << 3,), errno.EINVAL),  # the PMU
        ("kvm-5.1", (1 << 4,), errno.ENOENT),
        ("kvm-5.2", (1 << 4,), errno.EINVAL),  # SVE
        ("kvm-6.15", (1 << 8,), errno.ENOENT),
        ("kvm-6.16", (1 << 8,), errno.EINVAL),  # HAS_EL2_E2H0
        ("kvm-6.12", (1 << 3,), errno.EINVAL),  # known, and not offered here
        ("kvm-6.12", (EL1_32BIT,), errno.EINVAL),
        ("kvm-6.12", (1 << 20,), errno.ENOENT),
        ("kvm-6.12", (PSCI_0_2, 1), errno.ENOENT),
        ("kvm-6.12", (PSCI_0_2, 0, 0, 0, 0, 0, 0), 0),
        ("kvm-6.12", (PSCI_0_2,) + (0,) * 7, errno.ENOENT),
    ],
)
def test_a_feature_is_unknown_or_not_offered(host: str, features: tuple[int, ...], number: int) -> None:
    vcpu = vm(host).vcpus[0]

    if number:
        refused(lambda: vcpu.init(features=features), number)
    else:
        vcpu.init(features=features)


def test_power_off_was_a_feature_that_stays_until_6_5() -> None:
    old, new = vm("kvm-6.1").vcpus[0], vm("kvm-6.12").vcpus[0]
    for vcpu in (old, new):
        vcpu.init(features=(PSCI_0_2 | POWER_OFF,))
        assert vcpu.get_mp_state() is MpStateValue.STOPPED

    refused(lambda: old.init(features=(PSCI_0_2,)), errno.EINVAL)
    new.init(features=(PSCI_0_2,))

    assert old.get_mp_state() is MpStateValue.STOPPED
    assert new.get_mp_state() is MpStateValue.RUNNABLE


def test_features_cannot_change_and_since_6_5_are_the_vms() -> None:
    first, second = vm("kvm-6.12").vcpus
    first.init(features=(PSCI_0_2,))

    refused(lambda: first.init(features=(0,)), errno.EINVAL)
    refused(lambda: second.init(features=(0,)), errno.EINVAL)
    old = vm("kvm-6.1").vcpus
    old[0].init(features=(PSCI_0_2,))
    with pytest.raises(UserError, match="are not modelled"):
        old[1].init(features=(0,))


def test_the_version_survives_another_initialisation() -> None:
    machine = ready()
    machine.vcpus[0].set_one_reg(PSCI_VERSION, 0x2)

    machine.vcpus[0].init(features=(PSCI_0_2,))

    assert machine.vcpus[0].get_one_reg(PSCI_VERSION) == 0x2


# Read in 5.17, 6.1 and 6.12: arch/arm64/kvm/reset.c, kvm_reset_vcpu, takes the stored entry and leaves KVM_REQ_VCPU_RESET.
@pytest.mark.parametrize("host", ["kvm-5.15", "kvm-6.12"])
def test_another_initialisation_takes_the_waiting_reset_and_leaves_one_to_pc_0(host: str) -> None:
    first, second = ready(host).vcpus
    first.call(Conduit.HVC, 0xC400_0003, 1, ENTRY, CONTEXT)

    assert second.init(features=(PSCI_0_2 | POWER_OFF,)) == EntryState(ENTRY, CONTEXT, 0x3C5, False)
    assert second.get_mp_state() is MpStateValue.STOPPED
    assert second.registers_at_entry() == EntryState(0, 0, 0x3C5, False)
    assert second.registers_at_entry() is None


@pytest.mark.parametrize("host", ["kvm-4.19", "kvm-6.12"])
def test_an_initialisation_with_nothing_waiting_resets_once(host: str) -> None:
    second = ready(host).vcpus[1]

    assert second.init(features=(PSCI_0_2 | POWER_OFF,)) == EntryState(0, 0, 0x3C5, False)
    assert second.run() == (None, None)


# ---- registers


def test_the_list_is_too_short_and_says_how_many_there_are() -> None:
    vcpu = ready().vcpus[0]

    with pytest.raises(RegisterListError, match="7 firmware registers") as error:
        vcpu.get_reg_list(6)

    assert (error.value.errno, error.value.count) == (errno.E2BIG, 7)
    assert vcpu.get_reg_list(error.value.count)[0] == PSCI_VERSION


def test_a_write_through_one_vcpu_is_read_through_all() -> None:
    first, second = ready().vcpus

    second.set_one_reg(PSCI_VERSION, 0x1_0000)

    assert first.get_one_reg(PSCI_VERSION) == 0x1_0000


def test_a_bitmap_locks_with_the_first_run_of_any_vcpu_a_stopped_one_included() -> None:
    first, second = ready().vcpus
    second.run()

    refused(lambda: first.set_one_reg(STD_BMAP, 0), errno.EBUSY)
    first.set_one_reg(STD_BMAP, 1)


# ---- states and runs


def test_multiprocessing_states_came_with_4_1_and_suspended_with_5_19() -> None:
    refused(ready("kvm-4.0").vcpus[0].get_mp_state, errno.EINVAL)
    assert ready("kvm-4.1").vcpus[1].get_mp_state() is MpStateValue.STOPPED
    refused(lambda: ready("kvm-5.18").vcpus[0].set_mp_state(10), errno.EINVAL)
    refused(lambda: ready("kvm-6.12").vcpus[0].set_mp_state(1), errno.EINVAL)


def test_a_vcpu_that_user_space_suspended_comes_back_each_time_until_it_is_runnable() -> None:
    vcpu = ready().vcpus[0]
    vcpu.set_mp_state(10)

    assert vcpu.get_mp_state() is MpStateValue.SUSPENDED
    assert [vcpu.run()[1] for _ in range(2)] == [Exit(24, 4)] * 2
    vcpu.set_mp_state(0)
    assert vcpu.run() == (None, None)


def test_a_vcpu_in_cpu_suspend_is_runnable_to_user_space() -> None:
    vcpu = ready().vcpus[0]

    assert vcpu.call(Conduit.HVC, 0xC400_0001).resume is Resume.WAIT
    assert vcpu.get_mp_state() is MpStateValue.RUNNABLE


@pytest.mark.parametrize("number", [87, 102, 198, 215, 216, 239])
def test_capabilities_come_with_their_releases(number: int) -> None:
    since = {87: "kvm-3.11", 102: "kvm-3.16", 198: "kvm-5.13", 215: "kvm-5.19", 216: "kvm-5.19", 239: "kvm-6.15"}[number]
    releases = ["kvm-3.11", "kvm-3.14", "kvm-3.16", "kvm-5.12", "kvm-5.13", "kvm-5.18", "kvm-5.19", "kvm-6.14", "kvm-6.15", "kvm-7.0"]

    assert {name for name in releases if vm(name).check_extension(number)} == set(releases[releases.index(since) :])


def test_system_suspend_can_be_enabled_at_any_time_without_flags() -> None:
    machine = ready()
    machine.vcpus[0].run()

    refused(lambda: machine.enable_cap(KVM_CAP_ARM_SYSTEM_SUSPEND, 1), errno.EINVAL)
    refused(lambda: machine.enable_cap(87), errno.EINVAL)
    refused(lambda: ready("kvm-5.18").enable_cap(KVM_CAP_ARM_SYSTEM_SUSPEND), errno.EINVAL)
    assert machine.vcpus[0].call(Conduit.HVC, 0xC400_000E, ENTRY).regs[0] == (1 << 64) - 1
    machine.enable_cap(KVM_CAP_ARM_SYSTEM_SUSPEND)
    assert machine.vcpus[0].call(Conduit.HVC, 0xC400_000E, ENTRY).exit == Exit(24, 5, data=())


@pytest.mark.parametrize(("host", "expected"), [("kvm-5.18", Exit(24, 2, 1)), ("kvm-5.19", Exit(24, 2, data=(1,)))])
def test_an_event_has_flags_and_since_5_19_data(host: str, expected: Exit) -> None:
    assert ready(host).vcpus[0].call(Conduit.HVC, 0xC400_0012).exit == expected


# ---- the SMCCC filter


def test_releases_before_6_4_have_no_attributes_of_a_vm_and_so_no_filter() -> None:
    refused(lambda: vm("kvm-6.3").set_smccc_filter(0x8400_0000, 1, FilterAction.DENY), errno.EINVAL)
    refused(lambda: vm("kvm-6.3").has_device_attr(KVM_ARM_VM_SMCCC_CTRL, KVM_ARM_VM_SMCCC_FILTER), errno.EINVAL)


def test_the_filter_is_the_only_attribute_of_a_vm() -> None:
    vm("kvm-6.4").has_device_attr(KVM_ARM_VM_SMCCC_CTRL, KVM_ARM_VM_SMCCC_FILTER)

    for group, attribute in ((KVM_ARM_VM_SMCCC_CTRL, 1), (1, 0)):
        refused(lambda group=group, attribute=attribute: vm("kvm-6.4").has_device_attr(group, attribute), errno.ENXIO)


def test_a_filter_does_not_see_what_is_answered_in_front_of_it() -> None:
    machine = ready(mitigations=(Mitigations(),))
    machine.set_smccc_filter(0x8400_0000, 1, FilterAction.FWD_TO_USER)

    assert machine.vcpus[0].call(Conduit.HVC, 0x8000_8000, 9).regs == (0, 0, 0, 0)
    assert machine.vcpus[0].call(Conduit.SMC, 0x8400_0000, imm=1).exit is None


def test_a_filter_cannot_bring_back_what_a_bitmap_hides() -> None:
    machine = ready()
    machine.vcpus[0].set_one_reg(STD_BMAP, 0)
    machine.set_smccc_filter(0x8400_0050, 1, FilterAction.HANDLE)

    assert machine.vcpus[0].call(Conduit.HVC, 0x8400_0050).regs[0] == (1 << 64) - 1


def test_a_reset_is_handed_out_once() -> None:
    first, second = ready().vcpus
    first.call(Conduit.HVC, 0xC400_0003, 1, ENTRY, CONTEXT)

    assert second.registers_at_entry() == EntryState(ENTRY, CONTEXT, 0x3C5, False)
    assert second.run() == (None, None)
