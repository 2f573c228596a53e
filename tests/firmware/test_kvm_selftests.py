"""KVM's own selftests (tools/testing/selftests/kvm/arm64) and kvm-unit-tests' arm/psci.c: each assertion that can be made here, by name.

`ROWS` names every assertion of the list this was written from; one is either in a test below, or left out with the reason.
"""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import Final

import pytest

from firmware.kvm import KVM_CAP_ARM_SYSTEM_SUSPEND, Exit, FilterAction
from firmware.trap import Conduit, EntryState, MpStateValue, Resume
from tests.firmware.test_kvm_interface import CONTEXT, ENTRY, PSCI_VERSION, ready, refused, vm

NOT_SUPPORTED: Final = (1 << 64) - 1
INVALID_PARAMETERS: Final = (1 << 64) - 2
INTERNAL_FAILURE: Final = (1 << 64) - 6
BITMAPS: Final = {0x6030_0000_0016_0000: 0x1, 0x6030_0000_0016_0001: 0x1, 0x6030_0000_0016_0002: 0x3, 0x6030_0000_0016_0003: 0x0}
MASKS: Final = {0x6030_0000_0016_0000: 0x1, 0x6030_0000_0016_0001: 0x1, 0x6030_0000_0016_0002: 0x3, 0x6030_0000_0016_0003: 0x3}

# The assertion, and the test that makes it.
ROWS: Final = {
    "psci_test: CPU_ON succeeds": "cpu_on_gives_the_target_its_entry_and_context_before_it_ever_ran",
    "psci_test: AFFINITY_INFO is 0 or 1, in the end 0": "cpu_on_gives_the_target_its_entry_and_context_before_it_ever_ran",
    "psci_test: user space reads entry and context": "cpu_on_gives_the_target_its_entry_and_context_before_it_ever_ran",
    "psci_test: SYSTEM_SUSPEND": "system_suspend_is_discovered_and_exits_once_enabled",
    "psci_test: SYSTEM_OFF2 needs 1.3, has HIBERNATE_OFF": "system_off2_is_hibernate_off_or_nothing",
    "psci_test: SYSTEM_OFF2 refuses a cookie": "system_off2_is_hibernate_off_or_nothing",
    "psci_test: SYSTEM_OFF2 exits twice": "system_off2_is_hibernate_off_or_nothing",
    "hypercalls: reset values": "bitmaps_begin_at_their_reset_values",
    "hypercalls: 0, and a bit too many": "a_bitmap_takes_0_and_no_bit_beyond_its_last",
    "hypercalls: EBUSY after the first run": "after_the_first_run_a_bitmap_that_would_change_is_busy",
    "hypercalls: gated calls": "with_everything_cleared_each_gated_call_is_refused_and_with_the_defaults_none_is",
    "hypercalls: false queries": "a_false_query_is_refused_in_either_phase",
    "smccc_filter: pad, no functions, wrap, action": "a_filter_that_cannot_be_is_refused",
    "smccc_filter: reserved ranges": "a_filter_that_cannot_be_is_refused",
    "smccc_filter: the same range twice": "a_range_cannot_be_filtered_twice",
    "smccc_filter: after the first run": "a_filter_cannot_change_once_the_vm_has_run",
    "smccc_filter: DENY": "a_denied_function_is_not_supported_over_either_conduit",
    "smccc_filter: FWD_TO_USER": "a_forwarded_function_exits_with_its_id_and_the_conduit",
    "kvm-uuid": "the_uid_is_kvms_four_words",
    "kvm-unit-tests: invalid function": "an_invalid_function_is_not_supported_or_undefined_on_old_hosts",
    "kvm-unit-tests: AFFINITY_INFO, CPU_OFF": "affinity_info_tells_on_from_off_also_after_cpu_off",
    "kvm-unit-tests: concurrent CPU_ON": "of_many_callers_one_starts_the_target_and_all_others_find_it_on",
}
LEFT_OUT: Final = {
    "unmerged, 2024: guest-visible workaround state, the host's sysfs and the register agree": "there is no sysfs here",
}


def test_every_assertion_is_in_a_test_or_is_left_out_with_a_reason() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    tests = set(re.findall(r"^def test_(\w+)\(", source, re.MULTILINE)) - {"every_assertion_is_in_a_test_or_is_left_out_with_a_reason"}

    assert tests == set(ROWS.values())
    assert not ROWS.keys() & LEFT_OUT.keys()
    assert len(ROWS) + len(LEFT_OUT) == 23


# ---- psci_test


