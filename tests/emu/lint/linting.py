"""Lint a guest from a test: the command's options, the runs it makes, and what is found."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from emu.commands.lint import LINT, fill_in
from emu.lint.compared import REFERENCE
from emu.lint.findings import Finding, Findings, lint
from emu.lint.firmwares import Probe, bases
from emu.lint.probes import PROBES
from emu.lint.rules import RULES, Rule
from emu.lint.runs import Runner
from emu.options import Parser, whole_words

# More than any guest of the gallery takes that ends by itself.
_ENOUGH: Final = "5000000"


def lint_guest(
    image: Path, words: str, *, broken: bool = False, rules: Sequence[Rule] = RULES, probes: Iterable[Probe] = PROBES, limit: str = _ENOUGH
) -> list[Finding]:
    """Lint an image with options of the command's."""
    parser = Parser(prog="psci-emu lint")
    LINT.add_options(parser)
    options = parser.parse_args(whole_words(shlex.split(f"-kernel {shlex.quote(str(image))} {words}"), parser, "lint"))
    options.max_insns = limit
    fill_in(options)
    findings = Findings(rules)
    lint(bases(options), [probe for probe in probes if broken or not probe.broken], Runner().run, findings)
    return findings.all()


def lint_by(rule: Rule, image: Path, words: str) -> list[Finding]:
    """Lint an image by one rule alone, on the firmware that rule asks for."""
    wanted = {*rule.needs, rule.shown_by, REFERENCE}
    return lint_guest(image, words, broken=True, rules=[rule], probes=[probe for probe in PROBES if probe.name in wanted])


def ids(findings: Iterable[Finding]) -> set[str]:
    return {finding.rule.id for finding in findings}
