"""What the rules over several runs do: the same guest on the same host, with one thing of the firmware changed from run to run.

A run is fine if it went as well as the best of them: the guest did not fail, and as many CPUs came up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from emu.lint.onetrace import Hit
from emu.lint.trace import Call, Trace
from emu.outcome import ExitCode
from firmware.abi import MASK32, Psci

# The runs of one host by what was changed; "" is the host as it is, "reference" the same without the user's faults.
Runs = Mapping[str, Trace]

BASE: Final = ""
REFERENCE: Final = "reference"
_HANGS: Final = (ExitCode.DEADLOCK, ExitCode.NO_PROGRESS, ExitCode.LIMIT)
_LAST_OF_0_2: Final = 0x09


def _fine(runs: Runs, *names: str) -> bool:
    """Say whether all these runs are there and fine."""
    best = min(run.outcome for run in runs.values())
    return all(name in runs and runs[name].outcome == best for name in names)


def _bad(runs: Runs, *names: str) -> bool:
    return all(name in runs and not _fine(runs, name) for name in names)


def _hit(trace: Trace, is_it: Callable[[Call], bool], detail: str) -> Iterator[Hit]:
    """Yield the last call of a run that is to blame."""
    found = [at for at, call in enumerate(trace.calls) if is_it(call)]
    if found:
        yield Hit(trace, found[-1], f"{detail}: {trace.sentence}, {trace.cpus_up} CPU{'' if trace.cpus_up == 1 else 's'} up")


def _of(function: str) -> Callable[[Call], bool]:
    return lambda call: call.function == function


# ---- the version


def version_exact_compare(runs: Runs) -> Iterator[Hit]:
    if _fine(runs, "0.2") and _bad(runs, "1.0", "1.1", "1.3"):
        yield from _hit(runs["1.0"], _of("PSCI_VERSION"), "fine with 0.2 and not with 1.0")


def minor_pinned(runs: Runs) -> Iterator[Hit]:
    if _fine(runs, "1.0") and _bad(runs, "1.1", "1.3"):
        yield from _hit(runs["1.1"], _of("PSCI_VERSION"), "fine with 1.0 and not with 1.1")


def version_whitelist(runs: Runs) -> Iterator[Hit]:
    if not (_fine(runs, "1.1") and _bad(runs, "0.2", "1.3")):
        return
    if all((call.number or 0) <= _LAST_OF_0_2 for call in runs["1.1"].calls):
        yield from _hit(runs["1.3"], _of("PSCI_VERSION"), "fine with 1.1, neither with 0.2 nor with 1.3, and calls nothing that 0.2 lacks")


def version_ceiling(runs: Runs) -> Iterator[Hit]:
    for highest, newer in (("1.1", "1.2"), ("1.2", "1.3")):
        if _fine(runs, "0.2", "1.0", "1.1", highest) and _bad(runs, newer, "1.3"):
            yield from _hit(runs[newer], _of("PSCI_VERSION"), f"fine up to {highest} and not with {newer}")


def major_pinned(runs: Runs) -> Iterator[Hit]:
    if _fine(runs, "1.3") and _bad(runs, "2.0"):
        yield from _hit(runs["2.0"], _of("PSCI_VERSION"), "fine with 1.3 and not with 2.0")


def version_zero(runs: Runs) -> Iterator[Hit]:
    if _fine(runs, "version 0.1") and _bad(runs, "version 0.0"):
        yield from _hit(runs["version 0.0"], _of("PSCI_VERSION"), "fine where PSCI_VERSION answers 0.1 and not where it answers 0.0")


# ---- the SMCCC version, where it is an error


def _failed(runs: Runs, name: str) -> bool | None:
    # Whether fewer CPUs come up does not matter here: without SMCCC 1.1 a guest may well have less to do.
    return runs[name].failed if name in runs else None


def smccc_unsigned(runs: Runs) -> Iterator[Hit]:
    if [_failed(runs, name) for name in ("smccc 1.1", "smccc 0.1", "smccc -1")] == [False, False, True]:
        yield from _hit(runs["smccc -1"], _of("SMCCC_VERSION"), "fine where it answers 0.1 and not where it answers NOT_SUPPORTED")


def result_signedness(runs: Runs) -> Iterator[Hit]:
    if [_failed(runs, name) for name in ("smccc 1.1", "smccc 0.1", "smccc -1")] == [False, True, True]:
        yield from _hit(runs["smccc -1"], _of("SMCCC_VERSION"), "NOT_SUPPORTED is taken for a version, as is whatever else is not 0")


# ---- the device tree


def _calls(runs: Runs, name: str) -> bool:
    return name in runs and bool(runs[name].calls)


def _silent(runs: Runs, name: str) -> bool:
    return name in runs and not runs[name].calls


def _never_called(runs: Runs, name: str, detail: str) -> Iterator[Hit]:
    # What is wrong is the call that is not made: it is shown where it is.
    yield Hit(runs[name], 0, detail)


def compat_0_2_only(runs: Runs) -> Iterator[Hit]:
    if _calls(runs, "tree 1.0, 0.2") and _silent(runs, "tree 1.0") and _silent(runs, "tree 1.1, 1.0"):
        yield from _never_called(runs, "tree 1.0, 0.2", "this is never reached where the psci node has arm,psci-1.0 alone")


def compat_0_1_required(runs: Runs) -> Iterator[Hit]:
    if _calls(runs, "tree 1.0, 0.2, 0.1") and _silent(runs, "tree 1.0, 0.2"):
        yield from _never_called(runs, "tree 1.0, 0.2, 0.1", "this is never reached where the psci node does not have arm,psci")


def compat_unknown(runs: Runs) -> Iterator[Hit]:
    if _calls(runs, "tree 1.1, 1.0") and _silent(runs, "tree 1.0"):
        yield from _never_called(runs, "tree 1.1, 1.0", "this is reached by arm,psci-1.1, which no binding has, and not by arm,psci-1.0")


# ---- registers


def _is_zero_extended_error(call: Call) -> bool:
    return call.returned is not None and call.returned <= MASK32 and (call.code or 0) < 0


def result_width(runs: Runs) -> Iterator[Hit]:
    if _bad(runs, "errors 32") and any(_fine(runs, name) for name in ("errors 64", REFERENCE)):
        yield from _hit(runs["errors 32"], _is_zero_extended_error, "fine where errors are 64 bits wide and not where w0 alone is written")


def _clobbered(runs: Runs, name: str, intact: tuple[str, ...], detail: str) -> Iterator[Hit]:
    if _bad(runs, name) and any(_fine(runs, each) for each in intact):
        yield from _hit(runs[name], lambda call: call.returned is not None, detail)


def clobber_missing(runs: Runs) -> Iterator[Hit]:
    yield from _clobbered(runs, "poison x1-x3", ("x0 alone", REFERENCE), "fine where x0 alone changes and not where x1 to x3 do")


def clobber_1_0(runs: Runs) -> Iterator[Hit]:
    yield from _clobbered(runs, "poison x4-x17", (BASE, REFERENCE), "fine where a call keeps x4 to x17 and not where it changes them")


# ---- other CPUs


def on_pending(runs: Runs) -> Iterator[Hit]:
    if _bad(runs, "CPU_ON pending") and any(_fine(runs, name) for name in (BASE, REFERENCE)):
        trace = runs["CPU_ON pending"]
        yield from _hit(trace, lambda call: call.function == "CPU_ON" and call.code == Psci.ON_PENDING, "ON_PENDING is not followed up")


def no_timeout(runs: Runs) -> Iterator[Hit]:
    ended = any(name in runs and runs[name].code not in (*_HANGS, ExitCode.CRASH) for name in (BASE, REFERENCE))
    for name, what in (("CPU_ON fails", "refused with INTERNAL_FAILURE"), ("CPU_ON lost", "answered SUCCESS and no CPU came")):
        if ended and name in runs and runs[name].code in _HANGS:
            yield from _hit(runs[name], _of("CPU_ON"), f"CPU_ON was {what}, and the guest never ends")
