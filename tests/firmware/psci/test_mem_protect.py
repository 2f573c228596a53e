"""MEM_PROTECT and MEM_PROTECT_CHECK_RANGE."""

from __future__ import annotations

import pytest

from firmware.abi import MASK64, Psci, Version
from firmware.trap import Reset
from tests.firmware.harness import JUNK, RAM, V1_0, call, make, returned

BASE, SIZE = RAM


def test_it_returns_what_it_was_before_and_a_reset_keeps_it() -> None:
    firmware = make("spec")
    replies = [call(firmware, "MEM_PROTECT", enable) for enable in (1, 1)]
    firmware.handle(Reset())
    replies += [call(firmware, "MEM_PROTECT", enable) for enable in (0, 0)]

    assert replies == [returned("spec", before) for before in (0, 1, 1, 0)]


@pytest.mark.parametrize(("enable", "protected"), [(0, 0), (1, 1), (2, 1), (JUNK, 0), (JUNK | 1, 1)], ids=hex)
def test_any_word_but_0_enables(enable: int, protected: int) -> None:
    firmware = make("spec")
    call(firmware, "MEM_PROTECT", enable)

    assert call(firmware, "MEM_PROTECT", 0) == returned("spec", protected)


def test_it_travels_with_the_state() -> None:
    firmware, other = make("spec"), make("spec")
    call(firmware, "MEM_PROTECT", 1)

    other.restore(firmware.state())

    assert call(other, "MEM_PROTECT", 1) == returned("spec", 1)


@pytest.mark.parametrize(
    ("base", "length", "code"),
    [
        (BASE, SIZE, Psci.SUCCESS),
        (BASE, 1, Psci.SUCCESS),
        (BASE + SIZE - 1, 1, Psci.SUCCESS),
        (BASE, 0, Psci.DENIED),
        (BASE - 1, 1, Psci.DENIED),
        (BASE - 1, SIZE, Psci.DENIED),
        (BASE + 1, SIZE, Psci.DENIED),
        (BASE + SIZE, 1, Psci.DENIED),
        (BASE, MASK64, Psci.DENIED),
        (BASE, MASK64 - BASE + 2, Psci.DENIED),
        (JUNK | BASE, 1, Psci.DENIED),
    ],
)
def test_a_range_is_protected_if_all_of_it_is_ram(base: int, length: int, code: Psci) -> None:
    assert call(make("spec"), "MEM_PROTECT_CHECK_RANGE", base, length) == returned("spec", code)


def test_the_smc32_form_looks_at_words() -> None:
    assert call(make("spec"), "MEM_PROTECT_CHECK_RANGE", JUNK | BASE, JUNK | 1, smc64=False) == returned("spec", Psci.SUCCESS)


@pytest.mark.parametrize(("host", "version"), [("spec", V1_0), ("kvm-6.12", None), ("qemu-7", None)], ids=str)
@pytest.mark.parametrize("fid", [0x8400_0013, 0x8400_0014, 0xC400_0014], ids=hex)
def test_below_1_1_and_on_other_hosts_there_is_none(host: str, version: Version | None, fid: int) -> None:
    assert call(make(host, psci=version), fid, BASE, 1) == returned(host, Psci.NOT_SUPPORTED)
