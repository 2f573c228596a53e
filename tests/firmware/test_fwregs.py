"""Firmware pseudo-registers: encodings, values, refusals and their errno, scope, effect (KVM's rules, which `spec` shares)."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware import fwregs
from firmware.dispatch import Firmware
from firmware.errors import RegisterError, UserError
from firmware.host import Mitigations
from firmware.hosts import host_named
from firmware.trap import Access, Enter, MpState, MpStateValue, Woken
from tests.firmware.harness import V0_1, V0_2, V1_1, V1_2, call, make, returned

PSCI_VERSION = 0x6030_0000_0014_0000
WA1, WA2, WA3 = 0x6030_0000_0014_0001, 0x6030_0000_0014_0002, 0x6030_0000_0014_0003
STD, STD_HYP, VENDOR_HYP, VENDOR_HYP_2 = (0x6030_0000_0016_0000 + index for index in range(4))
IDS = (PSCI_VERSION, WA1, WA2, WA3, STD, STD_HYP, VENDOR_HYP, VENDOR_HYP_2)
MASKS = {STD: 0x1, STD_HYP: 0x1, VENDOR_HYP: 0x3, VENDOR_HYP_2: 0x3}
LISTS = {"spec": IDS, "kvm-6.12": IDS[:-1], "qemu-7": ()}
WITH_REGISTERS = ("spec", "kvm-6.12")


def errno_of(access: Callable[[], object]) -> int:
    """Return the errno of an access, 0 where it is accepted; a refusal is one sentence that begins with the errno's name."""
    try:
        access()
    except RegisterError as error:
        refusal = error
    else:
        return 0
    assert str(refusal).startswith(f"{errno.errorcode[refusal.errno]}: ")
    assert "\n" not in str(refusal)
    return refusal.errno


def written(firmware: Firmware, register: int, value: int) -> int:
    """Write a register; a refused write changes nothing."""
    before = firmware.state()
    result = errno_of(lambda: firmware.set_one_reg(register, value))
    assert result == 0 or firmware.state() == before
    return result


# ---- the list


@pytest.mark.parametrize(("host", "ids"), LISTS.items())
def test_the_list_is_kvms_and_in_its_order(host: str, ids: tuple[int, ...]) -> None:
    assert make(host).reg_list() == ids


@pytest.mark.parametrize("host", WITH_REGISTERS)
def test_registers_are_listed_without_the_feature_bit_too(host: str) -> None:
    assert make(host, psci=V0_1).reg_list() == LISTS[host]


@pytest.mark.parametrize("host", LISTS)
def test_a_list_that_is_too_short_is_e2big(host: str) -> None:
    firmware, count = make(host), len(LISTS[host])

    assert firmware.reg_list(count) == firmware.reg_list(count + 1) == LISTS[host]
    for room in range(count):
        assert errno_of(lambda room=room: firmware.reg_list(room)) == errno.E2BIG  # type: ignore[misc]


@pytest.mark.parametrize("host", LISTS)
def test_before_vcpu_init_everything_is_enoexec(host: str) -> None:
    firmware = make(host, initialised=False)

    assert errno_of(firmware.reg_list) == errno.ENOEXEC
    assert errno_of(lambda: firmware.get_one_reg(PSCI_VERSION)) == errno.ENOEXEC
    assert written(firmware, PSCI_VERSION, 0x2) == errno.ENOEXEC
    assert errno_of(lambda: firmware.get_one_reg(0)) == errno.ENOEXEC


# ---- IDs

SIZES = [size for size in range(16) if size != 3]


@pytest.mark.parametrize("host", WITH_REGISTERS)
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{1 << size} bytes")
@pytest.mark.parametrize("register", IDS, ids=hex)
def test_another_size_is_enoent(host: str, size: int, register: int) -> None:
    firmware, resized = make(host), register & ~(0xF << 52) | size << 52

    assert errno_of(lambda: firmware.get_one_reg(resized)) == errno.ENOENT
    assert written(firmware, resized, 0) == errno.ENOENT


