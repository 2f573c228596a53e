"""The oracles: what is wrong with a run, held against the same guest on firmware on which it is right; and which call is to blame.

1. An oracle sees a trace, the reference's trace, and whether the firmware is older than the reference's; it runs nothing.
2. A run is blamed for one end alone: who crashes has not also lost a vCPU. Rules are broken beside that.
3. To blame is the first call that was answered otherwise than in the reference's run, on the vCPU that made it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from emu.lint.onetrace import Hit
from emu.lint.rules import RULES
from emu.lint.trace import Call, Trace
from emu.outcome import ExitCode
from firmware.abi import MASK32, Psci, Version

CRASH, HANG, DEADLOCK, LOST, RESULT = "crash", "hang", "deadlock", "lost-vcpu", "result"
_KINDS: Final[dict[int, str]] = {
    ExitCode.CRASH: CRASH,
    ExitCode.PANIC: CRASH,
    ExitCode.NO_PROGRESS: HANG,
    ExitCode.LIMIT: HANG,
    ExitCode.DEADLOCK: DEADLOCK,
}
_VERSIONS: Final = ("PSCI_VERSION", "SMCCC_VERSION")
_NO_SUCH_MAJOR: Final = 2
_NO_FAILURES: Final = (Psci.ALREADY_ON, Psci.ON_PENDING)  # the CPU is there, or will be


class Suspect(NamedTuple):
    """Something wrong with a run.

    oracle    crash, hang, deadlock, lost-vcpu, result, or rule:ID
    site      the call site to blame, as symbol+offset or an address; "" where there was no call
    function  what was called there
    answer    what was answered, as far as it matters: a major version, ALREADY_ON, ON_PENDING, "error", "error of 32 bits", "0", "other",
              "none"; "" for a rule's
    detail    one clause: what was seen, and what on the reference
    """

    oracle: str
    site: str
    function: str
    answer: str
    detail: str

    @property
    def cause(self) -> tuple[str, str]:
        """What makes two of them the same: a function that calls by HVC or by SMC does so in two places."""
        return self.oracle, f"{self.site.partition('+')[0]} {self.function} {self.answer}"


def suspects(trace: Trace, reference: Trace, *, may_lack: bool) -> Iterator[Suspect]:
    """Yield what is wrong with a run.

    may_lack  whether its firmware is older than the reference's: then fewer vCPUs and another result are no fault of the guest's
    """
    end = _end(trace, reference, may_lack=may_lack)
    if end is not None:
        oracle, detail = end
        call = _to_blame(trace, reference)
        yield Suspect(oracle, *_place(call), "" if call is None else _answer(call), detail)
    for rule in RULES:
        if rule.one is not None and rule.level == "error":
            yield from (Suspect(f"rule:{rule.id}", *_place(_call_of(hit)), "", hit.detail) for hit in rule.one(trace))


def _end(trace: Trace, reference: Trace, *, may_lack: bool) -> tuple[str, str] | None:
    kind, usual = _KINDS.get(trace.code), _KINDS.get(reference.code)
    if kind is not None and (kind != usual or reference.failed):
        return kind, _both(trace, reference)
    if may_lack or trace.code == ExitCode.RESET:
        return None
    if trace.cpus_up < reference.cpus_up:
        return LOST, f"{_cpus(trace)} up, on the reference {reference.cpus_up}; {trace.sentence}"
    if trace.failed or (trace.code != reference.code and not reference.failed):
        return RESULT, _both(trace, reference)
    return None


def _both(trace: Trace, reference: Trace) -> str:
    return (
        f"{trace.sentence}, as on the reference"
        if trace.sentence == reference.sentence
        else f"{trace.sentence}; on the reference: {reference.sentence}"
    )


def _cpus(trace: Trace) -> str:
    return f"{trace.cpus_up} vCPU{'' if trace.cpus_up == 1 else 's'}"


def _to_blame(trace: Trace, reference: Trace) -> Call | None:
    usual: dict[int, list[Call]] = {}
    for call in reference.calls:
        usual.setdefault(call.vcpu, []).append(call)
    made: dict[int, int] = {}
    for call in trace.calls:
        at = made[call.vcpu] = made.get(call.vcpu, 0) + 1
        others = usual.get(call.vcpu, [])
        if len(others) < at or _exchange(others[at - 1]) != _exchange(call):
            return call
    return trace.calls[-1] if trace.calls else None


def _exchange(call: Call) -> tuple[object, ...]:
    return call.site, call.x, call.returned


def _answer(call: Call) -> str:
    if call.returned is None or call.code is None:
        return "none"
    if call.code in _NO_FAILURES:
        return Psci(call.code).name
    if call.code < 0:
        return "error" if call.returned > MASK32 else "error of 32 bits"
    if call.function in _VERSIONS:
        version = Version.from_word(call.code)
        return "0.0" if version == Version(0, 0) else f"{version.major}.x" if version.major < _NO_SUCH_MAJOR else "2.0 or more"
    return "0" if call.code == 0 else "other"


def _call_of(hit: Hit) -> Call | None:
    return None if hit.at is None else hit.trace.calls[hit.at]


def _place(call: Call | None) -> tuple[str, str]:
    return ("", "") if call is None else (str(call.site), call.function or "")
