"""AFFINITY_INFO: one answer for all vCPUs of an affinity instance."""

from __future__ import annotations

import pytest

from firmware.abi import Psci
from firmware.trap import Enter
from tests.firmware.harness import ENTRY, HOSTS, JUNK, call, make, returned

# vCPU 0 on; 1 started and not yet run; 2 and 3, and the whole of Aff1 = 2, off.
MPIDRS = (0x0, 0x1, 0x100, 0x101, 0x200, 0x81_0000_0000)
INVALID = Psci.INVALID_PARAMETERS


@pytest.mark.parametrize(
    ("target", "level", "spec", "kvm", "qemu"),
    [
        (0x0, 0, 0, 0, 0),
        (0x1, 0, 2, 0, 0),
        (0x100, 0, 1, 1, 1),
        (0x81_0000_0000, 0, 1, 1, 1),
        (0x0, 1, 0, 0, 0),
        (0x1FF, 1, 1, 1, 0),
        (0x2FF, 1, 1, 1, 0),
        (0xFFFF, 2, 0, 0, 0),
        (0xFF_FFFF, 3, 0, 0, 0),
        (0x81_00FF_FFFF, 3, 1, 1, 0),
        (0x300, 1, INVALID, INVALID, 0),
        (0x82_0000_0000, 3, INVALID, INVALID, 0),
        (0x2, 0, INVALID, INVALID, INVALID),
        (0x8000_0000, 0, INVALID, INVALID, INVALID),
        (0x100_0000, 3, INVALID, INVALID, 0),
        (0x0, 4, INVALID, INVALID, 0),
        (0x0, 0xFFFF_FFFF, INVALID, INVALID, 0),
        (0x0, 1 << 32, 0, INVALID, 0),
        (0x100, 1 << 32, 1, INVALID, 0),
    ],
    ids=lambda value: hex(value) if isinstance(value, int) else None,
)
def test_smc64_judges_the_instance(target: int, level: int, spec: int, kvm: int, qemu: int) -> None:
    for host, answer in zip(HOSTS, (spec, kvm, qemu), strict=True):
        firmware = make(host, mpidrs=MPIDRS)
        call(firmware, "CPU_ON", 0x1, ENTRY)

        assert call(firmware, 0xC400_0004, target, level) == returned(host, answer), host


@pytest.mark.parametrize("host", ["spec", "kvm-6.12"])
def test_smc32_arguments_are_their_low_halves(host: str) -> None:
    firmware = make(host, mpidrs=MPIDRS)

    assert call(firmware, 0x8400_0004, JUNK | 0x100, JUNK) == returned(host, 1)
    assert call(firmware, 0x8400_0004, JUNK | 0x1FF, JUNK | 1) == returned(host, 1)


def test_qemu_looks_at_all_of_an_smc32_target() -> None:
    assert call(make("qemu-7", mpidrs=MPIDRS), 0x8400_0004, JUNK | 0x100) == returned("qemu-7", INVALID)


@pytest.mark.parametrize(("host", "answer"), [("spec", 2), ("kvm-6.12", 0)])
def test_an_instance_in_which_some_are_pending_and_none_is_on_is_pending_where_that_shows(host: str, answer: int) -> None:
    firmware = make(host, mpidrs=MPIDRS)
    call(firmware, "CPU_ON", 0x101, ENTRY)

    assert call(firmware, 0xC400_0004, 0x100, 1) == returned(host, answer)
    firmware.handle(Enter(3))
    assert call(firmware, 0xC400_0004, 0x100, 1) == returned(host, 0)
    call(firmware, "CPU_ON", 0x100, ENTRY)
    assert call(firmware, 0xC400_0004, 0x100, 1) == returned(host, 0)


@pytest.mark.parametrize("host", HOSTS)
def test_asking_changes_nothing(host: str) -> None:
    firmware = make(host, mpidrs=MPIDRS)
    call(firmware, "CPU_ON", 0x1, ENTRY)
    before = firmware.state()

    for target in MPIDRS:
        call(firmware, "AFFINITY_INFO", target)

    assert firmware.state() == before