@pytest.mark.parametrize("host", LISTS)
@pytest.mark.parametrize("bit", [*range(32, 52), *range(56, 64)])
def test_an_id_that_is_not_aarch64s_is_einval(host: str, bit: int) -> None:
    firmware = make(host)

    assert errno_of(lambda: firmware.get_one_reg(PSCI_VERSION ^ 1 << bit)) == errno.EINVAL
    assert written(firmware, PSCI_VERSION ^ 1 << bit, 0x2) == errno.EINVAL


@pytest.mark.parametrize("host", LISTS)
@pytest.mark.parametrize(
    "register", [0x6030_0000_0014_0004, 0x6030_0000_0014_FFFF, 0x6030_0000_0016_0004, 0x6030_0000_1014_0000, 0x6030_0000_0015_0000], ids=hex
)
def test_an_unknown_index_or_coprocessor_is_enoent(host: str, register: int) -> None:
    firmware = make(host)

    assert errno_of(lambda: firmware.get_one_reg(register)) == errno.ENOENT
    assert written(firmware, register, 0) == errno.ENOENT


@pytest.mark.parametrize(("host", "register"), [("kvm-6.12", VENDOR_HYP_2), *(("qemu-7", register) for register in IDS)])
def test_a_register_the_host_does_not_have_is_enoent_and_the_sentence_lists_those_it_has(host: str, register: int) -> None:
    known = ", ".join(host_named(host).registers) or "none"

    with pytest.raises(RegisterError, match=rf"^ENOENT: host {host} has no register {register:#018x}; it has: {known}$"):
        make(host).get_one_reg(register)


@given(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1))
def test_any_id_and_value_is_answered_with_one_of_the_documented_errnos(register: int, value: int) -> None:
    firmware = make("spec")

    assert errno_of(lambda: firmware.get_one_reg(register)) in (0, errno.ENOENT, errno.EINVAL)
    assert written(firmware, register, value) in (0, errno.ENOENT, errno.EINVAL)


@pytest.mark.parametrize("value", [-1, 1 << 64])
def test_a_value_that_no_register_holds_is_the_users_mistake(value: int) -> None:
    with pytest.raises(UserError, match="does not fit in 64 bits"):
        make("spec").set_one_reg(PSCI_VERSION, value)


def test_every_errno_that_occurs_is_explained_once() -> None:
    names = [name for name, _ in fwregs.REFUSALS]

    assert sorted(names) == ["E2BIG", "EBUSY", "EINVAL", "ENOENT", "ENOEXEC"]


# ---- PSCI_VERSION

WORDS = {"spec": (0x2, 0x1_0000, 0x1_0001, 0x1_0002, 0x1_0003), "kvm-6.12": (0x2, 0x1_0000, 0x1_0001)}
NEVER = (0x0, 0x3, 0x1_0004, 0x2_0000, 0xFFFF_FFFF, 1 << 32 | 0x2, (1 << 64) - 1)


@pytest.mark.parametrize("host", WITH_REGISTERS)
def test_the_version_takes_what_the_host_offers_and_nothing_else(host: str) -> None:
    for value in (0x1, *WORDS["spec"], *NEVER):
        firmware = make(host)
        accepted = value in WORDS[host]

        assert written(firmware, PSCI_VERSION, value) == (0 if accepted else errno.EINVAL), hex(value)
        assert firmware.get_one_reg(PSCI_VERSION) == (value if accepted else WORDS[host][-1])
        if accepted:
            assert call(firmware, "PSCI_VERSION") == returned(host, value)


@pytest.mark.parametrize("host", WITH_REGISTERS)
def test_without_the_feature_bit_the_version_is_0_1_and_takes_only_that(host: str) -> None:
    firmware = make(host, psci=V0_1)

    for value in (*WORDS["spec"], *NEVER):
        assert written(firmware, PSCI_VERSION, value) == errno.EINVAL, hex(value)
        assert firmware.get_one_reg(PSCI_VERSION) == 0x1
    assert written(firmware, PSCI_VERSION, 0x1) == 0
    assert firmware.get_one_reg(PSCI_VERSION) == 0x1


