"""True Random Number Generator firmware interface (DEN 0098), on seeded entropy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from firmware.abi import MASK32, MASK64, Trng, Version
from firmware.host import Call, Config, Result, returns
from firmware.table import Constant, Discovery, Function, Handler, Query, Service, discovered

TRNG_1_0: Final = Version(1, 0)

_RND32_REGISTER_BITS: Final = 32
_RND64_REGISTER_BITS: Final = 64
_RESULT_REGISTERS: Final = 3


def trng_version(_config: Config) -> Result:
    """Return the interface's version (DEN 0098, TRNG_VERSION).

    Presence: mandatory. Convention: SMC32.
    Returns major in bits 30:16, minor in bits 15:0.
    """
    return returns(TRNG_1_0.word)


def trng_get_uuid(config: Config) -> Result:
    """Return the back end's UUID in w0 to w3 (DEN 0098, TRNG_GET_UUID).

    Presence: mandatory. Convention: SMC32.
    """
    return Result(config.host.trng_uuid)


def trng_rnd32(call: Call) -> Result:
    """Return up to 96 bits of entropy (DEN 0098, TRNG_RND32).

    Presence: mandatory. Convention: SMC32.
    x1  N  how many bits, 1 to 96
    Returns SUCCESS and the bits, right-aligned, in w1 (most significant) to w3; INVALID_PARAMETERS for another N. Whether N = 0
    succeeds is a column.
    """
    return _rnd(call, _RND32_REGISTER_BITS)


def trng_rnd64(call: Call) -> Result:
    """Return up to 192 bits of entropy (DEN 0098, TRNG_RND64).

    Presence: mandatory for an AArch64 caller. Convention: SMC64.
    x1  N  how many bits, 1 to 192
    Returns as TRNG_RND32, in x1 to x3.
    """
    return _rnd(call, _RND64_REGISTER_BITS)


def _rnd(call: Call, register_bits: int) -> Result:
    bits = call.args[0] & MASK32
    if bits > register_bits * _RESULT_REGISTERS or (bits == 0 and not call.host.trng_zero_bits):
        return returns(Trng.INVALID_PARAMETERS)
    entropy = call.entropy.take(bits) if bits else 0
    mask = (1 << register_bits) - 1
    return Result((Trng.SUCCESS, *(entropy >> shift * register_bits & mask for shift in (2, 1, 0))))


def trng_features(config: Config, discovery: Discovery) -> Mapping[int, Result | Handler]:
    """Say whether a function of the service is implemented (DEN 0098, TRNG_FEATURES).

    Presence: mandatory. Convention: SMC32.
    x1  trng_func_id  32 bits
    Returns SUCCESS, or NOT_SUPPORTED. Where the host does not truncate, all of x1 is compared (Linux arch/arm64/kvm/trng.c).
    """
    return discovered("TRNG_FEATURES")(config, discovery)


_STD: Final = ("STD_BMAP", 0)

# fmt: off
ROWS: Final = (
    #        name             fid32        fid64        since     answer
    Function("TRNG_VERSION",  0x8400_0050, None,        TRNG_1_0, Constant(trng_version), bitmap=_STD, result="version"),
    Function("TRNG_FEATURES", 0x8400_0051, None,        TRNG_1_0, Query(trng_features, mask=MASK64),
             ("trng_func_id",), bitmap=_STD, result="trng"),
    Function("TRNG_GET_UUID", 0x8400_0052, None,        TRNG_1_0, Constant(trng_get_uuid), bitmap=_STD, result="words"),
    Function("TRNG_RND32",    0x8400_0053, None,        TRNG_1_0, trng_rnd32, ("N",), bitmap=_STD, result="trng"),
    Function("TRNG_RND64",    None,        0xC400_0053, TRNG_1_0, trng_rnd64, ("N",), bitmap=_STD, result="trng"),
)
# fmt: on

TRNG: Final = Service("TRNG", ("TRNG_FEATURES",), lambda _config: TRNG_1_0, lambda _config: ROWS)
