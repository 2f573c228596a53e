"""KVM's bugs that a guest or a VMM could see: each release shows the bug it had, and those after it do not.

`ROWS` names every bug of the list this was written from; one is either a test below, or left out with the reason.
"""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import Final

import pytest

from firmware.abi import PowerState
from firmware.host import Mitigations
from firmware.hosts import host_named
from firmware.kvm import Exit, Vm
from firmware.trap import Conduit, EntryState, Resume
from tests.firmware.test_kvm_interface import CONTEXT, ENTRY, POWER_OFF, PSCI_VERSION, ready, refused, vm

NOT_SUPPORTED: Final = (1 << 64) - 1
INVALID_PARAMETERS: Final = (1 << 64) - 2
ALREADY_ON: Final = (1 << 64) - 4
INTERNAL_FAILURE: Final = (1 << 64) - 6
CPU_ON, CPU_ON_0_1, AFFINITY_INFO = 0xC400_0003, 0x95C1_BA60, 0xC400_0004

# The bug, and the test that is named after it.
ROWS: Final = {
    "CPU_ON target taken as vCPU index": "cpu_on_took_its_target_for_a_vcpu_index",
    "CPU_ON refused because the target's thread did not wait yet": "cpu_on_starts_a_vcpu_that_never_ran",
    "unknown id kills the guest": "an_unknown_id_was_undefined",
    "AFFINITY_INFO says OFF for a nonexistent CPU": "affinity_info_said_off_of_nobody",
    "siblings keep running after SYSTEM_OFF": "siblings_ran_on_after_system_off",
    "SMC loops forever": "smc_never_advanced",
    "CPU_ON race": "cpu_on_has_one_winner",
    "remote reset of a live vCPU's registers": "the_reset_moved_from_cpu_on_to_the_targets_entry",
    "pending reset lost on save and restore": "a_waiting_reset_was_not_read_by_user_space",
    "upper 32 bits of SMC32 arguments used": "the_upper_halves_of_smc32_arguments_counted",
    "reserved affinity bits masked silently": "reserved_affinity_bits_were_ignored",
    "WA1 unaffected is -2 rather than 1": "workaround_1_of_an_unaffected_cpu_changed_its_answer_twice",
    "32-bit -1 in x0": "arch_features_answered_32_bits",
    "PSCI 1.0 appears silently": "psci_1_0_came_without_being_asked",
    "PV time advertised without an address": "pv_time_features_knew_what_had_no_address",
    "bitmap rewrite of the same value": "a_bitmap_takes_the_value_it_has_at_any_time",
    "oversized register id": "a_register_of_another_size_does_not_exist",
    "filter base 0, nr 0 wraps": "a_filter_of_no_functions_wraps_from_0_to_all_of_them",
    "SYSTEM_OFF2 zeroes x1 to x3": "system_off2_zeroes_x1_to_x3",
    "INCREMENT_PC survives reset": "cpu_off_by_smc_made_the_next_start_skip_an_instruction",
}
LEFT_OUT: Final = {
    "read side of reset state unordered": "memory ordering between threads; there are none here",
    "SMC64 ids served to AArch32": "AArch32 guests at EL1 are not emulated",
    "CPU_ON lock inversion": "locks of the kernel's own",
    "PC-adjust flag survives an exit to user space": "mended in v5.13 (26e0aabb38a6), and before 6.4 no call by SMC exits",
    "QEMU: negative cpreg_vmstate_array_len": "the stream is not QEMU's; a snapshot's lengths are checked (tests/emu/test_snapshot.py)",
}


def test_every_bug_is_a_test_or_is_left_out_with_a_reason() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    tests = set(re.findall(r"^def test_(\w+)\(", source, re.MULTILINE)) - {"every_bug_is_a_test_or_is_left_out_with_a_reason"}

    assert tests == set(ROWS.values())
    assert not ROWS.keys() & LEFT_OUT.keys()
    assert len(ROWS) + len(LEFT_OUT) == 25


