"""The Arm Architecture service: version, discovery, workarounds, SOC_ID."""

from __future__ import annotations

import pytest

from firmware.abi import Smccc, Version
from firmware.errors import UserError
from firmware.host import Mitigations
from firmware.trap import Conduit, Reply
from tests.firmware.harness import HOST_VERSIONS, JUNK, call, make, returned

VERSION, ARCH_FEATURES, SOC_ID = 0x8000_0000, 0x8000_0001, 0x8000_0002
WA1, WA2, WA3 = 0x8000_8000, 0x8000_7FFF, 0x8000_3FFF
PV_TIME_FEATURES = 0xC500_0020

# state of the host's CPU -> ARCH_FEATURES(ARCH_WORKAROUND_1), and so for 3
LEVELS = {"unaffected": 1, "mitigated": 0, "vulnerable": -1}
# (state, SSBS) -> ARCH_FEATURES(ARCH_WORKAROUND_2)
WA2_LEVELS = {
    ("unaffected", False): -2,
    ("unaffected", True): -2,
    ("mitigated", False): -2,
    ("mitigated", True): -1,
    ("vulnerable", False): -1,
    ("vulnerable", True): -1,
}


@pytest.mark.parametrize(("host", "version"), HOST_VERSIONS, ids=str)
def test_smccc_does_not_look_at_the_psci_version(host: str, version: Version) -> None:
    word = {"spec": 0x1_0003, "kvm-6.12": 0x1_0001, "qemu-7": Smccc.NOT_SUPPORTED}[host]

    assert call(make(host, psci=version), VERSION) == returned(host, word)


@pytest.mark.parametrize(
    ("smccc", "word", "soc_id"), [((1, 1), 0x1_0001, -1), ((1, 2), 0x1_0002, 0), ((1, 3), 0x1_0003, 0), ((1, 6), 0x1_0006, 0)]
)
def test_spec_offers_the_version_it_is_told_and_that_versions_functions(smccc: tuple[int, int], word: int, soc_id: int) -> None:
    firmware = make("spec", smccc=Version(*smccc))

    assert call(firmware, VERSION) == returned("spec", word)
    assert call(firmware, ARCH_FEATURES, ARCH_FEATURES) == returned("spec", 0)
    assert call(firmware, ARCH_FEATURES, SOC_ID) == returned("spec", soc_id)


def test_smccc_1_0_has_neither_version_nor_features() -> None:
    firmware = make("spec", smccc=Version(1, 0))

    for fid in (VERSION, ARCH_FEATURES, SOC_ID, WA1, WA2, WA3):
        assert call(firmware, fid) == returned("spec", Smccc.NOT_SUPPORTED)
    assert call(firmware, "PSCI_FEATURES", VERSION) == returned("spec", Smccc.NOT_SUPPORTED)


@pytest.mark.parametrize(("host", "offered"), [("kvm-6.12", "1.1"), ("qemu-7", "none"), ("spec", "1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6")])
def test_a_version_the_host_does_not_have_is_refused_in_one_sentence(host: str, offered: str) -> None:
    with pytest.raises(UserError, match=rf"^host {host} does not offer SMCCC 1\.7; it offers: {offered}$"):
        make(host, smccc=Version(1, 7))


@pytest.mark.parametrize(
    ("host", "implemented"),
    [("spec", {VERSION, ARCH_FEATURES, SOC_ID, PV_TIME_FEATURES}), ("kvm-6.12", {PV_TIME_FEATURES})],
    ids=["spec", "kvm-6.12"],
)
def test_arch_features_knows_exactly_its_own_set(host: str, implemented: set[int]) -> None:
    vulnerable = Mitigations("vulnerable", "vulnerable", "vulnerable")
    firmware = make(host, mitigations=(vulnerable,))
    asked = {VERSION, ARCH_FEATURES, SOC_ID, WA1, WA2, WA3, 0x8000_0004, 0, 0xFFFF_FFFF, 0xC500_0021, 0x8400_0000, 0x8400_000A}
    asked |= {PV_TIME_FEATURES, 0x8400_0050, 0xC400_0053, 0x8600_0000, 0x8600_FF01, 0x95C1_BA5F, 0xC000_0002}

    for fid in sorted(asked):
        answer = 0 if fid in implemented else Smccc.NOT_SUPPORTED
        assert call(firmware, ARCH_FEATURES, fid) == returned(host, answer), hex(fid)
        assert call(firmware, ARCH_FEATURES, JUNK | fid) == returned(host, answer), hex(fid)


