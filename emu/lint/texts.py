"""Findings as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from emu.lint.findings import Finding
from emu.lint.probes import PROBES
from emu.lint.rules import Rule
from emu.lint.trace import Trace


def as_text(findings: Iterable[Finding]) -> Iterator[str]:
    """Spell each finding: the rule, where, how, why, on what, and the calls that led there."""
    for finding in findings:
        rule = finding.rule
        yield f"{rule.id}: {rule.title}" + (" (for information)" if rule.level == "note" else "")
        yield f"  at    {place(finding)}"
        yield f"  how   {finding.detail}"
        yield f"  why   {rule.reason}"
        yield f"  see   {rule.source}"
        yield f"  on    {finding.firmware[0]}" + (f" and {len(finding.firmware) - 1} more" if len(finding.firmware) > 1 else "")
        for position, call in enumerate(finding.calls):
            yield f"  {'' if position else 'calls':<5} {call}"
        yield ""


def place(finding: Finding) -> str:
    """Spell where a finding is."""
    if finding.site is None:
        return "no call at all"
    line = "" if finding.line is None else f", {finding.line[0]}:{finding.line[1]}"
    return f"{finding.site}{line}" + (f", {finding.function}" if finding.function else "")


def as_json(finding: Finding) -> dict[str, Any]:
    """Return a finding as what JSON has."""
    rule, site = finding.rule, finding.site
    return {
        "rule": rule.id,
        "level": rule.level,
        "title": rule.title,
        "reason": rule.reason,
        "standard": rule.standard,
        "section": rule.section,
        "address": None if site is None else hex(site.address),
        "symbol": None if site is None else site.name,
        "file": None if finding.line is None else finding.line[0],
        "line": None if finding.line is None else finding.line[1],
        "function": finding.function,
        "detail": finding.detail,
        "calls": list(finding.calls),
        "firmware": finding.firmware,
    }


def run_as_json(trace: Trace) -> dict[str, Any]:
    """Return a run as what JSON has."""
    return {
        "firmware": trace.firmware,
        "calls": len(trace.calls),
        "cpus_up": trace.cpus_up,
        "code": trace.code,
        "sentence": trace.sentence,
    }


def wants_broken(rule: Rule) -> bool:
    """Say whether what shows a rule is run with --broken alone."""
    broken = {probe.name for probe in PROBES if probe.broken}
    return not broken.isdisjoint(rule.needs) or rule.shown_by in broken