@pytest.mark.parametrize(
    ("host", "target", "result"), [("kvm-3.11", 1, 0), ("kvm-3.12", 0x100, INVALID_PARAMETERS), ("kvm-3.13", 0x100, 0)]
)
def test_cpu_on_took_its_target_for_a_vcpu_index(host: str, target: int, result: int) -> None:
    machine = Vm(host_named(host), (0, 0x100))
    machine.vcpus[0].init(features=(0,))
    machine.vcpus[1].init(features=(POWER_OFF,))

    assert machine.vcpus[0].call(Conduit.HVC, CPU_ON_0_1, target, ENTRY).regs[0] == result


def test_cpu_on_starts_a_vcpu_that_never_ran() -> None:
    for host in ("kvm-3.14", "kvm-4.2", "kvm-6.12"):
        first = ready(host).vcpus[0]
        assert first.call(Conduit.HVC, CPU_ON_0_1 if host == "kvm-3.14" else CPU_ON, 1, ENTRY).regs[0] == 0


@pytest.mark.parametrize(("host", "resume"), [("kvm-3.16", Resume.UNDEF), ("kvm-4.1", Resume.UNDEF), ("kvm-4.2", Resume.NEXT)])
def test_an_unknown_id_was_undefined(host: str, resume: Resume) -> None:
    assert ready(host).vcpus[0].call(Conduit.HVC, 1337).resume is resume
    # What was known and not implemented always had an answer.
    assert ready(host).vcpus[0].call(Conduit.HVC, 0x8400_0005).regs[0] == NOT_SUPPORTED


@pytest.mark.parametrize(
    ("host", "result"), [("kvm-3.16", 1), ("kvm-4.2", 1), ("kvm-4.3", INVALID_PARAMETERS), ("kvm-7.0", INVALID_PARAMETERS)]
)
def test_affinity_info_said_off_of_nobody(host: str, result: int) -> None:
    assert ready(host).vcpus[0].call(Conduit.HVC, AFFINITY_INFO, 0x55).regs[0] == result


@pytest.mark.parametrize("fid", [0x8400_0008, 0x8400_0009])
@pytest.mark.parametrize(
    ("host", "states"),
    [
        ("kvm-3.18", [PowerState.ON] * 2),
        ("kvm-3.19", [PowerState.OFF] * 2),
        ("kvm-6.12", [PowerState.OFF] * 2),
    ],
)
def test_siblings_ran_on_after_system_off(host: str, states: list[PowerState], fid: int) -> None:
    machine = ready(host)
    machine.vcpus[0].call(Conduit.HVC, CPU_ON, 1, ENTRY)
    machine.vcpus[1].run()

    called = machine.vcpus[0].call(Conduit.HVC, fid)

    # KVM_GET_MP_STATE is younger than 3.19.
    assert machine.firmware.power.states == states
    assert (called.resume, called.regs[0]) == (Resume.EXIT, INTERNAL_FAILURE)


@pytest.mark.parametrize(
    ("host", "resume", "x0"),
    [
        ("kvm-3.11", Resume.UNDEF, 0x8400_0000),  # served as HVC, where 0.2's ID is unknown
        ("kvm-3.14", Resume.UNDEF, 0x8400_0000),
        ("kvm-4.14", Resume.UNDEF, 0x8400_0000),
        ("kvm-4.15", Resume.SAME, NOT_SUPPORTED),
        ("kvm-4.16", Resume.NEXT, NOT_SUPPORTED),
        ("kvm-6.3", Resume.NEXT, NOT_SUPPORTED),
        ("kvm-6.4", Resume.NEXT, 0x1_0001),
    ],
)
def test_smc_never_advanced(host: str, resume: Resume, x0: int) -> None:
    called = ready(host).vcpus[0].call(Conduit.SMC, 0x8400_0000, 1, 2, 3)

    assert (called.resume, called.regs[0]) == (resume, x0)
    if host in ("kvm-4.16", "kvm-6.3"):
        assert called.regs[1:] == (1, 2, 3)


@pytest.mark.parametrize("host", ["kvm-3.16", "kvm-4.12", "kvm-5.1", "kvm-7.0"])
def test_cpu_on_has_one_winner(host: str) -> None:
    machine = ready(host, vcpus=3)
    machine.vcpus[0].call(Conduit.HVC, CPU_ON, 2, ENTRY)
    machine.vcpus[2].run()

    assert [machine.vcpus[vcpu].call(Conduit.HVC, CPU_ON, 1, ENTRY).regs[0] for vcpu in (0, 2, 1)] == [0, ALREADY_ON, ALREADY_ON]


