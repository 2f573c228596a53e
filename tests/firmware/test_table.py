"""The dispatch table: every function ID has an answer, discovery says what dispatch does, ready answers depend on nothing."""

from __future__ import annotations

import dataclasses
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware.abi import MASK32, MASK64, Version
from firmware.dispatch import SERVICES, Firmware, functions_by_id
from firmware.host import Deviation, Host, Mitigations, TrustedOs
from firmware.hosts import HOSTS, host_named
from firmware.table import Constant, Function, Keyed, Live, Query
from firmware.trap import Conduit, Enter, Reply, Resume, Trap
from tests.firmware.harness import ENTRY, HOST_VERSIONS, JUNK, V1_3, call, make, returned
from tests.oracle.functions import BY_FID

OWNERS: Final = range(64)
CAPABLE: Final = frozenset({"system-suspend"})
STOLEN_TIME: Final = 0x4700_0000
# Every function that any modelled host serves; an ID that is not here is unknown to all.
NAMED: Final = frozenset(BY_FID)
UNKNOWN_TO_ALL: Final = {host: returned(host, -1) for host in ("spec", "kvm-6.12", "qemu-7")}


def well_formed(reply: Reply) -> bool:
    registers = [register for register, _ in reply.regs]
    return (
        registers == sorted(set(registers))
        and set(registers) <= {0, 1, 2, 3}
        and all(0 <= value <= MASK64 for _, value in reply.regs)
        and reply.resume is not Resume.SAME
        and reply.entry is None
    )


@pytest.mark.parametrize("conduit", Conduit)
@pytest.mark.parametrize(("host", "version"), HOST_VERSIONS, ids=str)
def test_every_function_id_of_every_owner_has_an_answer(host: str, version: Version, conduit: Conduit) -> None:
    firmware = make(host, psci=version)
    unknown = UNKNOWN_TO_ALL[host]
    regs = (1, ENTRY, 3)

    for call_bits in (0x0000_0000, 0x4000_0000, 0x8000_0000, 0xC000_0000):
        for owner in OWNERS:
            for fid in range(call_bits | owner << 24, (call_bits | owner << 24) + 0x100):
                if fid in NAMED:
                    assert well_formed(make(host, psci=version).handle(Trap(0, conduit, (fid, *regs)))), hex(fid)
                else:
                    assert firmware.handle(Trap(0, conduit, (fid, *regs))) == unknown, hex(fid)


@given(
    host_version=st.sampled_from(HOST_VERSIONS),
    conduit=st.sampled_from(Conduit),
    fid=st.one_of(
        st.integers(0, MASK32),
        st.sampled_from(sorted(NAMED)),
        st.builds(lambda fid, bit: fid ^ 1 << bit, st.sampled_from(sorted(NAMED)), st.integers(0, 31)),
    ),
    upper=st.sampled_from([0, JUNK]),
    args=st.tuples(*(st.one_of(st.integers(0, MASK64), st.sampled_from([0, 1, ENTRY, *sorted(NAMED)])) for _ in range(3))),
    imm=st.sampled_from([0, 0, 1, 0xFFFF]),
    vcpu=st.integers(0, 1),
)
@settings(derandomize=True, database=None, deadline=None, max_examples=1500)
def test_any_function_id_with_any_arguments_has_an_answer(
    *, host_version: tuple[str, Version], conduit: Conduit, fid: int, upper: int, args: tuple[int, int, int], imm: int, vcpu: int
) -> None:
    host, version = host_version
    firmware = make(host, psci=version, capabilities=CAPABLE, pv_time_base=STOLEN_TIME)
    if vcpu:
        call(firmware, 0x95C1_BA60 if version == Version(0, 1) else 0xC400_0003, 1, ENTRY)
        firmware.handle(Enter(1))

    x1, x2, x3 = args
    reply = firmware.handle(Trap(vcpu, conduit, (fid | upper, x1, x2, x3), imm))

    assert well_formed(reply)
    # Bit 16 of a fast call is SMCCC 1.3's hint, which `spec` alone has.
    hinted = fid & ~0x1_0000 if host == "spec" and fid >> 31 else fid
    if fid not in NAMED and hinted not in NAMED and not imm:
        assert reply == UNKNOWN_TO_ALL[host]


# ---- discovery and dispatch