@pytest.mark.parametrize("host", ["spec", "kvm-6.12"])
@pytest.mark.parametrize(("state", "level"), LEVELS.items())
def test_workarounds_1_and_3_are_judged_by_their_own_vulnerability(host: str, state: str, level: int) -> None:
    spectre_v2 = make(host, mitigations=(Mitigations(spectre_v2=state, spectre_bhb="mitigated"),))
    spectre_bhb = make(host, mitigations=(Mitigations(spectre_v2="mitigated", spectre_bhb=state),))

    assert call(spectre_v2, ARCH_FEATURES, WA1) == returned(host, level)
    assert call(spectre_v2, ARCH_FEATURES, WA3) == returned(host, 0)
    assert call(spectre_bhb, ARCH_FEATURES, WA1) == returned(host, 0)
    assert call(spectre_bhb, ARCH_FEATURES, WA3) == returned(host, level)


@pytest.mark.parametrize("host", ["spec", "kvm-6.12"])
@pytest.mark.parametrize(("state", "answer"), WA2_LEVELS.items(), ids=str)
def test_workaround_2_is_not_required_or_not_there(host: str, state: tuple[str, bool], answer: int) -> None:
    firmware = make(host, mitigations=(Mitigations(spectre_v4=state[0], ssbs=state[1]),))

    assert call(firmware, ARCH_FEATURES, WA2) == returned(host, answer)


@pytest.mark.parametrize("host", ["spec", "kvm-6.12"])
def test_vcpus_on_different_cores_have_different_answers(host: str) -> None:
    mixed = (Mitigations("mitigated", "vulnerable", "unaffected"), Mitigations("unaffected", "mitigated", "vulnerable"))
    firmware = make(host, mitigations=mixed)

    for fid, answers in ((WA1, (0, 1)), (WA2, (-1, -2)), (WA3, (1, -1))):
        for vcpu, answer in enumerate(answers):
            assert call(firmware, ARCH_FEATURES, fid, vcpu=vcpu) == returned(host, answer)


@pytest.mark.parametrize("conduit", Conduit)
@pytest.mark.parametrize("fid", [WA1, WA2, WA3], ids=hex)
@pytest.mark.parametrize("state", LEVELS)
def test_spec_runs_a_workaround_without_writing_a_register_unless_there_is_none(conduit: Conduit, fid: int, state: str) -> None:
    firmware = make("spec", mitigations=(Mitigations(state, state, state),))

    reply = call(firmware, fid, 1, conduit=conduit)

    assert reply == (returned("spec", Smccc.NOT_SUPPORTED) if state == "vulnerable" else Reply())


@pytest.mark.parametrize(
    ("soc_id_type", "answer"),
    [(0, 0x043B_0000), (1, 0), (2, Smccc.INVALID_PARAMETER), (0xFFFF_FFFF, Smccc.INVALID_PARAMETER), (JUNK, 0x043B_0000), (JUNK | 1, 0)],
)
def test_soc_id_answers_by_the_low_half_of_its_type(soc_id_type: int, answer: int) -> None:
    assert call(make("spec"), SOC_ID, soc_id_type) == returned("spec", answer)


