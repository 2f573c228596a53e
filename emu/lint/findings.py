"""From runs to findings: each rule once for each call site, with the firmware it was seen on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from emu.lint.compared import BASE, Runs
from emu.lint.firmwares import Base, Firmware, Probe
from emu.lint.onetrace import Hit
from emu.lint.rules import Rule
from emu.lint.trace import Call, Site, Trace

_CALLS_SHOWN: Final = 5


@dataclass(slots=True, kw_only=True)
class Finding:
    """A rule that is broken, and where.

    site      the call site, None where there is no call to show
    function  what is called there, None for none or for an ID without a name
    calls     the last calls up to that one, or to the one that gives it away, in words
    line      file and line, where the image's DWARF has them
    firmware  what it was seen on
    """

    rule: Rule
    site: Site | None
    function: str | None
    detail: str
    calls: tuple[str, ...]
    line: tuple[str, int] | None = None
    firmware: list[str] = field(default_factory=list)


class Findings:
    """Judge runs, and keep what is found once."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = tuple(rules)
        self._found: dict[tuple[str, Site | None], Finding] = {}
        self._judged: set[str] = set()

    def judge(self, trace: Trace) -> None:
        """Judge one run by itself."""
        for rule in self._rules:
            if rule.one is not None:
                self._note(rule, rule.one(trace))

    def compare(self, runs: Runs) -> None:
        """Judge the runs of one host together."""
        for rule in self._rules:
            if all(name in runs for name in rule.needs):
                self._judged.add(rule.id)
                if rule.several is not None:
                    self._note(rule, rule.several(runs))

    def all(self) -> list[Finding]:
        """Return what was found, in the rules' order and then by address."""
        order = {rule.id: position for position, rule in enumerate(self._rules)}
        return sorted(self._found.values(), key=lambda each: (order[each.rule.id], each.site is not None, each.site or Site(0, None, 0)))

    def not_judged(self) -> list[Rule]:
        """Return the rules that lacked a run."""
        return [rule for rule in self._rules if rule.id not in self._judged]

    def _note(self, rule: Rule, hits: Iterator[Hit]) -> None:
        for hit in hits:
            call = None if hit.at is None else hit.trace.calls[hit.at]
            found = self._found.setdefault((rule.id, None if call is None else call.site), _finding(rule, hit, call))
            if hit.trace.firmware not in found.firmware:
                found.firmware.append(hit.trace.firmware)


def _finding(rule: Rule, hit: Hit, call: Call | None) -> Finding:
    last = hit.at if hit.seen is None else hit.seen
    end = len(hit.trace.calls) if last is None else last + 1
    calls = hit.trace.calls[max(0, end - _CALLS_SHOWN) : end]
    return Finding(
        rule=rule,
        site=None if call is None else call.site,
        function=None if call is None else call.function,
        detail=hit.detail,
        calls=tuple(f"cpu{each.vcpu} {each.conduit} {each.site}: {each.words}" for each in calls),
    )


def lint(
    bases: Iterable[Base],
    probes: Iterable[Probe],
    run: Callable[[Firmware], Trace],
    findings: Findings,
) -> list[Trace]:
    """Run the guest on every firmware and judge the runs; return them."""
    bases, probes = list(bases), list(probes)
    traces: dict[str, Trace] = {}

    def once(firmware: Firmware) -> Trace:
        if firmware.words not in traces:
            traces[firmware.words] = run(firmware)
            findings.judge(traces[firmware.words])
        return traces[firmware.words]

    plain = [once(base.firmware) for base in bases]
    for base, trace in zip(bases, plain, strict=True):
        findings.compare(_probed(base, trace, probes, once) if base.probed else {BASE: trace})
    return list(traces.values())


def _probed(base: Base, trace: Trace, probes: Iterable[Probe], run: Callable[[Firmware], Trace]) -> Mapping[str, Trace]:
    runs = {BASE: trace}
    for probe in probes:
        firmware = probe.firmware(base, trace)
        if firmware is not None:
            runs[probe.name] = run(firmware)
    return runs
