"""`probe`: what a guest makes of every firmware."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from emu import words
from emu.commands import Command
from emu.hosts import host_of, versions_of
from emu.lists import counted, show
from emu.memory import DEFAULT_RAM_BYTES, parse_size
from emu.outcome import ExitCode
from emu.probe import Finding, Variant, first_divergence, groups, probe
from emu.setup import DEFAULT_CPU, Choices, make
from firmware.errors import UserError, unknown
from firmware.host import Host
from firmware.hosts import HOSTS

# The line with which Linux is done with bringing CPUs up, and with one CPU the first after it has asked for all mitigations; a guest
# that never says so runs to its end.
LINUX_IS_UP = rb"SMP: Total of \d+ processors activated[^\n]*\n"
LINUX_HAS_ASKED = rb"Dentry cache hash table entries[^\n]*\n"
_APPEND = "earlycon console=ttyAMA0"  # without the latter, what earlycon has printed is printed again
_MOST_INSTRUCTIONS = "4000000000"
_MOST_JOBS = 64


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `probe`."""
    parser.add_argument("--kernel", type=Path, metavar="F", help="ELF, arm64 Image (also gzip) or flat binary")
    parser.add_argument("--initrd", type=Path, metavar="F", help="initial RAM disk")
    parser.add_argument("--append", default=_APPEND, metavar="S", help=f"kernel command line; default {_APPEND}")
    parser.add_argument("--smp", default="1", metavar="N", help="CPUs, or cpus=N,clusters=M")
    parser.add_argument("-m", dest="memory", metavar="SIZE", help="RAM; default 128M")
    parser.add_argument("--cpu", default=DEFAULT_CPU, metavar="MODEL", help=f"default {DEFAULT_CPU}")
    parser.add_argument("--hosts", default="all", metavar="LIST", help="all, or hosts by comma")
    parser.add_argument("--psci", default="all", metavar="LIST", help="all that each host offers, default, or versions by comma")
    parser.add_argument("--conduit", metavar="C", help="hvc, smc, both or none; default each host's")
    parser.add_argument("--until", metavar="POINT", help="where to end; default Linux's last line about bringing up CPUs")
    parser.add_argument("--max-insns", default=_MOST_INSTRUCTIONS, metavar="N", help=f"limit in instructions; default {_MOST_INSTRUCTIONS}")
    parser.add_argument("--diff", nargs=2, metavar=("A", "B"), help="where two of them part: HOST or HOST:VERSION; 100 if they do")
    parser.add_argument("--json", action="store_true", help="everything, as one JSON document")
    parser.add_argument("-j", dest="jobs", default="1", metavar="N", help="how many run at once")


def _probe(options: argparse.Namespace) -> int:
    """Print what a guest makes of each firmware."""
    if options.kernel is None:
        raise UserError("nothing to probe with; give -kernel F")
    jobs = words.parse_positive("-j", options.jobs, _MOST_JOBS)
    if options.diff is not None:
        options.hosts = ",".join(place.partition(":")[0] for place in options.diff)
    asked = list(variants(options))
    if not asked:
        raise UserError(f"--psci {options.psci}: none of the hosts offers it")
    if options.diff is not None:
        return _diff([_named(place, asked) for place in options.diff], jobs)
    findings = []
    for finding in probe(asked, jobs):
        findings.append(finding)
        if not options.json:
            _tell(finding)
    if options.json:
        print(json.dumps([finding._asdict() for finding in findings], indent=1))
    else:
        _summary(findings, len(groups(asked)))
    return ExitCode.OK


def variants(options: argparse.Namespace) -> Iterator[Variant]:
    """Yield each firmware that the options ask for."""
    mpidrs = words.parse_smp(options.smp)
    memory = DEFAULT_RAM_BYTES if options.memory is None else parse_size(options.memory)
    default_until = re.compile(LINUX_IS_UP if len(mpidrs) > 1 else LINUX_HAS_ASKED) if is_linux(options.kernel) else None
    hosts = list(HOSTS) if options.hosts == "all" else list(dict.fromkeys(options.hosts.split(",")))
    for name in hosts:
        host = host_of(name)
        for version in _versions(host, options.psci):
            setup = make(Choices(host=name, psci=version, conduit=options.conduit, mpidrs=mpidrs, ram_bytes=memory))
            until = default_until if options.until is None else words.parse_until(setup.config, options.until)
            yield Variant(
                host.name,
                version,
                dataclasses.replace(
                    setup,
                    kernel=options.kernel,
                    initrd=options.initrd,
                    append=options.append,
                    cpu=words.parse_cpu(options.cpu),
                    until=until,
                    max_insns=words.parse_positive("--max-insns", options.max_insns),
                    no_reboot=True,
                ),
            )


def is_linux(kernel: Path) -> bool:
    """Say whether a file is an arm64 Image, packed or not (Linux Documentation/arch/arm64/booting.rst)."""
    try:
        with kernel.open("rb") as file:
            head = file.read(64)
    except OSError:
        return False  # whoever loads it says why
    return head[56:60] == b"ARMd" or head[:2] == b"\x1f\x8b"


def _versions(host: Host, text: str) -> list[str]:
    offered = list(versions_of(host))
    if text == "all":
        return offered
    if text == "default":
        return [str(host.latest)]
    asked = [str(words.parse_version(part)) for part in text.split(",")]
    return [version for version in asked if version in offered]


def _named(place: str, variants: list[Variant]) -> Variant:
    name, colon, version = place.partition(":")
    host = host_of(name)
    known = {variant.psci: variant for variant in variants if variant.host == host.name}
    wanted = version if colon else str(host.latest)
    if wanted not in known:
        raise unknown(f"version of {name}", wanted, known)
    return known[wanted]


def _diff(pair: list[Variant], jobs: int) -> int:
    found = {(finding.host, finding.psci): finding for finding in probe(pair, jobs)}
    a, b = (found[variant.host, variant.psci] for variant in pair)
    divergence = first_divergence(a, b)
    print(f"{a.host} {a.psci} and {b.host} {b.psci}: no difference" if divergence is None else divergence)
    return ExitCode.OK if divergence is None else ExitCode.CHECK_FAILED


def _tell(finding: Finding) -> None:
    print(f"== {finding.host}, PSCI {finding.psci}")
    for line in finding.of_interest:
        print(f"   {line}")
    for call in finding.calls:
        print(f"   > {call}")
    print(f"   CPUs up: {finding.cpus_up}; {finding.sentence}")
    sys.stdout.flush()


def _summary(findings: list[Finding], boots: int) -> None:
    print(f"\n{counted(len(findings), 'firmware')}, {counted(boots, 'boot')}")
    rows = [(each.host, each.psci, str(len(each.calls)), str(each.cpus_up), str(each.code), each.sentence) for each in findings]
    show("host", "PSCI", "calls", "CPUs up", "code", "how it ended", rows=rows)


PROBE = Command(_add_options, _probe)