@pytest.mark.parametrize("host", ["kvm-6.12", "qemu-7"])
def test_kvm_and_qemu_have_no_soc_id(host: str) -> None:
    assert call(make(host), SOC_ID) == returned(host, Smccc.NOT_SUPPORTED)


HINTED = (0x8401_0000, 0x8001_0000, 0xC401_0003)


@pytest.mark.parametrize("fid", HINTED, ids=hex)
def test_the_sve_hint_is_no_part_of_the_name_since_1_3(fid: int) -> None:
    assert call(make("spec"), fid, 9) == call(make("spec"), fid & ~0x1_0000, 9)


@pytest.mark.parametrize("fid", HINTED, ids=hex)
def test_the_sve_hint_makes_an_unknown_function_before_1_3(fid: int) -> None:
    assert call(make("spec", smccc=Version(1, 2)), fid, 9) == returned("spec", -1)
    assert call(make("kvm-6.12"), fid, 9) == returned("kvm-6.12", -1)
    assert call(make("qemu-7"), fid, 9) == returned("qemu-7", -1)


def test_a_0_1_id_that_has_the_hints_bit_by_itself_keeps_its_meaning() -> None:
    firmware = make("spec", psci=Version(0, 1))

    assert call(firmware, 0x95C1_BA60, 9) == returned("spec", -2)
    assert call(firmware, 0x95C0_BA60, 9) == returned("spec", -1)


FEATURE_AVAILABILITY, SOC_ID_64 = 0xC000_0003, 0xC000_0002


@pytest.mark.parametrize("register", [0x1E_1100, 0x1E_1140, 0x1E_1320, 0x1E_A500], ids=hex)
def test_no_feature_of_el3_is_enabled_for_the_caller(register: int) -> None:
    assert call(make("spec", smccc=Version(1, 5)), FEATURE_AVAILABILITY, register) == returned("spec", 0, 0)


@pytest.mark.parametrize("register", [0, 0x1E_1101, JUNK | 0x1E_1100], ids=hex)
def test_only_whole_register_numbers_have_features(register: int) -> None:
    assert call(make("spec", smccc=Version(1, 5)), FEATURE_AVAILABILITY, register) == returned("spec", Smccc.INVALID_PARAMETER)


@pytest.mark.parametrize(("fid", "since"), [(FEATURE_AVAILABILITY, (1, 5)), (SOC_ID_64, (1, 6))], ids=str)
def test_functions_of_later_versions_come_with_them(fid: int, since: tuple[int, int]) -> None:
    for minor in range(1, 7):
        firmware = make("spec", smccc=Version(1, minor))
        there = (1, minor) >= since
        assert call(firmware, ARCH_FEATURES, fid) == returned("spec", 0 if there else Smccc.NOT_SUPPORTED)
        assert there or call(firmware, fid) == returned("spec", Smccc.NOT_SUPPORTED)


def test_the_socs_name_fills_x1_to_x17() -> None:
    firmware = make("spec", smccc=Version(1, 6))

    reply = call(firmware, SOC_ID_64, 2)

    assert [register for register, _ in reply.regs] == list(range(18))
    assert reply == Reply(reply.regs)
    assert dict(reply.regs)[0] == 0
    text = b"".join(value.to_bytes(8, "little") for _, value in reply.regs[1:])
    assert text == b"psci-emu spec".ljust(136, b"\0")


@pytest.mark.parametrize(("soc_id_type", "answer"), [(0, 0x043B_0000), (1, 0), (3, Smccc.INVALID_PARAMETER)])
def test_the_smc64_form_of_soc_id_answers_as_the_smc32_form(soc_id_type: int, answer: int) -> None:
    assert call(make("spec", smccc=Version(1, 6)), SOC_ID_64, soc_id_type) == returned("spec", answer)


def test_the_smc32_form_of_soc_id_has_no_name() -> None:
    assert call(make("spec", smccc=Version(1, 6)), SOC_ID, 2) == returned("spec", Smccc.INVALID_PARAMETER)
