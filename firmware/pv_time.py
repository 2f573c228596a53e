"""Paravirtualised time: the stolen-time structure (DEN 0057)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from firmware.abi import Psci, Version
from firmware.host import Call, Config, Result, returns
from firmware.table import Discovery, Function, Handler, Query, Service
from firmware.trap import WriteMemory

PV_TIME_1_0: Final = Version(1, 0)

# DEN 0057, "Stolen time structure": revision u32 = 0, attributes u32 = 0, stolen time u64 in nanoseconds, padding to 64 bytes.
STOLEN_TIME_SIZE_BYTES: Final = 64
STOLEN_TIME_OFFSET_BYTES: Final = 8


def stolen_time_address(config: Config, vcpu: int) -> int | None:
    """Return the guest physical address of a vCPU's structure, or None where none is configured."""
    return None if config.pv_time_base is None else config.pv_time_base + vcpu * STOLEN_TIME_SIZE_BYTES


def pv_time_features(config: Config, discovery: Discovery) -> Mapping[int, Result | Handler]:
    """Say which functions of the service there are (DEN 0057, PV_TIME_FEATURES).

    Presence: where ARCH_FEATURES knows it. Convention: SMC64.
    x1  PV_call_id  32 bits
    Returns SUCCESS, or NOT_SUPPORTED; also that while no structure is configured (recorded answers, tests/vectors).
    """
    if config.pv_time_base is None and config.host.pv_time_needs_address:
        return {}
    return {fid: returns(Psci.SUCCESS) for fid in discovery("PV_TIME_FEATURES")}


def pv_time_st(call: Call) -> Result:
    """Return the address of the caller's stolen-time structure (DEN 0057, PV_TIME_ST).

    Presence: where PV_TIME_FEATURES knows it. Convention: SMC64.
    Returns the guest physical address of 64 bytes, which are initialised by the call, or NOT_SUPPORTED.
    """
    address = stolen_time_address(call.config, call.vcpu)
    if address is None:
        return returns(Psci.NOT_SUPPORTED)
    return returns(address, WriteMemory(address, bytes(STOLEN_TIME_SIZE_BYTES)))


_STD_HYP: Final = ("STD_HYP_BMAP", 0)

# fmt: off
ROWS: Final = (
    #        name                fid32 fid64        since        answer
    Function("PV_TIME_FEATURES", None, 0xC500_0020, PV_TIME_1_0, Query(pv_time_features), ("PV_call_id",),
             discovered_by=("SMCCC_ARCH_FEATURES", "PV_TIME_FEATURES"), bitmap=_STD_HYP, result="features"),
    Function("PV_TIME_ST",       None, 0xC500_0021, PV_TIME_1_0, pv_time_st, bitmap=_STD_HYP, result="word"),
)
# fmt: on

PV_TIME: Final = Service("PV time", ("PV_TIME_FEATURES",), lambda _config: PV_TIME_1_0, lambda _config: ROWS)