@pytest.mark.parametrize(("host", "at_entry"), [("kvm-4.20", None), ("kvm-5.0", EntryState(ENTRY, CONTEXT, 0x3C5, False))])
def test_the_reset_moved_from_cpu_on_to_the_targets_entry(host: str, at_entry: EntryState | None) -> None:
    machine = ready(host)
    machine.vcpus[0].call(Conduit.HVC, CPU_ON, 1, ENTRY, CONTEXT)

    assert machine.vcpus[1].run()[0] == at_entry


@pytest.mark.parametrize(("host", "read"), [("kvm-5.0", False), ("kvm-5.13", False), ("kvm-5.15", True), ("kvm-7.0", True)])
def test_a_waiting_reset_was_not_read_by_user_space(host: str, read: bool) -> None:
    machine = ready(host)
    machine.vcpus[0].call(Conduit.HVC, CPU_ON, 1, ENTRY, CONTEXT)

    assert (machine.vcpus[1].registers_at_entry() is not None) is read


@pytest.mark.parametrize(("host", "result"), [("kvm-5.5", INVALID_PARAMETERS), ("kvm-5.7", 0), ("kvm-5.15", 0)])
def test_the_upper_halves_of_smc32_arguments_counted(host: str, result: int) -> None:
    junk = 0x55 << 32

    assert ready(host).vcpus[0].call(Conduit.HVC, 0x8400_0003, junk | 1, junk | ENTRY).regs[0] == result


@pytest.mark.parametrize("bit", [24, 31, 40, 63])
@pytest.mark.parametrize(("host", "result"), [("kvm-5.13", 0), ("kvm-5.15", INVALID_PARAMETERS)])
def test_reserved_affinity_bits_were_ignored(host: str, result: int, bit: int) -> None:
    assert ready(host).vcpus[0].call(Conduit.HVC, CPU_ON, 1 << bit | 1, ENTRY).regs[0] == result
    expected = 1 if result == 0 else INVALID_PARAMETERS
    assert ready(host).vcpus[0].call(Conduit.HVC, AFFINITY_INFO, 1 << bit | 1).regs[0] == expected


@pytest.mark.parametrize(
    ("host", "answers"),
    [
        ("kvm-4.16", {"unaffected": 0xFFFF_FFFF, "mitigated": 0, "vulnerable": 0xFFFF_FFFF}),
        ("kvm-5.3", {"unaffected": 0xFFFF_FFFE, "mitigated": 0, "vulnerable": 0xFFFF_FFFF}),
        ("kvm-5.9", {"unaffected": INVALID_PARAMETERS, "mitigated": 0, "vulnerable": NOT_SUPPORTED}),
        ("kvm-5.10", {"unaffected": 1, "mitigated": 0, "vulnerable": NOT_SUPPORTED}),
        ("kvm-7.0", {"unaffected": 1, "mitigated": 0, "vulnerable": NOT_SUPPORTED}),
    ],
)
def test_workaround_1_of_an_unaffected_cpu_changed_its_answer_twice(host: str, answers: dict[str, int]) -> None:
    told = {}
    for state in answers:
        machine = ready(host, mitigations=(Mitigations(spectre_v2=state),))
        told[state] = machine.vcpus[0].call(Conduit.HVC, 0x8000_0001, 0x8000_8000).regs[0]

    assert told == answers


@pytest.mark.parametrize(("host", "result"), [("kvm-4.16", 0xFFFF_FFFF), ("kvm-5.4", 0xFFFF_FFFF), ("kvm-5.5", NOT_SUPPORTED)])
def test_arch_features_answered_32_bits(host: str, result: int) -> None:
    vcpu = ready(host).vcpus[0]

    assert vcpu.call(Conduit.HVC, 0x8000_0001, 0x1234).regs[0] == result
    assert vcpu.call(Conduit.HVC, 0x1234).regs[0] == NOT_SUPPORTED


