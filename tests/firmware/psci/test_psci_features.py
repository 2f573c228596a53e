"""PSCI_FEATURES: which functions there are, by host and version, as the reference pages list them."""

from __future__ import annotations

import pytest

from firmware.abi import Psci, Version
from tests.firmware.harness import HOST_VERSIONS, JUNK, V0_1, V0_2, V1_0, V1_1, V1_2, V1_3, call, make, returned

ALWAYS = frozenset(
    (
        0x8000_0000,
        0x8400_0000,
        0x8400_0001,
        0xC400_0001,
        0x8400_0002,
        0x8400_0003,
        0xC400_0003,
        0x8400_0004,
        0xC400_0004,
        0x8400_0006,
        0x8400_0008,
        0x8400_0009,
        0x8400_000A,
    )
)
SUSPEND = frozenset((0x8400_000E, 0xC400_000E))
RESET2 = frozenset((0x8400_0012, 0xC400_0012))
OFF2 = frozenset((0x8400_0015, 0xC400_0015))
CPU_SUSPEND = (0x8400_0001, 0xC400_0001)
OPTIONAL = frozenset((0x8400_000B, 0x8400_000C, 0xC400_000C, 0x8400_000D, 0xC400_000D, 0x8400_000F))
OPTIONAL |= frozenset((0x8400_0010, 0xC400_0010, 0x8400_0011, 0xC400_0011))
PROTECT = frozenset((0x8400_0013, 0x8400_0014, 0xC400_0014))
# QEMU has no SMCCC_VERSION and knows its 0.1 IDs beside the standard ones.
QEMU = ALWAYS - {0x8000_0000} | {0x95C1_BA5E, 0x95C1_BA5F, 0x95C1_BA60}

IMPLEMENTED = {
    ("spec", V1_0): ALWAYS | SUSPEND | OPTIONAL,
    ("spec", V1_1): ALWAYS | SUSPEND | RESET2 | OPTIONAL | PROTECT,
    ("spec", V1_2): ALWAYS | SUSPEND | RESET2 | OPTIONAL | PROTECT,
    ("spec", V1_3): ALWAYS | SUSPEND | RESET2 | OFF2 | OPTIONAL | PROTECT,
    ("kvm-6.12", V1_0): ALWAYS,
    ("kvm-6.12", V1_1): ALWAYS | RESET2,
    ("qemu-7", V1_1): QEMU,
}
ASKED = sorted(
    {0x8000_0000, 0x8000_0001, 0x8000_0002, 0x8000_8000, 0, 0xFFFF_FFFF, 0xC500_0020, 0x8600_0000, 0x8400_0050}
    | {base + number for base in (0x8400_0000, 0xC400_0000) for number in range(0x20)}
    | set(range(0x95C1_BA5D, 0x95C1_BA63))
)


@pytest.mark.parametrize(("host", "version"), IMPLEMENTED, ids=str)
def test_exactly_the_implemented_functions_are_discovered(host: str, version: Version) -> None:
    firmware = make(host, psci=version)

    for fid in ASKED:
        flags = int(fid in OFF2 or (fid in CPU_SUSPEND and host == "spec"))
        value = flags if fid in IMPLEMENTED[host, version] else Psci.NOT_SUPPORTED
        assert call(firmware, 0x8400_000A, fid) == returned(host, value), hex(fid)


@pytest.mark.parametrize("fid", sorted(SUSPEND), ids=hex)
@pytest.mark.parametrize(("enabled", "answer"), [(frozenset(), -1), (frozenset({"system-suspend"}), 0)], ids=["without", "with"])
def test_kvm_discovers_system_suspend_with_the_capability(fid: int, enabled: frozenset[str], answer: int) -> None:
    assert call(make("kvm-6.12", capabilities=enabled), 0x8400_000A, fid) == returned("kvm-6.12", answer)


@pytest.mark.parametrize(("host", "version"), [pair for pair in HOST_VERSIONS if pair[1] in (V0_1, V0_2)], ids=str)
def test_there_is_no_psci_features_before_1_0(host: str, version: Version) -> None:
    firmware = make(host, psci=version)

    for fid in (0x8400_0000, 0x8000_0000, 0x8400_000A):
        assert call(firmware, 0x8400_000A, fid) == returned(host, Psci.NOT_SUPPORTED)


@pytest.mark.parametrize(("host", "answer"), [("spec", 0), ("kvm-6.12", 0), ("qemu-7", Psci.NOT_SUPPORTED)])
def test_all_hosts_but_qemu_look_at_the_low_half_of_the_argument(host: str, answer: int) -> None:
    assert call(make(host), 0x8400_000A, JUNK | 0x8400_0000) == returned(host, answer)


def test_the_version_register_changes_what_is_discovered() -> None:
    firmware = make("kvm-6.12")

    firmware.set_one_reg(0x6030_0000_0014_0000, 0x1_0000)
    assert call(firmware, 0x8400_000A, 0x8400_0012) == returned("kvm-6.12", Psci.NOT_SUPPORTED)
    firmware.set_one_reg(0x6030_0000_0014_0000, 0x1_0001)
    assert call(firmware, 0x8400_000A, 0x8400_0012) == returned("kvm-6.12", 0)
