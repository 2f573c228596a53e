"""KVM's vendor-specific hypervisor service (Linux Documentation/virt/kvm/arm/hypercalls.rst, ptp_kvm.rst)."""

from __future__ import annotations

from typing import Final

from firmware.abi import MASK32, Smccc, Version
from firmware.host import Call, Config, Result, returns
from firmware.table import Constant, Function, Service

_VERSION: Final = Version(1, 0)

# 28b46fb6-2ec5-11e9-a9ca-4b564d003a74
_KVM_UID: Final = (0xB66F_B428, 0xE911_C52E, 0x564B_CAA9, 0x743A_004D)

_NANOSECONDS: Final = 1_000_000_000
COUNTER_HZ: Final = 62_500_000  # CNTFRQ_EL0 of the machine, as of QEMU's virt; PTP and the guest's counter must agree
_COUNTERS: Final = (0, 1)  # virtual, physical: the machine has no offset between them


def call_uid(_config: Config) -> Result:
    """Return KVM's UID in w0 to w3 (DEN 0028, "General service queries").

    Presence: VENDOR_HYP_BMAP bit 0. Convention: SMC32.
    """
    return Result(_KVM_UID)


def vendor_features(config: Config) -> Result:
    """Return the bitmap of the service's functions (hypercalls.rst, ARM_SMCCC_VENDOR_HYP_KVM_FEATURES_FUNC_ID).

    Presence: VENDOR_HYP_BMAP bit 0. Convention: SMC32.
    Returns functions 0 to 31 in w0, 64 to 95 in w2.
    """
    return Result((config.bitmap("VENDOR_HYP_BMAP"), 0, config.bitmap("VENDOR_HYP_BMAP_2"), 0))


def ptp(call: Call) -> Result:
    """Return wall clock and counter of one instant (ptp_kvm.rst).

    Presence: VENDOR_HYP_BMAP bit 1. Convention: SMC32.
    x1  counter  0 virtual, 1 physical
    Returns the wall clock in nanoseconds in w0 (high) and w1, the counter in ticks in w2 (high) and w3; NOT_SUPPORTED for
    another counter.
    """
    if call.args[0] & MASK32 not in _COUNTERS:
        return returns(Smccc.NOT_SUPPORTED)
    wall_ns = call.config.wall_clock_ns + call.time_ns
    ticks = call.time_ns * COUNTER_HZ // _NANOSECONDS
    return Result((wall_ns >> 32 & MASK32, wall_ns & MASK32, ticks >> 32 & MASK32, ticks & MASK32))


_FEATURES: Final = ("VENDOR_HYP_BMAP", 0)
_PTP: Final = ("VENDOR_HYP_BMAP", 1)

# fmt: off
ROWS: Final = (
    #        name                  fid32        fid64 since     answer
    Function("VENDOR_HYP_FEATURES", 0x8600_0000, None, _VERSION, Constant(vendor_features), bitmap=_FEATURES, result="words"),
    Function("VENDOR_HYP_PTP",      0x8600_0001, None, _VERSION, ptp, ("counter",), bitmap=_PTP, result="words"),
    Function("VENDOR_HYP_CALL_UID", 0x8600_FF01, None, _VERSION, Constant(call_uid), bitmap=_FEATURES, result="words"),
)
# fmt: on

VENDOR_HYP: Final = Service("KVM vendor hypervisor", (), lambda _config: _VERSION, lambda _config: ROWS)