@pytest.mark.parametrize(("host", "version", "registers"), [("kvm-4.15", 0x2, 0), ("kvm-4.16", 0x1_0000, 0), ("kvm-4.17", 0x1_0000, 1)])
def test_psci_1_0_came_without_being_asked(host: str, version: int, registers: int) -> None:
    vcpu = ready(host).vcpus[0]

    assert vcpu.call(Conduit.HVC, 0x8400_0000).regs[0] == version
    assert len(vcpu.get_reg_list(99)) == registers
    if registers:
        vcpu.set_one_reg(PSCI_VERSION, 0x2)
        assert vcpu.call(Conduit.HVC, 0x8400_0000).regs[0] == 0x2
    else:
        refused(lambda: vcpu.set_one_reg(PSCI_VERSION, 0x2), errno.ENOENT)


@pytest.mark.parametrize(("host", "result"), [("kvm-5.5", 0), ("kvm-5.8", 0), ("kvm-5.9", NOT_SUPPORTED), ("kvm-7.0", NOT_SUPPORTED)])
def test_pv_time_features_knew_what_had_no_address(host: str, result: int) -> None:
    vcpu = ready(host).vcpus[0]

    assert vcpu.call(Conduit.HVC, 0x8000_0001, 0xC500_0020).regs[0] == 0
    assert vcpu.call(Conduit.HVC, 0xC500_0020, 0xC500_0021).regs[0] == result


def test_a_bitmap_takes_the_value_it_has_at_any_time() -> None:
    # Linux commit 528ada2811ba mended it before v5.19-rc1, which brought the bitmaps: no release refused it.
    vcpu = ready("kvm-5.19").vcpus[0]
    vcpu.run()

    vcpu.set_one_reg(0x6030_0000_0016_0000, 0x1)


@pytest.mark.parametrize(("host", "number"), [("kvm-4.17", errno.EINVAL), ("kvm-5.3", errno.ENOENT), ("kvm-6.12", errno.ENOENT)])
def test_a_register_of_another_size_does_not_exist(host: str, number: int) -> None:
    vcpu = ready(host).vcpus[0]

    refused(lambda: vcpu.get_one_reg(0x6040_0000_0014_0000), number)
    refused(lambda: vcpu.set_one_reg(0x6020_0000_0014_0000, 0x2), number)


@pytest.mark.parametrize("host", ["kvm-6.4", "kvm-7.0"])
def test_a_filter_of_no_functions_wraps_from_0_to_all_of_them(host: str) -> None:
    # Linux commit 64dc6f1db7e6 ("KVM: arm64: Return -EINVAL for an empty SMCCC filter range at base 0") is younger than v7.0.
    refused(lambda: vm(host).set_smccc_filter(0, 0, 1), errno.EEXIST)
    refused(lambda: vm(host).set_smccc_filter(1, 0, 1), errno.EINVAL)


def test_system_off2_zeroes_x1_to_x3() -> None:
    called = ready("kvm-6.13").vcpus[0].call(Conduit.HVC, 0xC400_0015, 1, 0, 7)

    assert (called.regs, called.exit) == (((1 << 64) - 6, 0, 0, 0), Exit(24, 1, data=(1,)))


@pytest.mark.parametrize("conduit", Conduit)
@pytest.mark.parametrize(("host", "skips"), [("kvm-6.4", 4), ("kvm-6.12", 4), ("kvm-6.19", 4), ("kvm-7.0", 0)])
def test_cpu_off_by_smc_made_the_next_start_skip_an_instruction(host: str, skips: int, conduit: Conduit) -> None:
    first, second = ready(host).vcpus
    entered = []

    for _ in range(2):
        assert first.call(Conduit.HVC, CPU_ON, 1, ENTRY, CONTEXT).regs[0] == 0
        entered.append(second.run()[0])
        assert second.call(conduit, 0x8400_0002).resume is Resume.NEVER

    again = ENTRY + (skips if conduit is Conduit.SMC else 0)
    assert entered == [EntryState(ENTRY, CONTEXT, 0x3C5, False), EntryState(again, CONTEXT, 0x3C5, False)]
