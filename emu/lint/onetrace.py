"""What the rules over one run do: each yields the calls at which its rule is broken.

A run tells what a guest called and what it was answered, not what it concluded: a rule here fires on what was called although no
earlier answer permitted it, or on an argument that no answer could make right.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from emu.lint.trace import Call, Trace, version_of
from emu.outcome import ExitCode
from firmware.abi import AFFINITY_FIELDS, MASK32, MASK64, OWNER_MASK, OWNER_SHIFT, PSCI_1_0, SMC64, SMCCC_1_1, Psci

# What stands below the stack pointer in a run that is scribbled on: the two halves alike, so that a W register has it too.
SCRIBBLE: Final = 0x0BAD_57AC_0BAD_57AC

_SMCCC_VERSION: Final = 0x8000_0000
_ARCH_DISCOVERY: Final = (0x8000_0000, 0x8000_0001)
_ARCH_OWNER, _VENDOR_HYP_OWNER = 0, 6
_GENERAL_QUERIES: Final = 0xFF00  # DEN 0028, "General service queries": count, UID and revision
_VENDOR_HYP_UID: Final = 0x8600_FF01
_FEATURES: Final = 0x0A
_FIRST_OPTIONAL: Final = 0x0B
_CPU_SUSPEND, _SET_SUSPEND_MODE = 0x8400_0001, 0x0F

# DEN 0022, CPU_SUSPEND, power_state: StateID, StateType and PowerLevel of the original format, StateType and StateID of the extended.
_ORIGINAL_FORMAT: Final = 0x0301_FFFF
_EXTENDED_FORMAT: Final = 0x4FFF_FFFF
# PSCI_FEATURES of CPU_SUSPEND.
_OS_INITIATED_BIT, _EXTENDED_BIT = 1 << 0, 1 << 1

_ENDS_NOWHERE: Final = (ExitCode.DEADLOCK, ExitCode.NO_PROGRESS, ExitCode.LIMIT)
_SPEAKS_OF_RESET: Final = re.compile(r"\b(?:reboot|reset|restart)", re.IGNORECASE)
_LAST_WORDS: Final = 200


class Hit(NamedTuple):
    """Where a rule is broken, and how.

    at    the position in the run of the call to blame, None where what is wrong is that there is none
    seen  the position of the call that gives it away, None where that is the same one
    """

    trace: Trace
    at: int | None
    detail: str
    seen: int | None = None


class _Answers(NamedTuple):
    """What has been answered so far."""

    by_function: dict[str, Call]
    features: dict[int, int | None]  # by the function ID that PSCI_FEATURES was asked for
    arch_features: dict[int, int | None]

    @property
    def of_cpu_suspend(self) -> int:
        """What PSCI_FEATURES said of CPU_SUSPEND, 0 where nobody asked or it was refused."""
        return max(0, *(self.features.get(fid) or 0 for fid in (_CPU_SUSPEND, _CPU_SUSPEND | SMC64)))

    def note(self, call: Call) -> None:
        if call.function is not None:
            self.by_function[call.function] = call
        if call.function == "PSCI_FEATURES":
            self.features[call.x[1] & MASK32] = call.code
        elif call.function == "SMCCC_ARCH_FEATURES":
            self.arch_features[call.x[1] & MASK32] = call.code


_Check = Callable[[Trace, Call, _Answers], str | None]


def _each(check: _Check) -> Callable[[Trace], Iterator[Hit]]:
    """Make a rule of a check that sees each call with what was answered before it."""

    def rule(trace: Trace) -> Iterator[Hit]:
        answers = _Answers({}, {}, {})
        for at, call in enumerate(trace.calls):
            detail = check(trace, call, answers)
            if detail is not None:
                yield Hit(trace, at, detail)
            answers.note(call)

    return rule


def _owner(call: Call) -> int:
    return call.fid >> OWNER_SHIFT & OWNER_MASK


def _misread(asks: Callable[[Call], bool], gives_away: Callable[[Call], bool]) -> Callable[[Trace], Iterator[Hit]]:
    """Make a rule that blames a question whose answer was an error, once a call follows that only a better answer would permit."""

    def rule(trace: Trace) -> Iterator[Hit]:
        blamed: int | None = None
        for at, call in enumerate(trace.calls):
            if asks(call):
                blamed = at if call.code is not None and call.code < 0 else None
            elif blamed is not None and gives_away(call):
                answered = trace.calls[blamed]
                detail = f"{answered.function} answered {answered.code}, and {_named(call)} is called all the same"
                yield Hit(trace, blamed, detail, at)
                blamed = None

    return rule


def _named(call: Call) -> str:
    return call.function or hex(call.fid)


# ---- versions and discovery

# What is called without asking PSCI_FEATURES is called whatever the version: that is another rule's.
version_unsigned: Final = _misread(lambda call: call.function == "PSCI_VERSION", lambda call: call.number == _FEATURES)
smccc_unsigned: Final = _misread(
    lambda call: call.fid == _SMCCC_VERSION,
    lambda call: _owner(call) == _ARCH_OWNER and bool(call.fid >> 31) and call.fid != _SMCCC_VERSION,
)


@_each
def features_before_1_0(trace: Trace, call: Call, answers: _Answers) -> str | None:
    if call.number != _FEATURES or trace.tree.promises_1_0:
        return None
    asked = answers.by_function.get("PSCI_VERSION")
    if asked is None:
        return "PSCI_FEATURES is called, and nobody has asked for the version"
    version = version_of(asked)
    return None if version is None or version >= PSCI_1_0 else f"PSCI_FEATURES is called, and the version is {version}"


@_each
def smccc_version_unguarded(_trace: Trace, call: Call, answers: _Answers) -> str | None:
    if call.fid != _SMCCC_VERSION:
        return None
    if _SMCCC_VERSION not in answers.features:
        return "SMCCC_VERSION is called, and PSCI_FEATURES was not asked whether there is one"
    answered = answers.features[_SMCCC_VERSION]
    return "SMCCC_VERSION is called, and PSCI_FEATURES had refused it" if answered in (None, Psci.NOT_SUPPORTED) else None


@_each
def arch_features_unguarded(_trace: Trace, call: Call, answers: _Answers) -> str | None:
    if call.function != "SMCCC_ARCH_FEATURES":
        return None
    asked = answers.by_function.get("SMCCC_VERSION")
    if asked is None or asked.code is None:
        return "SMCCC_ARCH_FEATURES is called, and nobody knows the SMCCC version"
    version = version_of(asked)
    return None if version is None or version >= SMCCC_1_1 else f"SMCCC_ARCH_FEATURES is called, and SMCCC is {version}"


@_each
def arch_call_unguarded(_trace: Trace, call: Call, answers: _Answers) -> str | None:
    is_arch = _owner(call) == _ARCH_OWNER and call.fid >> 31 and call.function is not None
    if not is_arch or call.fid in _ARCH_DISCOVERY or call.fid & _GENERAL_QUERIES == _GENERAL_QUERIES:
        return None
    answered = answers.arch_features.get(call.fid, Psci.NOT_SUPPORTED)
    if answered is not None and answered >= 0:
        return None
    known = "had refused it" if call.fid in answers.arch_features else "was not asked whether there is one"
    return f"{call.function} is called, and SMCCC_ARCH_FEATURES {known}"


@_each
def optional_without_features(trace: Trace, call: Call, answers: _Answers) -> str | None:
    if (call.number or 0) < _FIRST_OPTIONAL or call.fid in trace.tree.ids:
        return None
    if call.number == _SET_SUSPEND_MODE and answers.of_cpu_suspend & _OS_INITIATED_BIT:
        return None  # DEN 0022, SET_SUSPEND_MODE: whoever has the mode has the call
    if call.fid not in answers.features:
        return f"{_named(call)} is called, and PSCI_FEATURES was not asked whether there is one"
    answered = answers.features[call.fid]
    return f"{call.function} is called, and PSCI_FEATURES had refused it" if answered in (None, Psci.NOT_SUPPORTED) else None


def features_ne_minus_one(trace: Trace) -> Iterator[Hit]:
    refused: dict[int, int] = {}  # by function ID: where PSCI_FEATURES was asked last, if it refused, and not with -1
    for at, call in enumerate(trace.calls):
        if call.function == "PSCI_FEATURES":
            refused.pop(call.x[1] & MASK32, None)
            if call.code is not None and call.code < 0 and call.code != Psci.NOT_SUPPORTED:
                refused[call.x[1] & MASK32] = at
        elif call.fid in refused:
            asked = refused.pop(call.fid)
            yield Hit(trace, asked, f"PSCI_FEATURES answered {trace.calls[asked].code} for {_named(call)}, and it is called", at)


@_each
def vendor_hyp_without_uid(_trace: Trace, call: Call, answers: _Answers) -> str | None:
    if _owner(call) != _VENDOR_HYP_OWNER or not call.fid >> 31 or call.fid & _GENERAL_QUERIES == _GENERAL_QUERIES:
        return None
    uid = next((each for each in answers.by_function.values() if each.fid == _VENDOR_HYP_UID), None)
    if uid is not None and uid.code != Psci.NOT_SUPPORTED:
        return None
    return f"{_named(call)} is one vendor's, and nobody has asked whose hypervisor this is"


@_each
def ids_not_from_node(trace: Trace, call: Call, _answers: _Answers) -> str | None:
    if not trace.tree.is_0_1_alone or call.number is None or call.fid in trace.tree.ids:
        return None
    return f"{call.fid:#x} is called, and the psci node promises its own IDs alone"


# ---- conduits


@_each
def conduit_hardcoded(trace: Trace, call: Call, _answers: _Answers) -> str | None:
    method = trace.tree.method
    if method is None or call.conduit == method:
        return None
    return f"called by {call.conduit.upper()}, and the psci node's method is {method}"


@_each
def imm_nonzero(_trace: Trace, call: Call, _answers: _Answers) -> str | None:
    return f"the immediate is {call.imm:#x}" if call.imm else None


# ---- arguments


def _argument(call: Call, number: int) -> int:
    return call.x[number] & (MASK64 if call.fid & SMC64 else MASK32)


@_each
def cpu_on_32_with_64bit_entry(_trace: Trace, call: Call, _answers: _Answers) -> str | None:
    is_smc32 = call.function == "CPU_ON" and call.number is not None and not call.fid & SMC64
    return f"entry_point_address is {call.x[2]:#x}, and the call is SMC32's" if is_smc32 and call.x[2] >> 32 else None


def mpidr_aff0_only(trace: Trace) -> Iterator[Hit]:
    missing = _missing(trace)
    for at, target_cpu, code in _targets(trace):
        wanted = sorted(mpidr for mpidr in missing if mpidr != target_cpu and mpidr & AFFINITY_FIELDS[0] == target_cpu)
        if wanted and (target_cpu not in trace.tree.mpidrs or code == Psci.ALREADY_ON):
            yield Hit(trace, at, f"target_cpu is {target_cpu:#x}, and {_listed(wanted)} of the device tree is never asked for")


def mpidr_hardcoded(trace: Trace) -> Iterator[Hit]:
    missing = sorted(_missing(trace))
    for at, target_cpu, code in _targets(trace):
        is_aff0 = any(mpidr & AFFINITY_FIELDS[0] == target_cpu for mpidr in missing)
        if missing and target_cpu not in trace.tree.mpidrs and not is_aff0 and code != Psci.SUCCESS:
            yield Hit(trace, at, f"target_cpu is {target_cpu:#x}, and {_listed(missing)} of the device tree is never asked for")


def _missing(trace: Trace) -> set[int]:
    """Return the device tree's CPUs that nobody asks for."""
    return set(trace.tree.mpidrs[1:]) - {target_cpu for _, target_cpu, _ in _targets(trace)}