# What a served function never answers with NOT_SUPPORTED; 0 where it is not listed.
FIRST_ARGUMENT: Final = {
    0x8400_000A: 0x8400_0000,
    0x8000_0001: 0xC500_0020,
    0x8400_0051: 0x8400_0050,
    0xC500_0020: 0xC500_0020,
    0x8400_0053: 1,
    0xC400_0053: 1,
}
PSCI: Final = {fid for fid, row in BY_FID.items() if row.range in ("psci", "psci 0.1")}
ARCH: Final = {fid for fid, row in BY_FID.items() if row.range == "arch"}
COVERS: Final = {
    "PSCI_FEATURES": (0x8400_000A, PSCI | {0x8000_0000}),
    "SMCCC_ARCH_FEATURES": (0x8000_0001, ARCH | {0xC500_0020}),
    "TRNG_FEATURES": (0x8400_0051, {fid for fid, row in BY_FID.items() if row.range == "trng"}),
    "PV_TIME_FEATURES": (0xC500_0020, {fid for fid, row in BY_FID.items() if row.range == "pv time"}),
}
SPEC: Final = host_named("spec")
TRUSTED: Final = SPEC.evolve(trusted_os=TrustedOs(0, 1), cite="a test")


def is_supported(firmware: Firmware, fid: int, conduit: Conduit) -> bool:
    return call(firmware, fid, FIRST_ARGUMENT.get(fid, 0), conduit=conduit) != UNKNOWN_TO_ALL[firmware.config.host.name]


@pytest.mark.parametrize("conduit", Conduit)
@pytest.mark.parametrize("state", ["mitigated", "unaffected", "vulnerable"])
@pytest.mark.parametrize("bits", [0, 1], ids=["bitmaps clear", "bitmaps set"])
@pytest.mark.parametrize(
    ("host", "version"),
    [*((host_named(host), version) for host, version in HOST_VERSIONS), (TRUSTED, V1_3)],
    ids=lambda value: value.name if isinstance(value, Host) else str(value),
)
def test_discovery_says_what_dispatch_does(host: Host, version: Version, bits: int, state: str, conduit: Conduit) -> None:
    def fresh() -> Firmware:
        mine = (Mitigations(state, state, state),)
        firmware = make(host, psci=version, capabilities=CAPABLE, pv_time_base=STOLEN_TIME, mitigations=mine)
        for register in (0x6030_0000_0016_0000, 0x6030_0000_0016_0001):
            if host.registers:
                firmware.set_one_reg(register, bits)
        return firmware

    deviating = {(deviation.discovery, deviation.function) for deviation in host.deviations}
    for name, (discovery, covered) in COVERS.items():
        if not is_supported(fresh(), discovery, conduit):
            continue
        for fid in sorted(covered):
            function = functions_by_id(fresh().config).get(fid)
            if function is None or (name, function.name) in deviating or _answered_at_el2(host, function):
                continue
            discovered = call(fresh(), discovery, fid, conduit=conduit) != UNKNOWN_TO_ALL[host.name]
            assert discovered is is_supported(fresh(), fid, conduit), f"{name}({function.name} {fid:#x})"


def _answered_at_el2(host: Host, function: Function) -> bool:
    # KVM's fast path answers HVC whatever is advertised, and no SMC: test_dispatch.py.
    return function.name in host.at_el2


@pytest.mark.parametrize(
    ("host", "deviation"),
    [(host, deviation) for host in HOSTS.values() for deviation in host.deviations],
    ids=lambda value: value.name if isinstance(value, Host) else f"{value.discovery}({value.function})",
)
def test_a_deviation_really_deviates(host: Host, deviation: Deviation) -> None:
    discovery = COVERS[deviation.discovery][0]
    straight = host.evolve(deviations=(), cite="a test")
    fids = [fid for fid, function in functions_by_id(make(host).config).items() if function.name == deviation.function]

    for fid in fids:
        deviates, follows = (
            dict(call(make(each), discovery, fid, conduit=host.default_conduit).regs)[0] & MASK32 for each in (host, straight)
        )
        assert deviates == deviation.value & MASK32
        assert follows != deviates


