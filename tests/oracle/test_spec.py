"""The oracle's `spec` column against the rules of DEN 0022 and DEN 0028."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.oracle import Enter, Oracle, Outcome, Power, Psci, Resume, Trap, Vcpu, Woken, call
from tests.oracle.words import MASK64

RAM: Final = (0x4000_0000, 0x1000_0000)
ENTRY: Final = 0x4008_0000

CPU_SUSPEND, CPU_OFF, CPU_ON, AFFINITY_INFO = 0xC400_0001, 0x8400_0002, 0xC400_0003, 0xC400_0004
MIGRATE, MIGRATE_INFO_TYPE, MIGRATE_INFO_UP_CPU, SYSTEM_OFF = 0xC400_0005, 0x8400_0006, 0xC400_0007, 0x8400_0008
PSCI_FEATURES, SYSTEM_SUSPEND, SYSTEM_RESET2, SYSTEM_OFF2 = 0x8400_000A, 0xC400_000E, 0xC400_0012, 0xC400_0015
CPU_ON_32, CPU_ON_0_1 = 0x8400_0003, 0x95C1_BA60
POWERDOWN = 0x1_0000


def spec(version: int = 0x1_0003, **options: Any) -> Oracle:
    return Oracle("spec", version=version, ram=RAM, feature_psci_0_2=version != 0x1, **{"vcpus": 3, **options})


def x0(outcome: Outcome) -> int:
    """x0 as the signed number a return code is; `spec` writes no other register."""
    assert set(outcome.regs) == {"x0"}
    value = outcome.regs["x0"]
    return value - (value >> 63 << 64)


@pytest.mark.parametrize(
    ("version", "target", "entry", "code"),
    [
        (0x1_0000, 9, 1, Psci.INVALID_PARAMETERS),  # the target is looked at before the entry point
        (0x1_0000, 0x8000_0001, ENTRY, Psci.INVALID_PARAMETERS),
        (0x1_0000, 0, 1, Psci.INVALID_ADDRESS),  # and the entry point before the state
        (0x1_0000, 1, 0x3FFF_FFFC, Psci.INVALID_ADDRESS),
        (0x1_0000, 1, 0x5000_0000, Psci.INVALID_ADDRESS),
        (0x1_0000, 1, ENTRY + 2, Psci.INVALID_ADDRESS),
        (0x2, 1, ENTRY + 2, Psci.INVALID_PARAMETERS),
        (0x2, 0, ENTRY, Psci.ALREADY_ON),
        (0x1, 0, ENTRY, Psci.INVALID_PARAMETERS),
        (0x1, 1, ENTRY, Psci.SUCCESS),
    ],
)
def test_cpu_on_refuses_in_order(version: int, target: int, entry: int, code: Psci) -> None:
    fid = CPU_ON_0_1 if version == 0x1 else CPU_ON

    assert x0(call(spec(version), fid, target, entry)) == code


@pytest.mark.parametrize(("version", "code"), [(0x1, Psci.INVALID_PARAMETERS), (0x2, Psci.ON_PENDING), (0x1_0003, Psci.ON_PENDING)])
def test_a_started_vcpu_is_pending_until_it_is_entered(version: int, code: Psci) -> None:
    oracle = spec(version)
    fid = CPU_ON_0_1 if version == 0x1 else CPU_ON
    already_on = Psci.INVALID_PARAMETERS if version == 0x1 else Psci.ALREADY_ON

    assert call(oracle, fid, 1, ENTRY, 7).visible() == (0, 2, 1)
    assert x0(call(oracle, fid, 1, ENTRY, 8)) == code
    assert oracle.step(Enter(1)).regs["x0"] == 7
    assert x0(call(oracle, fid, 1, ENTRY)) == already_on


def test_smc32_arguments_are_truncated_and_not_written_back() -> None:
    oracle = spec()
    junk = 0xABCD << 32

    assert x0(call(oracle, CPU_ON_32, junk | 1, junk | ENTRY, junk | 7)) == Psci.SUCCESS
    assert oracle.step(Enter(1)).regs["x0"] == 7


MPIDRS: Final = (0x8000_0000, 0x8000_0001, 0x8000_0100, 0x8000_0101, 0x81_8000_0000)


@pytest.mark.parametrize(
    ("target", "level", "answer"),
    [
        (0, 0, 0),
        (1, 0, 2),
        (0x100, 0, 1),
        (0, 1, 0),
        (0x100, 1, 1),
        (0x1FF, 1, 1),  # fields below the level are ignored
        (0, 3, 0),
        (0x81_0000_0000, 3, 1),
        (0, 4, Psci.INVALID_PARAMETERS),
        (2, 0, Psci.INVALID_PARAMETERS),
        (0x8000_0000, 0, Psci.INVALID_PARAMETERS),
        (0x82_0000_0000, 3, Psci.INVALID_PARAMETERS),
    ],
)
def test_affinity_info_folds_an_instance_into_one_state(target: int, level: int, answer: int) -> None:
    oracle = spec(mpidrs=MPIDRS)
    call(oracle, CPU_ON, 1, ENTRY)

    assert x0(call(oracle, AFFINITY_INFO, target, level)) == answer


def test_an_instance_is_pending_when_some_are_and_none_is_on_and_on_when_one_only_sleeps() -> None:
    oracle = spec(mpidrs=MPIDRS)
    call(oracle, CPU_ON, 0x100, ENTRY)

    assert x0(call(oracle, AFFINITY_INFO, 0x100, 1)) == 2

    oracle.step(Enter(2))
    call(oracle, CPU_SUSPEND, 0, vcpu=2)

    assert oracle.states[2].power is Power.SUSPENDED
    assert x0(call(oracle, AFFINITY_INFO, 0x100, 1)) == 0


def test_standby_goes_on_after_the_call_and_ignores_the_entry_point() -> None:
    oracle = spec()

    outcome = call(oracle, CPU_SUSPEND, 0, 1, 7)

    assert (x0(outcome), outcome.resume) == (0, Resume.WAIT)
    assert oracle.step(Woken(0)) == Outcome(oracle.states, {}, Resume.NEXT)
    assert oracle.states[0] == Vcpu(Power.ON)


def test_powerdown_resumes_at_the_entry_point() -> None:
    oracle = spec()

    outcome = call(oracle, CPU_SUSPEND, POWERDOWN, ENTRY, 7)

    assert (outcome.regs, outcome.resume) == ({}, Resume.WAIT)
    assert oracle.step(Woken(0)).regs == {"pc": ENTRY, "x0": 7, "pstate": 0x3C5, "ee": 0}
    assert oracle.step(Woken(0)) == Outcome(oracle.states)


@pytest.mark.parametrize(
    ("version", "extended", "power_state", "entry", "code"),
    [
        (0x1_0000, False, 0x2_0000, ENTRY, Psci.INVALID_PARAMETERS),
        (0x1_0000, False, 0x8000_0000 | POWERDOWN, 1, Psci.INVALID_PARAMETERS),
        (0x1_0000, False, POWERDOWN, 1, Psci.INVALID_ADDRESS),
        (0x2, False, POWERDOWN, 1, Psci.INVALID_PARAMETERS),
        (0x1_0000, True, POWERDOWN, 1, Psci.SUCCESS),  # a StateID bit in this format
        (0x1_0000, True, 0x4000_0000, 1, Psci.INVALID_ADDRESS),
        (0x1_0000, True, 0x2000_0000, ENTRY, Psci.INVALID_PARAMETERS),
    ],
)
def test_cpu_suspend_checks_power_state_before_the_entry_point(
    version: int, extended: bool, power_state: int, entry: int, code: Psci
) -> None:
    assert x0(call(spec(version, extended_power_state=extended), CPU_SUSPEND, power_state, entry)) == code


@pytest.mark.parametrize(
    ("trusted_os", "info_type", "up_cpu", "migrate", "off"),
    [
        (None, 2, Psci.NOT_SUPPORTED, Psci.NOT_SUPPORTED, None),
        ((0, 0), 0, 0, Psci.INTERNAL_FAILURE, Psci.DENIED),
        ((0, 1), 0, 1, Psci.NOT_PRESENT, None),
        ((1, 0), 1, 0, Psci.DENIED, Psci.DENIED),
        ((1, 1), 1, 1, Psci.DENIED, None),
        ((2, 0), 2, Psci.NOT_SUPPORTED, Psci.NOT_SUPPORTED, None),
    ],
)
def test_the_trusted_os_decides_migrate_and_cpu_off(
    trusted_os: tuple[int, int] | None, info_type: int, up_cpu: int, migrate: int, off: int | None
) -> None:
    def fresh() -> Oracle:
        return spec(trusted_os=trusted_os)

    stopped = call(fresh(), CPU_OFF)

    assert x0(call(fresh(), MIGRATE_INFO_TYPE)) == info_type
    assert x0(call(fresh(), MIGRATE_INFO_UP_CPU)) == up_cpu
    assert x0(call(fresh(), MIGRATE, 1)) == migrate
    assert stopped.resume is Resume.NEVER if off is None else x0(stopped) == off


@pytest.mark.parametrize("trusted_os", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_migrate_looks_at_the_target_first(trusted_os: tuple[int, int]) -> None:
    assert x0(call(spec(trusted_os=trusted_os), MIGRATE, 9)) == Psci.INVALID_PARAMETERS


@pytest.mark.parametrize(
    ("version", "fid", "args", "effect"),
    [
        (0x2, SYSTEM_OFF, (), ("off", 0)),
        (0x2, 0x8400_0009, (), ("reset", 0)),
        (0x1_0001, SYSTEM_RESET2, (0, 5), ("reset", 1)),
        (0x1_0001, SYSTEM_RESET2, (0x8000_0000, 0), ("reset", 1)),
        (0x1_0003, SYSTEM_OFF2, (0, 0), ("off", 1)),
        (0x1_0003, SYSTEM_OFF2, (1, 0), ("off", 1)),
    ],
)
def test_a_system_wide_call_stops_every_vcpu_and_leaves_to_the_vmm(
    version: int, fid: int, args: tuple[int, ...], effect: tuple[str, int]
) -> None:
    outcome = call(spec(version), fid, *args)

    assert outcome == Outcome((Vcpu(Power.OFF),) * 3, {}, Resume.EXIT, frozenset({effect}))


@pytest.mark.parametrize(
    ("version", "fid", "args", "code"),
    [
        (0x1_0001, SYSTEM_RESET2, (1,), Psci.INVALID_PARAMETERS),
        (0x1_0001, SYSTEM_RESET2, (0x7FFF_FFFF,), Psci.INVALID_PARAMETERS),
        (0x1_0000, SYSTEM_RESET2, (0,), Psci.NOT_SUPPORTED),
        (0x1_0003, SYSTEM_OFF2, (2,), Psci.INVALID_PARAMETERS),
        (0x1_0003, SYSTEM_OFF2, (1, 1), Psci.INVALID_PARAMETERS),
        (0x1_0002, SYSTEM_OFF2, (0,), Psci.NOT_SUPPORTED),
        (0x2, PSCI_FEATURES, (CPU_ON,), Psci.NOT_SUPPORTED),
        (0x1_0000, PSCI_FEATURES, (CPU_ON,), 0),
        (0x1_0000, PSCI_FEATURES, (0x8000_0000,), 0),
        (0x1_0000, PSCI_FEATURES, (MIGRATE,), Psci.NOT_SUPPORTED),
        (0x1_0000, PSCI_FEATURES, (SYSTEM_RESET2,), Psci.NOT_SUPPORTED),
        (0x1_0003, PSCI_FEATURES, (SYSTEM_OFF2,), 1),
        (0x1_0003, 0xC400_0002, (), Psci.NOT_SUPPORTED),  # a hole
        (0x1_0003, CPU_ON_0_1, (1, ENTRY), Psci.NOT_SUPPORTED),
        (0x1, CPU_ON, (1, ENTRY), Psci.NOT_SUPPORTED),
        (0x1, 0x8400_0000, (), Psci.NOT_SUPPORTED),
        (0x1, 0x8000_0000, (), 0x1_0003),
        (0x1_0003, 0x8401_0000, (), 0x1_0003),  # the SVE hint is no part of the ID
    ],
)
def test_a_call_answers_by_version_and_arguments(version: int, fid: int, args: tuple[int, ...], code: int) -> None:
    assert x0(call(spec(version), fid, *args)) == code


def test_os_initiated_mode_and_the_extended_format_are_flags_of_cpu_suspend() -> None:
    assert x0(call(spec(extended_power_state=True), PSCI_FEATURES, CPU_SUSPEND)) == 3
    assert x0(call(spec(), PSCI_FEATURES, CPU_SUSPEND)) == 1


@pytest.mark.parametrize("started", [False, True])
def test_system_suspend_is_denied_while_another_cpu_is_not_off(started: bool) -> None:
    oracle = spec()
    if started:
        call(oracle, CPU_ON, 1, ENTRY)  # ON_PENDING is not OFF

    outcome = call(oracle, SYSTEM_SUSPEND, 1 if started else ENTRY, 7)

    if started:
        assert x0(outcome) == Psci.DENIED
    else:
        assert outcome == Outcome(oracle.states, {}, Resume.EXIT, frozenset({("suspend", 0)}))


def test_system_suspend_refuses_a_bad_entry_point() -> None:
    assert x0(call(spec(), SYSTEM_SUSPEND, 1)) == Psci.INVALID_ADDRESS


def test_a_conduit_that_is_not_there_is_undefined() -> None:
    outcome = spec(conduits=frozenset({"smc"})).step(Trap(0, "hvc", 0, SYSTEM_OFF))

    assert (outcome.resume, outcome.regs) == (Resume.UNDEF, {})


@pytest.mark.parametrize(("soc_id_type", "answer"), [(0, 0x043B_0000), (1, 0), (2, -3), (1 << 32, 0x043B_0000)])
def test_soc_id_answers_by_the_low_half_of_its_type(soc_id_type: int, answer: int) -> None:
    assert x0(call(spec(), 0x8000_0002, soc_id_type)) == answer


def test_workaround_2_that_is_not_required_may_be_called_without_effect() -> None:
    assert call(spec(spectre_v4=0), 0x8000_7FFF, 1).regs == {}
    assert x0(call(spec(spectre_v4=2), 0x8000_7FFF, 1)) == Psci.NOT_SUPPORTED


@pytest.mark.parametrize("imm", [1, 0xFFFF])
def test_a_nonzero_immediate_is_not_looked_at(imm: int) -> None:
    assert x0(spec().step(Trap(0, "smc", imm, 0x8400_0000))) == 0x1_0003


def test_the_vendors_service_is_off_until_its_register_says_otherwise() -> None:
    oracle = spec()

    before = call(oracle, 0x8600_FF01)
    oracle.set_register(0x6030_0000_0016_0002, 0x1)

    assert x0(before) == Psci.NOT_SUPPORTED
    assert call(oracle, 0x8600_FF01).regs["x0"] == 0xB66F_B428


def test_random_bits_are_masked_as_free() -> None:
    outcome = call(spec(), 0x8400_0053, 40)

    assert outcome.regs == {"x0": 0, "x1": 0, "x2": 0, "x3": 0}
    assert outcome.free == {"x1": 0, "x2": 0xFF, "x3": 0xFFFF_FFFF}


def test_an_unknown_function_writes_x0_alone() -> None:
    assert call(spec(), 0x1337).regs == {"x0": MASK64}