def test_cpu_on_gives_the_target_its_entry_and_context_before_it_ever_ran() -> None:
    source, target = ready().vcpus

    assert source.call(Conduit.HVC, 0xC400_0003, 1, ENTRY, CONTEXT).regs[0] == 0
    # KVM never says ON_PENDING, and says ON before the target has run.
    assert source.call(Conduit.HVC, 0xC400_0004, 1, 0).regs[0] == 0
    assert target.registers_at_entry() == EntryState(ENTRY, CONTEXT, 0x3C5, False)


def test_system_suspend_is_discovered_and_exits_once_enabled() -> None:
    machine = ready()
    machine.enable_cap(KVM_CAP_ARM_SYSTEM_SUSPEND)
    vcpu = machine.vcpus[0]

    assert [vcpu.call(Conduit.HVC, 0x8400_000A, fid).regs[0] for fid in (0x8400_000E, 0xC400_000E)] == [0, 0]
    assert vcpu.call(Conduit.HVC, 0xC400_000E, ENTRY, CONTEXT).exit == Exit(24, 5)


def test_system_off2_is_hibernate_off_or_nothing() -> None:
    machine = ready("kvm-6.13")
    vcpu = machine.vcpus[0]
    assert vcpu.get_one_reg(PSCI_VERSION) >= 0x1_0003

    assert [vcpu.call(Conduit.HVC, 0x8400_000A, fid).regs[0] & 1 for fid in (0x8400_0015, 0xC400_0015)] == [1, 1]
    assert vcpu.call(Conduit.HVC, 0xC400_0015, 1, 1).regs[0] == INVALID_PARAMETERS
    assert vcpu.call(Conduit.HVC, 0xC400_0015, 0, 1).regs[0] == INVALID_PARAMETERS
    for off_type in (1, 0):
        called = vcpu.call(Conduit.HVC, 0xC400_0015, off_type, 0)
        assert called.exit == Exit(24, 1, data=(1,))
        assert vcpu.get_mp_state() is MpStateValue.STOPPED
        vcpu.set_mp_state(0)
        assert called.regs[0] == INTERNAL_FAILURE


# ---- hypercalls

GATED: Final = (
    (0x8400_0050, 0),
    (0x8400_0051, 0x8400_0053),
    (0x8400_0052, 0),
    (0x8400_0053, 0),
    (0xC400_0053, 0),
    (0xC500_0020, 0xC500_0021),
    (0xC500_0021, 0),
    (0x8600_0000, 0),
    (0x8600_0001, 0),
    (0x8600_FF01, 0),
    (0x8000_0001, 0xC500_0020),
)


def test_bitmaps_begin_at_their_reset_values() -> None:
    vcpu = ready("kvm-6.15").vcpus[0]

    assert {register: vcpu.get_one_reg(register) for register in BITMAPS} == BITMAPS


@pytest.mark.parametrize("register", BITMAPS)
def test_a_bitmap_takes_0_and_no_bit_beyond_its_last(register: int) -> None:
    vcpu = ready("kvm-6.15").vcpus[0]

    vcpu.set_one_reg(register, 0)
    assert vcpu.get_one_reg(register) == 0
    refused(lambda: vcpu.set_one_reg(register, MASKS[register] + 1), errno.EINVAL)


@pytest.mark.parametrize("register", BITMAPS)
def test_after_the_first_run_a_bitmap_that_would_change_is_busy(register: int) -> None:
    vcpu = ready("kvm-6.15").vcpus[0]
    vcpu.set_one_reg(register, 0)
    vcpu.run()

    refused(lambda: vcpu.set_one_reg(register, MASKS[register]), errno.EBUSY)


def test_with_everything_cleared_each_gated_call_is_refused_and_with_the_defaults_none_is() -> None:
    cleared, default = (ready("kvm-6.15", pv_time_base=0x90A_0000) for _ in range(2))
    for register in BITMAPS:
        cleared.vcpus[0].set_one_reg(register, 0)

    for fid, argument in GATED:
        assert cleared.vcpus[0].call(Conduit.HVC, fid, argument).regs[0] == NOT_SUPPORTED, hex(fid)
        assert default.vcpus[0].call(Conduit.HVC, fid, argument).regs[0] != NOT_SUPPORTED, hex(fid)


@pytest.mark.parametrize("cleared", [False, True])
@pytest.mark.parametrize(("fid", "about"), [(0x8400_0051, 0x8600_0001), (0x8000_0001, 0xC400_0053), (0xC500_0020, 0xC400_0053)])
def test_a_false_query_is_refused_in_either_phase(fid: int, about: int, cleared: bool) -> None:
    vcpu = ready("kvm-6.15", pv_time_base=0x90A_0000).vcpus[0]
    for register in BITMAPS if cleared else ():
        vcpu.set_one_reg(register, 0)

    assert vcpu.call(Conduit.HVC, fid, about).regs[0] == NOT_SUPPORTED


# ---- smccc_filter