def test_the_list_of_deviations_is_complete() -> None:
    assert {(host.name, entry.discovery, entry.function, entry.value) for host in HOSTS.values() for entry in host.deviations} == {
        *(
            (host.name, "SMCCC_ARCH_FEATURES", function, -1)
            for host in HOSTS.values()
            if (host.name.startswith("kvm-") or host.name in ("firecracker", "crosvm", "xen")) and host.smccc is not None
            for function in ("SMCCC_VERSION", "SMCCC_ARCH_FEATURES")
        ),
        ("jailhouse", "SMCCC_ARCH_FEATURES", "SMCCC_VERSION", -1),
        ("hafnium-primary", "PSCI_FEATURES", "SMCCC_VERSION", 0x1_0002),
        ("hafnium-primary", "PSCI_FEATURES", "CPU_SUSPEND", 1),
        ("bao", "PSCI_FEATURES", "MIGRATE_INFO_TYPE", -1),
    }


# ---- ready answers


@pytest.mark.parametrize(("host", "version"), HOST_VERSIONS, ids=str)
def test_a_constant_depends_on_nothing_but_the_configuration(host: str, version: Version) -> None:
    firmware, later = (make(host, psci=version, seed=seed, pv_time_base=STOLEN_TIME) for seed in (0, 1))
    call(later, "CPU_ON", 1, ENTRY)
    later.handle(Enter(1))
    constants = [fid for fid, function in firmware.tables.functions.items() if isinstance(function.answer, Constant)]
    assert version < Version(0, 2) or constants

    for fid in constants:
        assert isinstance(firmware.tables.by_conduit[Conduit.HVC].entries[fid], Reply)
        assert call(firmware, fid) == call(later, fid, MASK64, 2, 3, vcpu=1, big_endian=True, time_ns=10**9), hex(fid)


@pytest.mark.parametrize(("host", "version"), HOST_VERSIONS, ids=str)
def test_answers_are_ready_wherever_the_row_allows_it(host: str, version: Version) -> None:
    tables = make(host, psci=version).tables

    for fid, function in tables.functions.items():
        entry = tables.by_conduit[Conduit.SMC].entries[fid]
        if isinstance(function.answer, Query):
            assert isinstance(entry, Keyed)
            assert not any(isinstance(answer, Live) for answer in entry.answers.values())
        else:
            assert isinstance(entry, Reply) is isinstance(function.answer, Constant)


@pytest.mark.parametrize("host", ["spec", "kvm-6.12"])
def test_a_handler_in_place_of_ready_answers_says_the_same(host: str) -> None:
    kinds = (
        Mitigations("mitigated", "mitigated", "mitigated"),
        Mitigations("unaffected", "vulnerable", "mitigated", True),
        Mitigations("vulnerable", "unaffected", "unaffected"),
    )
    mixed = make(host, vcpus=3, mitigations=kinds, pv_time_base=STOLEN_TIME)

    for vcpu, mine in enumerate(kinds):
        uniform = make(host, vcpus=3, mitigations=(mine,), pv_time_base=STOLEN_TIME)
        for discovery in (0x8400_000A, 0x8000_0001, 0x8400_0051, 0xC500_0020):
            for fid in sorted(NAMED):
                assert call(mixed, discovery, fid, vcpu=vcpu) == call(uniform, discovery, fid, vcpu=vcpu), hex(fid)


@pytest.mark.parametrize("host", ["spec", "kvm-6.12", "qemu-7"])
def test_a_call_changes_no_table(host: str) -> None:
    firmware = make(host)
    before = firmware.tables

    for fid in sorted(NAMED):
        call(firmware, fid, 1, ENTRY)
        firmware.power.reset()

    assert firmware.tables is before


# ---- the rows


def test_no_two_functions_of_a_configuration_share_an_id() -> None:
    for host, version in HOST_VERSIONS:
        config = make(host, psci=version).config
        fids = [fid for service in SERVICES for function in service.functions(config) for fid in function.fids]
        assert len(fids) == len(set(fids)), host


def test_ids_follow_the_calling_convention_except_0_1s() -> None:
    for service in SERVICES:
        for function in service.functions(make("spec").config):
            if service.name == "PSCI 0.1":
                continue
            assert function.fid32 is None or function.fid32 >> 30 == 0b10, function.name
            assert function.fid64 is None or function.fid64 >> 30 == 0b11, function.name
            if function.fid32 is not None and function.fid64 is not None:
                assert function.fid32 ^ function.fid64 == 0x4000_0000, function.name


def test_a_column_that_changes_is_a_value_of_its_own() -> None:
    firmware = make("spec")
    config = dataclasses.replace(firmware.config, version=Version(1, 0))

    firmware.configure(config)

    assert call(firmware, 0x8400_0000) == returned("spec", 0x1_0000)
    assert call(firmware, 0x8400_000A, 0x8400_0012) == returned("spec", -1)
