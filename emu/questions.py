"""Every question that tells two firmwares apart: each function by each of its IDs, with arguments on which hosts are known to differ.

An answer is all that a guest would notice: the reply, and where a CPU begins that was started, or the caller after a sleep.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from firmware.abi import SMC64, SVE_HINT
from firmware.dispatch import Firmware, rows
from firmware.host import Config
from firmware.table import Function
from firmware.trap import Conduit, Enter, Reply, Reset, Trap, Woken

ENTRY: Final = 0x4008_0000
_CONTEXT: Final = 0x1122_3344_5566_7788
_JUNK: Final = 1 << 32  # an upper half that an SMC32 caller does not know it has
_OUTSIDE: Final = 1 << 40  # a bit outside the affinity fields

# For each argument's name the values worth asking; the first is what it has while another one is varied.
_VALUES: Final[dict[str, tuple[int, ...]]] = {
    "target_cpu": (1, 0, 0x55, _JUNK | 1, _OUTSIDE | 1),
    "target_affinity": (1, 0, 0x55, _JUNK | 1, _OUTSIDE | 1),
    "lowest_affinity_level": (0, 1, 3, 4, _JUNK),
    "power_level": (0, 1, 2, 3),
    "power_state": (0, 0x1, 0x1_0000, 0x101_0000, 0x301_0000, 0x100_0000, 0x4000_0000, 0x8000_0000),
    "entry_point_address": (ENTRY, ENTRY + 1, ENTRY + 2, 0),
    "context_id": (_CONTEXT,),
    "reset_type": (0, 1, 0x8000_0000),
    "off_type": (1, 0, 2),
    "cookie": (0, 1),
    "base": (ENTRY, 0),
    "length": (4, 0),
    "N": (32, 0, 96, 193),
}
_ANY_OTHER: Final = (0, 1, 2)
_ASKS_ABOUT_AN_ID: Final = frozenset({"psci_func_id", "arch_func_id", "trng_func_id", "PV_call_id"})

# IDs that are no function's: of owners that hosts treat each in its own way, and a yielding call.
_NAMELESS: Final = (0x8400_0BAD, 0x8400_001F, 0x8000_0BAD, 0x8100_0BAD, 0x8200_0BAD, 0x8500_0BAD, 0x8600_0BAD, 0xB200_0BAD, 0x0400_0BAD)
_PSCI_VERSION: Final = 0x8400_0000
_CPU_ON: Final = (0xC400_0003, 1, ENTRY, _CONTEXT)
_AFFINITY_INFO: Final = 0xC400_0004
_SYSTEM_SUSPEND: Final = 0xC400_000E


class Question(NamedTuple):
    """A call by vCPU 0.

    words     the call as it reads
    regs      x0 to x3
    about     the argument that is not as usual, or what a discovery call is asked about; empty for the usual call
    after_on  whether CPU_ON of vCPU 1 goes before, and whether that has begun; None: nothing goes before
    """

    words: str
    regs: tuple[int, ...]
    imm: int = 0
    after_on: bool | None = None
    about: str = ""


class Answer(NamedTuple):
    """What becomes of a call: its reply, and where vCPU 1 and the caller begin, if they do."""

    reply: Reply
    other: Reply
    caller: Reply


def questions(*configs: Config) -> Iterator[Question]:
    """Yield every question about the functions that any of the configurations names."""
    named: dict[int, str] = {}
    functions: dict[int, Function] = {}
    for config in configs:
        for service, function in rows(config):
            for fid in function.fids:
                named[fid] = _name(fid, function, service.name == "PSCI 0.1")
                functions[fid] = function
    for fid in sorted(named):
        yield from _about(named[fid], fid, functions[fid], named)
    for fid in _NAMELESS:
        yield Question(f"{fid:#010x}, no function's ID", (fid,))
    yield from _forms()
    yield from _after_on()


def ask(firmware: Firmware, question: Question, conduit: Conduit) -> Answer:
    """Ask a firmware that is as after a reset, and leave it so."""
    if question.after_on is not None:
        firmware.handle(_trap(conduit, _CPU_ON))
        if question.after_on:
            firmware.handle(Enter(1))
    answer = Answer(firmware.handle(_trap(conduit, question.regs, question.imm)), firmware.handle(Enter(1)), firmware.handle(Woken(0)))
    firmware.handle(Reset())
    return answer


def _trap(conduit: Conduit, regs: tuple[int, ...], imm: int = 0) -> Trap:
    x0, x1, x2, x3 = (*regs, 0, 0, 0)[:4]
    return Trap(0, conduit, (x0, x1, x2, x3), imm)


def _name(fid: int, function: Function, by_0_1_id: bool) -> str:
    if by_0_1_id:
        return f"{function.name} by {fid:#010x}"
    if function.fid64 is None:
        return function.name
    return f"{function.name}, {'SMC32' if fid == function.fid32 else 'SMC64'}"


def _about(name: str, fid: int, function: Function, named: dict[int, str]) -> Iterator[Question]:
    if function.args and function.args[0] in _ASKS_ABOUT_AN_ID:
        for about in sorted(named):
            yield Question(function.name, (fid, about), about=named[about])
        yield Question(function.name, (fid, _NAMELESS[0]), about=f"{_NAMELESS[0]:#x}")
        yield Question(function.name, (fid, _JUNK | _PSCI_VERSION), about="PSCI_VERSION, upper half set")
        return
    values = [_VALUES.get(argument, _ANY_OTHER) for argument in function.args]
    usual = tuple(each[0] for each in values)
    yield Question(name, (fid, *usual))
    for position, argument in enumerate(function.args):
        for value in values[position][1:]:
            yield Question(name, (fid, *usual[:position], value, *usual[position + 1 :]), about=f"{argument}={value:#x}")


def _forms() -> Iterator[Question]:
    yield Question("PSCI_VERSION, immediate 1", (_PSCI_VERSION,), imm=1)
    yield Question("PSCI_VERSION, upper half of x0 set", (_JUNK | _PSCI_VERSION,))
    yield Question("PSCI_VERSION with SMCCC 1.3's hint", (_PSCI_VERSION | SVE_HINT,))
    yield Question("PSCI_VERSION as SMC64", (_PSCI_VERSION | SMC64,))


def _after_on() -> Iterator[Question]:
    for begun, when in ((False, "the other CPU is starting"), (True, "the other CPU is on")):
        yield Question(f"CPU_ON, {when}", _CPU_ON, after_on=begun)
        yield Question(f"AFFINITY_INFO, {when}", (_AFFINITY_INFO, 1), after_on=begun)
        yield Question(f"AFFINITY_INFO, level 1, {when}", (_AFFINITY_INFO, 1, 1), after_on=begun)
        yield Question(f"SYSTEM_SUSPEND, {when}", (_SYSTEM_SUSPEND, ENTRY), after_on=begun)
        yield Question(f"SYSTEM_SUSPEND to an odd entry, {when}", (_SYSTEM_SUSPEND, ENTRY + 1), after_on=begun)