@pytest.mark.parametrize(
    ("base", "count", "action", "pad", "number"),
    [
        (0x8400_0000, 1, 1, b"\1" + bytes(14), errno.EINVAL),
        (0x8400_0000, 0, 1, bytes(15), errno.EINVAL),
        (0, 0, 1, bytes(15), errno.EEXIST),  # the newest selftest wants EINVAL, which came after v7.0
        (0xFFFF_FFFF, 0xFFFF_FFFF, 1, bytes(15), errno.EINVAL),
        (0x8400_0000, 1, -1, bytes(15), errno.EINVAL),
        (0x8000_8000, 1, 1, bytes(15), errno.EEXIST),
        (0xC000_0000, 1, 1, bytes(15), errno.EEXIST),
    ],
)
def test_a_filter_that_cannot_be_is_refused(base: int, count: int, action: int, pad: bytes, number: int) -> None:
    refused(lambda: vm().set_smccc_filter(base, count, action, pad), number)


def test_a_range_cannot_be_filtered_twice() -> None:
    machine = vm()
    machine.set_smccc_filter(0x8400_0000, 0x20, FilterAction.DENY)

    refused(lambda: machine.set_smccc_filter(0x8400_001F, 1, FilterAction.DENY), errno.EEXIST)


def test_a_filter_cannot_change_once_the_vm_has_run() -> None:
    machine = ready()
    machine.vcpus[0].run()

    refused(lambda: machine.set_smccc_filter(0x8400_0000, 1, FilterAction.DENY), errno.EBUSY)


@pytest.mark.parametrize("conduit", Conduit)
def test_a_denied_function_is_not_supported_over_either_conduit(conduit: Conduit) -> None:
    machine = ready()
    machine.set_smccc_filter(0x8400_0000, 1, FilterAction.DENY)

    assert machine.vcpus[0].call(conduit, 0x8400_0000, 1, 2, 3).regs == (NOT_SUPPORTED, 0, 0, 0)


@pytest.mark.parametrize(("conduit", "flags"), [(Conduit.HVC, 0), (Conduit.SMC, 1)])
def test_a_forwarded_function_exits_with_its_id_and_the_conduit(conduit: Conduit, flags: int) -> None:
    machine = ready()
    machine.set_smccc_filter(0x8400_0000, 1, FilterAction.FWD_TO_USER)
    called = machine.vcpus[0].call(conduit, 0x8400_0000, 1, 2, 3)

    assert (called.regs, called.exit) == ((0x8400_0000, 1, 2, 3), Exit(3, flags=flags, nr=0x8400_0000))


# ---- kvm-uuid


def test_the_uid_is_kvms_four_words() -> None:
    assert ready().vcpus[0].call(Conduit.HVC, 0x8600_FF01).regs == (0xB66F_B428, 0xE911_C52E, 0x564B_CAA9, 0x743A_004D)


# ---- kvm-unit-tests arm/psci.c


@pytest.mark.parametrize(("host", "expected"), [("kvm-4.1", Resume.UNDEF), ("kvm-4.2", Resume.NEXT), ("kvm-6.12", Resume.NEXT)])
def test_an_invalid_function_is_not_supported_or_undefined_on_old_hosts(host: str, expected: Resume) -> None:
    called = ready(host).vcpus[0].call(Conduit.HVC, 1337)

    assert called.resume is expected
    assert (called.regs[0] == NOT_SUPPORTED) is (expected is Resume.NEXT)


def test_affinity_info_tells_on_from_off_also_after_cpu_off() -> None:
    first, second = ready().vcpus

    assert [first.call(Conduit.HVC, 0xC400_0004, cpu).regs[0] for cpu in (0, 1)] == [0, 1]
    first.call(Conduit.HVC, 0xC400_0003, 1, ENTRY)
    second.run()
    assert first.call(Conduit.HVC, 0xC400_0004, 1).regs[0] == 0
    assert second.call(Conduit.HVC, 0x8400_0002).resume is Resume.NEVER
    assert first.call(Conduit.HVC, 0xC400_0004, 1).regs[0] == 1


@pytest.mark.parametrize("host", ["kvm-4.12", "kvm-5.15", "kvm-6.12", "kvm-7.0"])
def test_of_many_callers_one_starts_the_target_and_all_others_find_it_on(host: str) -> None:
    machine = ready(host, vcpus=8)
    for vcpu in range(2, 8):
        machine.vcpus[0].call(Conduit.HVC, 0xC400_0003, vcpu, ENTRY)
        machine.vcpus[vcpu].run()

    results = [machine.vcpus[vcpu].call(Conduit.HVC, 0xC400_0003, 1, ENTRY).regs[0] for vcpu in (0, *range(2, 8))]

    assert results == [0] + [(1 << 64) - 4] * 6