@pytest.mark.parametrize("host", WITH_REGISTERS)
def test_the_version_can_change_after_the_first_run(host: str) -> None:
    firmware = make(host)
    firmware.handle(Enter(0))

    for value in WORDS[host]:
        assert written(firmware, PSCI_VERSION, value) == 0
        assert call(firmware, "PSCI_VERSION", vcpu=1) == returned(host, value)


def test_the_refusal_names_the_register_the_value_and_what_is_allowed() -> None:
    sentence = r"^EINVAL: PSCI_VERSION does not take 0x10003; allowed: 0\.2 \(0x2\), 1\.0 \(0x10000\), 1\.1 \(0x10001\)$"

    with pytest.raises(RegisterError, match=sentence):
        make("kvm-6.12").set_one_reg(PSCI_VERSION, 0x1_0003)


# ---- ARCH_WORKAROUND_n: writes are checks

LEVEL = {"vulnerable": 0, "mitigated": 1, "unaffected": 2}


@pytest.mark.parametrize("host", WITH_REGISTERS)
@pytest.mark.parametrize("register", [WA1, WA3], ids=["WA1", "WA3"])
@pytest.mark.parametrize(("state", "level"), LEVEL.items())
def test_workarounds_1_and_3_take_levels_up_to_the_hosts_and_store_none(host: str, register: int, state: str, level: int) -> None:
    mine = Mitigations(spectre_v2=state) if register == WA1 else Mitigations(spectre_bhb=state)
    firmware = make(host, mitigations=(mine,))

    for value in range(0x40):
        assert written(firmware, register, value) == (0 if value <= level else errno.EINVAL), hex(value)
        assert firmware.get_one_reg(register) == level


WA2_LEVEL = {
    ("unaffected", False): 3,
    ("unaffected", True): 3,
    ("mitigated", False): 3,
    ("mitigated", True): 0,
    ("vulnerable", False): 0,
    ("vulnerable", True): 0,
}


@pytest.mark.parametrize("host", WITH_REGISTERS)
@pytest.mark.parametrize(("state", "level"), WA2_LEVEL.items(), ids=str)
def test_workaround_2_is_not_required_or_not_available_and_enabled_goes_with_avail_alone(
    host: str, state: tuple[str, bool], level: int
) -> None:
    firmware = make(host, mitigations=(Mitigations(spectre_v4=state[0], ssbs=state[1]),))
    good = {0, 1, 2, 3, 0x12} if level else {0, 1}

    for value in (*range(0x40), 0x80, 1 << 63 | 0x1):
        assert written(firmware, WA2, value) == (0 if value in good else errno.EINVAL), hex(value)
        assert firmware.get_one_reg(WA2) == level


# ---- feature bitmaps

RESETS = {
    "spec": {STD: 0x1, STD_HYP: 0x1, VENDOR_HYP: 0x0, VENDOR_HYP_2: 0x0},
    "kvm-6.12": {STD: 0x1, STD_HYP: 0x1, VENDOR_HYP: 0x3},
}
BITMAPS = [(host, register) for host, resets in RESETS.items() for register in resets]


@pytest.mark.parametrize(("host", "register"), BITMAPS, ids=lambda value: hex(value) if isinstance(value, int) else value)
def test_a_bitmap_takes_any_subset_of_its_mask_before_the_first_run(host: str, register: int) -> None:
    firmware = make(host)
    assert firmware.get_one_reg(register) == RESETS[host][register]

    for value in (*range(16), 1 << 63, (1 << 64) - 1):
        current = firmware.get_one_reg(register)
        good = not value & ~MASKS[register]
        assert written(firmware, register, value) == (0 if good else errno.EINVAL), hex(value)
        assert firmware.get_one_reg(register) == (value if good else current)