def _targets(trace: Trace) -> Iterator[tuple[int, int, int | None]]:
    return ((at, _argument(call, 1), call.code) for at, call in enumerate(trace.calls) if call.function == "CPU_ON")


def _listed(mpidrs: list[int]) -> str:
    return ", ".join(map(hex, mpidrs))


@_each
def context_uninit(_trace: Trace, call: Call, _answers: _Answers) -> str | None:
    if call.function != "CPU_ON" or call.x[3] & MASK32 != SCRIBBLE & MASK32:
        return None
    return "context_id is what stood below the stack pointer a moment before"


@_each
def up_cpu_after_type_2(_trace: Trace, call: Call, answers: _Answers) -> str | None:
    if call.function != "MIGRATE_INFO_UP_CPU":
        return None
    asked = answers.by_function.get("MIGRATE_INFO_TYPE")
    if asked is None:
        return "MIGRATE_INFO_UP_CPU is called, and MIGRATE_INFO_TYPE was not"
    return None if asked.code in (0, 1) else f"MIGRATE_INFO_UP_CPU is called, and MIGRATE_INFO_TYPE answered {asked.code}"


@_each
def migrate_type_ignored(_trace: Trace, call: Call, answers: _Answers) -> str | None:
    if call.function != "CPU_OFF" or call.code != Psci.DENIED or "MIGRATE_INFO_TYPE" in answers.by_function:
        return None
    return "CPU_OFF is DENIED on the Trusted OS's CPU, and MIGRATE_INFO_TYPE was never asked"


