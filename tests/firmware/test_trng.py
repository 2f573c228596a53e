"""TRNG: five functions, seeded entropy, bits right-aligned over x1 to x3."""

from __future__ import annotations

import pytest

from firmware.abi import Psci, Trng, Version
from firmware.dispatch import Firmware
from firmware.trap import Reply
from tests.firmware.harness import HOST_VERSIONS, JUNK, call, make, returned

VERSION, FEATURES, GET_UUID, RND32, RND64 = 0x8400_0050, 0x8400_0051, 0x8400_0052, 0x8400_0053, 0xC400_0053
FIDS = (VERSION, FEATURES, GET_UUID, RND32, RND64)
STD_BMAP = 0x6030_0000_0016_0000
UUIDS = {
    "spec": (0x7073_6369, 0x2D65_4D75, 0x8000_7370, 0x6563_0001),
    "kvm-6.12": (0x00E0_210D, 0xEB11_8443, 0x4452_7080, 0x4C5A_4E55),
}
SERVED = [pair for pair in HOST_VERSIONS if pair[0] in UUIDS]
WIDTHS = ((RND32, 32), (RND64, 64))


def bits_of(reply: Reply, width: int) -> int:
    """Return the entropy of a successful reply as one number."""
    (status, high, middle, low) = (value for _, value in reply.regs)
    assert status == 0
    return high << 2 * width | middle << width | low


@pytest.mark.parametrize(("host", "version"), SERVED, ids=str)
def test_trng_does_not_look_at_the_psci_version(host: str, version: Version) -> None:
    assert call(make(host, psci=version), VERSION) == returned(host, 0x1_0000)


@pytest.mark.parametrize("host", UUIDS)
def test_features_knows_exactly_the_five_functions(host: str) -> None:
    firmware = make(host)
    others = (0x8400_0000, 0x8400_004F, 0x8400_0054, 0xC400_0050, 0xC400_0051, 0xC400_0052, 0x8600_0001, 0)

    for fid in (*FIDS, *others):
        assert call(firmware, FEATURES, fid) == returned(host, 0 if fid in FIDS else Trng.NOT_SUPPORTED), hex(fid)


def test_kvm_compares_all_of_features_argument() -> None:
    assert call(make("kvm-6.12"), FEATURES, JUNK | VERSION) == returned("kvm-6.12", Trng.NOT_SUPPORTED)


def test_spec_looks_at_the_low_half_of_trng_features_argument() -> None:
    assert call(make("spec"), FEATURES, JUNK | VERSION) == returned("spec", Trng.SUCCESS)


@pytest.mark.parametrize(("host", "uuid"), UUIDS.items())
def test_the_uuid_is_the_back_ends(host: str, uuid: tuple[int, int, int, int]) -> None:
    assert call(make(host), GET_UUID) == returned(host, *uuid)


@pytest.mark.parametrize("host", UUIDS)
@pytest.mark.parametrize(("fid", "width"), WIDTHS, ids=["rnd32", "rnd64"])
def test_exactly_the_asked_bits_are_random_and_all_above_are_zero(host: str, fid: int, width: int) -> None:
    firmware = make(host)

    for asked in (1, 2, width - 1, width, width + 1, 2 * width, 2 * width + 1, 3 * width - 1, 3 * width):
        seen = 0
        for _ in range(40):
            reply = call(firmware, fid, asked)
            assert all(value < 1 << width for _, value in reply.regs)
            seen |= bits_of(reply, width)
        assert seen == (1 << asked) - 1, asked


@pytest.mark.parametrize("host", UUIDS)
@pytest.mark.parametrize(("fid", "width"), WIDTHS, ids=["rnd32", "rnd64"])
def test_more_bits_than_three_registers_hold_are_refused_and_cost_no_entropy(host: str, fid: int, width: int) -> None:
    firmware = make(host)
    before = firmware.state()

    for asked in (3 * width + 1, 0x8000_0000, 0xFFFF_FFFF):
        assert call(firmware, fid, asked) == returned(host, Trng.INVALID_PARAMETERS)
    assert firmware.state() == before


@pytest.mark.parametrize(("fid", "width"), WIDTHS, ids=["rnd32", "rnd64"])
def test_no_bits_succeed_on_kvm_alone(fid: int, width: int) -> None:
    assert call(make("kvm-6.12"), fid, 0) == returned("kvm-6.12", 0, 0, 0, 0), width
    assert call(make("spec"), fid, 0) == returned("spec", Trng.INVALID_PARAMETERS)


@pytest.mark.parametrize("host", UUIDS)
@pytest.mark.parametrize(("fid", "width"), WIDTHS, ids=["rnd32", "rnd64"])
def test_the_number_of_bits_is_a_word(host: str, fid: int, width: int) -> None:
    assert call(make(host), fid, JUNK | 5) == call(make(host), fid, 5), width


def numbers(firmware: Firmware, count: int = 5) -> list[int]:
    return [bits_of(call(firmware, RND64, 192, vcpu=index % 2), 64) for index in range(count)]


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others() -> None:
    assert numbers(make("spec", seed=1)) == numbers(make("spec", seed=1))
    assert not set(numbers(make("spec", seed=1))) & set(numbers(make("spec", seed=2)))
    assert len(set(numbers(make("spec", seed=1), 50))) == 50


def test_a_restored_firmware_goes_on_in_the_sequence() -> None:
    firmware = make("spec", seed=7)
    numbers(firmware, 3)
    restored = make("spec")
    restored.restore(firmware.state())

    assert numbers(restored) == numbers(firmware)


@pytest.mark.parametrize("host", UUIDS)
def test_the_bitmap_hides_every_function(host: str) -> None:
    firmware = make(host)

    firmware.set_one_reg(STD_BMAP, 0)

    for fid in FIDS:
        assert call(firmware, fid, FEATURES) == returned(host, Psci.NOT_SUPPORTED)


@pytest.mark.parametrize("fid", FIDS, ids=hex)
def test_qemu_has_no_trng(fid: int) -> None:
    assert call(make("qemu-7"), fid, FEATURES) == returned("qemu-7", Psci.NOT_SUPPORTED)