@pytest.mark.parametrize(("host", "register"), BITMAPS, ids=lambda value: hex(value) if isinstance(value, int) else value)
def test_after_the_first_run_a_bitmap_takes_its_own_value_alone_and_an_unknown_bit_is_looked_at_first(host: str, register: int) -> None:
    firmware = make(host)
    firmware.handle(Enter(1))  # any vCPU, a stopped one too
    current = RESETS[host][register]

    for value in range(8):
        known = not value & ~MASKS[register]
        expected = errno.EINVAL if not known else 0 if value == current else errno.EBUSY
        assert written(firmware, register, value) == expected, value
        assert firmware.get_one_reg(register) == current


@pytest.mark.parametrize("host", WITH_REGISTERS)
def test_nothing_but_entering_locks_a_bitmap(host: str) -> None:
    firmware = make(host)
    call(firmware, "PSCI_VERSION")
    for event in (Access(0), Woken(0), MpState(1, MpStateValue.RUNNABLE)):
        firmware.handle(event)

    assert written(firmware, STD, 0) == 0


def test_bitmaps_do_not_touch_each_other() -> None:
    firmware = make("spec")

    firmware.set_one_reg(VENDOR_HYP, 0x2)
    firmware.set_one_reg(STD_HYP, 0x0)

    assert [firmware.get_one_reg(register) for register in MASKS] == [0x1, 0x0, 0x2, 0x0]


def test_an_accepted_write_of_the_same_value_builds_no_tables() -> None:
    firmware = make("spec")
    tables = firmware.tables

    firmware.set_one_reg(PSCI_VERSION, 0x1_0003)
    firmware.set_one_reg(WA1, 0x1)
    firmware.set_one_reg(STD, 0x1)

    assert firmware.tables is tables


# ---- for people


def test_the_rows_say_what_their_writes_take() -> None:
    config = make("spec", mitigations=(Mitigations("mitigated", "unaffected", "vulnerable"),)).config

    assert {register.name: register.allowed(config) for register in fwregs.REGISTERS} == {
        "PSCI_VERSION": "0.2 (0x2), 1.0 (0x10000), 1.1 (0x10001), 1.2 (0x10002), 1.3 (0x10003)",
        "SMCCC_ARCH_WORKAROUND_1": "0 (NOT_AVAIL), 1 (AVAIL)",
        "SMCCC_ARCH_WORKAROUND_2": "0 (NOT_AVAIL), 1 (UNKNOWN), 2 (AVAIL), 3 (NOT_REQUIRED)",
        "SMCCC_ARCH_WORKAROUND_3": "0 (NOT_AVAIL)",
        "STD_BMAP": "0 to 0x1 (bit 0 TRNG_V1_0)",
        "STD_HYP_BMAP": "0 to 0x1 (bit 0 PV_TIME)",
        "VENDOR_HYP_BMAP": "0 to 0x3 (bit 0 FUNC_FEAT, bit 1 PTP)",
        "VENDOR_HYP_BMAP_2": "0 to 0x3 (bit 0 FUNC_FEAT_IMPL_VER, bit 1 FUNC_FEAT_IMPL_CPUS)",
    }
    assert {register.name for register in fwregs.REGISTERS if register.locks} == {
        "STD_BMAP",
        "STD_HYP_BMAP",
        "VENDOR_HYP_BMAP",
        "VENDOR_HYP_BMAP_2",
    }


# ---- configurations


def test_asking_for_a_version_at_creation_is_the_same_write() -> None:
    for version in (V0_2, V1_1):
        later = make("kvm-6.12")
        later.set_one_reg(PSCI_VERSION, version.word)
        assert make("kvm-6.12", psci=version).state() == later.state()

    with pytest.raises(RegisterError, match=r"^EINVAL: PSCI_VERSION does not take 0x10002; "):
        make("kvm-6.12", psci=V1_2)


@pytest.mark.parametrize("version", [V0_1, V0_2])
def test_a_host_without_the_register_has_one_version(version: object) -> None:
    with pytest.raises(UserError, match=rf"^host qemu-7 has no version register: PSCI 1\.1 is all it offers, not {version}$"):
        make("qemu-7", psci=version)  # type: ignore[arg-type]
