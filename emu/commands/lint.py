"""`lint`: run a guest on a set of firmware, and report the rules it breaks."""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Final

from emu.abort import told_of_aborts
from emu.commands import Command
from emu.commands.probe import LINUX_IS_UP, is_linux
from emu.commands.run import add_firmware_options, add_machine_options
from emu.faultwords import parse_faults
from emu.lint.findings import Finding, Findings, lint
from emu.lint.firmwares import Firmware, bases
from emu.lint.lines import lines_of
from emu.lint.probes import PROBES
from emu.lint.recorded import not_judged, read_trace
from emu.lint.rules import Rule, rules_without
from emu.lint.runs import Runner
from emu.lint.sarif import as_sarif
from emu.lint.texts import as_json, as_text, run_as_json, wants_broken
from emu.lint.trace import Trace
from emu.lists import counted, show
from emu.loader import MAX_ELF_BYTES, read_file
from emu.outcome import ExitCode
from emu.symbols import Symbols
from firmware.errors import UserError

_MOST_INSTRUCTIONS: Final = "200000000"
_MOST_OF_LINUX: Final = "4000000000"
_CPUS: Final = "2"  # who has one CPU calls no CPU_ON
_OF_A_RUN: Final = (
    *("kernel", "bios", "initrd", "dtb", "smp", "mpidr", "memory", "fault", "max_insns", "timeout", "until", "broken"),
    *("host", "psci", "conduit", "smccc", "fwreg", "cap", "host_cpu"),
)


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `lint`."""
    add_machine_options(parser)
    add_firmware_options(parser)
    parser.set_defaults(host=None)
    parser.add_argument("--until", metavar="POINT", help="end each run at call:NAME#N or console:REGEX; Linux's when its CPUs are up")
    parser.add_argument("--broken", action="store_true", help="also on firmware that no standard allows, and beside a Trusted OS")
    parser.add_argument("--trace", type=Path, metavar="F", help="judge a recorded run instead, by the rules that one run is enough for")
    parser.add_argument("--disable", action="append", default=[], metavar="RULE", help="leave a rule out")
    parser.add_argument("--rules", action="store_true", help="list the rules")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="everything, as one JSON document")
    form.add_argument("--sarif", action="store_true", help="as SARIF 2.1.0")


def _lint(options: argparse.Namespace) -> int:
    """Report rule violations; 100 if there are any."""
    rules = rules_without(tuple(options.disable))
    if options.rules:
        return _list(rules)
    return _judge_trace(options, rules) if options.trace is not None else _judge_guest(options, rules)


def _judge_guest(options: argparse.Namespace, rules: tuple[Rule, ...]) -> int:
    if options.psci == "none":
        raise UserError("-psci none: without firmware there is nothing to hold a guest's calls against")
    if options.kernel is None and options.bios is None:
        raise UserError("nothing to lint; give -kernel F, or --trace F for a recorded run")
    fill_in(options)
    findings, runner = Findings(rules), Runner()
    probes = [probe for probe in PROBES if options.broken or not probe.broken]
    with told_of_aborts(_tell_of_abort):
        runs = lint(bases(options), probes, partial(_run, runner), findings)
    image = options.symbols or options.kernel or options.bios
    found = _with_lines(findings.all(), image)
    return _report(options, rules, found, runs, {})


def fill_in(options: argparse.Namespace) -> None:
    """Put in what a user has left out, and faults for the files that hold them."""
    is_a_kernel = options.kernel is not None and is_linux(options.kernel)
    options.smp = _CPUS if options.smp is None and options.mpidr is None else options.smp
    options.max_insns = options.max_insns or (_MOST_OF_LINUX if is_a_kernel else _MOST_INSTRUCTIONS)
    if is_a_kernel:
        options.append = options.append or "earlycon"
        options.until = options.until or f"console:{LINUX_IS_UP.decode()}"
    options.fault = [str(fault) for fault in parse_faults(options.fault)]


def _run(runner: Runner, firmware: Firmware) -> Trace:
    if sys.stderr.isatty():
        print(f"\r{firmware.words[:79]}\033[K", end="", file=sys.stderr, flush=True)
    trace = runner.run(firmware)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    return trace


def _tell_of_abort() -> None:
    print(f"psci-emu: guest crash: the engine gave up at an instruction, exit code {ExitCode.CRASH:d}", file=sys.stderr, flush=True)


def _judge_trace(options: argparse.Namespace, rules: tuple[Rule, ...]) -> int:
    for name in _OF_A_RUN:
        if getattr(options, name):
            raise UserError(f"--trace F is a run that has been: -{name.replace('_', '-')} is for one to come")
    symbols = Symbols() if options.symbols is None else Symbols.from_file(options.symbols)
    trace = read_trace(options.trace, symbols)
    findings = Findings(rules)
    findings.judge(trace)
    found = findings.all() if options.symbols is None else _with_lines(findings.all(), options.symbols)
    return _report(options, rules, found, [trace], not_judged(rules, trace))


def _with_lines(found: list[Finding], image: Path) -> list[Finding]:
    addresses = {finding.site.instruction for finding in found if finding.site is not None}
    lines = lines_of(read_file(image, MAX_ELF_BYTES).content, addresses) if addresses else {}
    for finding in found:
        if finding.site is not None:
            finding.line = lines.get(finding.site.instruction)
    return found


def _report(
    options: argparse.Namespace, rules: tuple[Rule, ...], found: list[Finding], runs: list[Trace], left: dict[str, list[str]]
) -> int:
    if options.sarif:
        from importlib.metadata import version  # noqa: PLC0415  10 ms

        image = options.symbols or options.kernel or options.bios or options.trace
        print(json.dumps(as_sarif(rules, found, str(image), version("psci-emu")), indent=1))
    elif options.json:
        document = {"runs": list(map(run_as_json, runs)), "findings": list(map(as_json, found)), "not_judged": left}
        print(json.dumps(document, indent=1))
    else:
        for line in as_text(found):
            print(line)
        print(f"{counted(len(runs), 'run')}, {counted(len(rules), 'rule')}: {counted(len(found), 'finding') if found else 'no findings'}")
        if not any(trace.calls for trace in runs):
            print(f"the guest made no call: {runs[0].sentence}")
        for reason, ids in left.items():
            print(f"not judged, since {reason}: {', '.join(ids)}")
    return ExitCode.CHECK_FAILED if any(finding.rule.level == "error" for finding in found) else ExitCode.OK


def _list(rules: tuple[Rule, ...]) -> int:
    rows = [(rule.id, rule.source, rule.title + _remark(rule)) for rule in rules]
    show("rule", "where it is written", "what is wrong", rows=rows)
    return ExitCode.OK


def _remark(rule: Rule) -> str:
    return " (for information)" if rule.level == "note" else " (with --broken)" if wants_broken(rule) else ""


LINT = Command(_add_options, _lint)