@_each
def cpu_off_arg(trace: Trace, call: Call, _answers: _Answers) -> str | None:
    power_state = call.x[1]
    if call.function != "CPU_OFF" or call.number is None or trace.tree.is_0_1_alone:
        return None
    looks_like_one = 0 < power_state <= MASK32 and not power_state & ~_ORIGINAL_FORMAT
    return f"CPU_OFF is called with a power_state, {power_state:#x}" if looks_like_one else None


@_each
def powerstate_format(_trace: Trace, call: Call, answers: _Answers) -> str | None:
    if call.function != "CPU_SUSPEND" or call.number is None:
        return None
    extended = bool(answers.of_cpu_suspend & _EXTENDED_BIT)
    power_state = call.x[1] & MASK32
    mine, other = (_EXTENDED_FORMAT, _ORIGINAL_FORMAT) if extended else (_ORIGINAL_FORMAT, _EXTENDED_FORMAT)
    if not power_state & ~mine or power_state & ~other:
        return None
    known = "PSCI_FEATURES said" if answers.features else "nobody has asked, so it is"
    return f"power_state is {power_state:#x}, and the format is the {'extended' if extended else 'original'} one: {known} so"


@_each
def off2_type(_trace: Trace, call: Call, _answers: _Answers) -> str | None:
    return "off_type is 0" if call.function == "SYSTEM_OFF2" and not call.x[1] & MASK32 else None


# ---- the end


def reset_missing(trace: Trace) -> Iterator[Hit]:
    if trace.code not in _ENDS_NOWHERE or not trace.tree.compatible or trace.tree.is_0_1_alone:
        return
    if any(trace.of("SYSTEM_RESET", "SYSTEM_RESET2", "SYSTEM_OFF", "SYSTEM_OFF2")):
        return
    last_words = trace.console[-_LAST_WORDS:].strip().splitlines()[-1:]
    if last_words and _SPEAKS_OF_RESET.search(last_words[0]):
        at = len(trace.calls) - 1 if trace.calls else None
        yield Hit(trace, at, f"it ends nowhere, its last words are {last_words[0]!r}, and SYSTEM_RESET was not called")
