"""Which firmware a guest is run on: hosts and versions, and on each a few probes that change one thing and nothing else.

1. A probe is what the standards allow, or what a host that is modelled does (`emu/lint/probes.py` says which). The others are broken
   firmware, and run only where that is asked for.
2. A probe whose change the guest would not see is not run: one of CPU_ON's answers, where the guest never called it.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from emu.commands.run import setup_of
from emu.faultwords import parse_fault
from emu.hosts import host_of
from emu.lint.trace import Trace
from emu.setup import Setup
from emu.words import parse_until, parse_version
from firmware.errors import UserError
from firmware.faults import AnyFault, Fault
from firmware.overlay import check_faults, with_faults

# Together they expose most: every version, what KVM changed for its guests, the conduits, and who looks at immediates.
DEFAULT_SET: Final = (
    ("spec", "1.3"),
    ("spec", "0.2"),
    ("spec", "0.1"),
    ("spec", "1.0"),
    ("spec", "1.1"),
    ("kvm-4.15", None),
    ("kvm-6.12", None),
    ("qemu-7", None),
    ("tf-a", None),
)
# Probes are made on these of them alone: on the others they would tell the same.
_PROBED: Final = 2
_PASSED_ON: Final = ("conduit", "smccc", "host_cpu")


class Firmware(NamedTuple):
    """Something to run the guest on; words are how a user would ask for it."""

    words: str
    setup: Setup
    scribbles: bool = False


class Base(NamedTuple):
    """A host and a version, before any probe.

    options  the command line's, with -host and -psci put in
    probed   whether probes are made on it
    """

    options: argparse.Namespace
    firmware: Firmware
    probed: bool

    def again(self, *, without: Iterable[str] = (), **changes: object) -> Firmware:
        """Return the same with some options changed, and without the user's faults of some functions."""
        options = argparse.Namespace(**{**vars(self.options), **changes})
        if "psci" in changes:
            options.fwreg = [word for word in options.fwreg if not word.startswith("PSCI_VERSION=")]
        faults = [fault for fault in map(parse_fault, options.fault) if not (isinstance(fault, Fault) and fault.function in without)]
        options.fault = [str(fault) for fault in faults]
        return Firmware(words_of(options), _setup(options))

    def faulted(self, *faults: str) -> Firmware:
        """Return the same with faults added; raise UserError where such a firmware cannot be."""
        added = [parse_fault(fault) for fault in faults]
        functions = {fault.function for fault in added if isinstance(fault, Fault)}
        plain = self.again(without=functions)
        all_faults: tuple[AnyFault, ...] = (*plain.setup.config.faults, *added)
        config = with_faults(plain.setup.config, all_faults)
        check_faults(config)
        words = " ".join([plain.words, *(f"-fault {shlex.quote(fault)}" for fault in faults)])
        return Firmware(words, dataclasses.replace(plain.setup, config=config))


class Probe(NamedTuple):
    """One thing changed on a base.

    name     what rules know the run by
    needs    the function that the base's run must have called, "" for any, None where even that is not needed
    make     gives the firmware for a base and its run, None where there is no such thing
    broken   no standard allows it, and no host that is modelled does it
    """

    name: str
    needs: str | None
    make: Callable[[Base, Trace], Firmware | None]
    broken: bool = False

    def firmware(self, base: Base, trace: Trace) -> Firmware | None:
        """Return what to run, None where the guest could not tell it from its base, or where there is no such firmware."""
        if self.needs is not None and not (trace.has(self.needs) if self.needs else trace.calls):
            return None
        try:
            return self.make(base, trace)
        except UserError:  # a host that has no such register, another number of CPUs
            return None


def bases(options: argparse.Namespace) -> Iterator[Base]:
    """Yield the firmware to begin with: the default set, or what -host and -psci say."""
    if options.host is not None:
        chosen: list[tuple[str, str | None]] = [(host, options.psci) for host in options.host.split(",")]
    elif options.psci is not None:
        chosen = list(_with_version(options.psci))
    else:
        chosen = list(DEFAULT_SET)
    narrowed = options.host is not None or options.psci is not None
    for position, (host, psci) in enumerate(chosen):
        asked = argparse.Namespace(**{**vars(options), "host": host, "psci": psci})
        yield Base(asked, Firmware(words_of(asked), _setup(asked)), narrowed or position < _PROBED)


def _setup(options: argparse.Namespace) -> Setup:
    setup = setup_of(options)
    return dataclasses.replace(setup, until=None if options.until is None else parse_until(setup.config, options.until))


def words_of(options: argparse.Namespace) -> str:
    """Spell a firmware as options of `psci-emu run`."""
    words = ["-host", options.host]
    if options.psci is not None:
        words += ["-psci", options.psci]
    for name in _PASSED_ON:
        if getattr(options, name) is not None:
            words += [f"-{name.replace('_', '-')}", getattr(options, name)]
    for name in ("fwreg", "cap", "fault"):
        for value in getattr(options, name):
            words += [f"-{name}", value]
    return shlex.join(words)


def _with_version(psci: str) -> Iterator[tuple[str, str | None]]:
    version = parse_version(psci)
    for name in dict.fromkeys(host for host, _ in DEFAULT_SET):
        host = host_of(name)
        if version in host.versions or (host.offers_0_1 and str(version) == "0.1"):
            yield name, psci
