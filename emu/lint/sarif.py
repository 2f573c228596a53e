"""Findings as SARIF 2.1.0 (OASIS), which code hosts and editors read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final
from urllib.parse import quote

from emu.lint.findings import Finding
from emu.lint.rules import Rule
from emu.lint.texts import place

_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
_UNKNOWN_LINE: Final = 1


def as_sarif(rules: Sequence[Rule], findings: Iterable[Finding], image: str, version: str) -> dict[str, Any]:
    """Return the log of one run of the linter; image is the file that a finding without a source line is in."""
    position = {rule.id: number for number, rule in enumerate(rules)}
    driver = {"name": "psci-emu", "version": version, "rules": [_rule(rule) for rule in rules]}
    results = [_result(finding, position[finding.rule.id], image) for finding in findings]
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.reason},
        "help": {"text": rule.source},
        "defaultConfiguration": {"level": rule.level},
    }


def _result(finding: Finding, rule_index: int, image: str) -> dict[str, Any]:
    rule = finding.rule
    result: dict[str, Any] = {
        "ruleId": rule.id,
        "ruleIndex": rule_index,
        "level": rule.level,
        "message": {"text": f"{rule.title}: {finding.detail}. {rule.reason} ({rule.source})"},
        "locations": [_location(finding, image)],
        "properties": {"firmware": finding.firmware},
    }
    if finding.calls:
        steps = [{"location": {"message": {"text": call}}} for call in finding.calls]
        result["codeFlows"] = [{"threadFlows": [{"locations": steps}]}]
    return result


def _location(finding: Finding, image: str) -> dict[str, Any]:
    file, line = (image, _UNKNOWN_LINE) if finding.line is None else finding.line
    physical: dict[str, Any] = {"artifactLocation": {"uri": quote(file)}, "region": {"startLine": line}}
    location: dict[str, Any] = {"physicalLocation": physical, "message": {"text": place(finding)}}
    if finding.site is not None:
        physical["address"] = {"absoluteAddress": finding.site.address}
    if finding.site is not None and finding.site.name is not None:
        name = finding.site.name.partition("+")[0]
        location["logicalLocations"] = [{"name": name, "fullyQualifiedName": finding.site.name, "kind": "function"}]
    return location
