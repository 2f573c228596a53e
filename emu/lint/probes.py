"""The probes: each changes one thing of a firmware, and says on whose authority.

1. Legal is what the standards allow, and what a modelled host does: U-Boot answers PSCI_VERSION with NOT_SUPPORTED and leaves the upper
   half of an error zero, Hafnium lists SMCCC_VERSION and refuses it, KVM writes x1 to x3. A Trusted OS that stays on one CPU is legal,
   and counted with the broken: nobody is known to have one on a CPU that goes off, and few guests ask.
2. A probe is made by options where there are such, so that a user can run it again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Final

from emu.lint.compared import REFERENCE
from emu.lint.firmwares import Base, Firmware, Probe
from emu.lint.trace import Trace
from firmware.abi import MASK32, MASK64, PSCI_1_0, Psci
from firmware.dispatch import rows
from firmware.host import Host

_Make = Callable[[Base, Trace], Firmware | None]


def _version(text: str) -> _Make:
    """Offer another version: the host's own where it has it, else the word alone."""

    def make(base: Base, _trace: Trace) -> Firmware | None:
        host = base.firmware.setup.config.host
        has_it = text in map(str, host.versions) and len(host.versions) > 1
        return base.again(without={"PSCI_VERSION"}, psci=text) if has_it else base.faulted(f"version={text}")

    return make


def _next_major(base: Base, _trace: Trace) -> Firmware | None:
    # Firmware of 0.2 that says 2.0 lacks what every later version has.
    return base.faulted("version=2.0") if base.firmware.setup.config.offered >= PSCI_1_0 else None


def _fault(*faults: str) -> _Make:
    return lambda base, _trace: base.faulted(*faults)


def _without_faults(base: Base, _trace: Trace) -> Firmware | None:
    return base.again(fault=[]) if base.options.fault else None


def _tree(*strings: str) -> _Make:
    """Let the psci node have these strings."""

    def make(base: Base, _trace: Trace) -> Firmware | None:
        setup = base.firmware.setup
        if not setup.psci or setup.config.offered < PSCI_1_0:
            return None
        words = f"{base.firmware.words}, and the psci node has {', '.join(strings)}"
        return Firmware(words, dataclasses.replace(setup, compatible=strings))

    return make


def _column(words: str, change: Callable[[Host], Host]) -> _Make:
    def make(base: Base, _trace: Trace) -> Firmware | None:
        setup = base.firmware.setup
        config = dataclasses.replace(setup.config, host=change(setup.config.host))
        return Firmware(f"{base.firmware.words}, {words}", dataclasses.replace(setup, config=config))

    return make


def _error_width(bits: int) -> _Make:
    mask = MASK64 if bits == 64 else MASK32
    make = _column(f"which writes errors in {bits} bits", lambda host: dataclasses.replace(host, status_mask=mask))

    def where_there_is_an_error(base: Base, trace: Trace) -> Firmware | None:
        return make(base, trace) if any((call.code or 0) < 0 for call in trace.calls) else None

    return where_there_is_an_error


def _poison(registers: str) -> _Make:
    """Poison after every function that was called, but for those whose results are in those registers."""

    def make(base: Base, trace: Trace) -> Firmware | None:
        results = {function.name: function.result for _, function in rows(base.firmware.setup.config)}
        called = dict.fromkeys(call.function for call in trace.calls if call.returned is not None)
        names = [name for name in called if name is not None and results.get(name, "words") not in ("words", "trng")]
        return base.faulted(*(f"{name}: poison={registers}" for name in names)) if names else None

    return make


def _trusted_os(base: Base, trace: Trace) -> Firmware | None:
    """Put a Trusted OS on the first CPU, beside the boot CPU, that goes off."""
    vcpu = next((call.vcpu for call in trace.of("CPU_OFF") if call.vcpu), None)
    return None if vcpu is None else base.faulted(f"trusted-os=cpu{vcpu}")


def _clusters(base: Base, _trace: Trace) -> Firmware | None:
    """Put each CPU in a cluster of its own, unless the user has said how they are numbered."""
    count = len(base.firmware.setup.config.mpidrs)
    if base.options.mpidr is not None or base.options.dtb is not None or count < 2:
        return None
    mpidrs = ",".join(hex(vcpu << 8) for vcpu in range(count))
    firmware = base.again(mpidr=mpidrs, smp=str(count))
    return firmware._replace(words=f"{firmware.words} --mpidr {mpidrs}")


def _scribbled(base: Base, trace: Trace) -> Firmware | None:
    """Overwrite what is below the stack pointer, as an interrupt would, where a CPU was given a context."""
    if not any(call.x[3] for call in trace.of("CPU_ON")):
        return None
    return base.firmware._replace(words=f"{base.firmware.words}, with the stack below SP overwritten", scribbles=True)


_ANY: Final = ""
PROBES: Final = (
    Probe(REFERENCE, None, _without_faults),
    *(Probe(version, "PSCI_VERSION", _version(version)) for version in ("0.2", "1.0", "1.1", "1.2", "1.3")),
    Probe("2.0", "PSCI_VERSION", _next_major, broken=True),
    Probe("version 0.0", "PSCI_VERSION", _fault("version=0.0"), broken=True),
    Probe("version 0.1", "PSCI_VERSION", _fault("version=0.1"), broken=True),
    Probe("version -1", "PSCI_VERSION", _fault("version=-1")),
    Probe("features -2", "PSCI_FEATURES", _fault("PSCI_FEATURES: x0=INVALID_PARAMETERS"), broken=True),
    Probe("smccc 1.1", "SMCCC_VERSION", _fault("SMCCC_VERSION: x0=1.1")),
    Probe("smccc 0.1", "SMCCC_VERSION", _fault("SMCCC_VERSION: x0=0.1")),
    Probe("smccc -1", "SMCCC_VERSION", _fault("SMCCC_VERSION: x0=NOT_SUPPORTED")),
    Probe("tree 1.0, 0.2, 0.1", None, _tree("arm,psci-1.0", "arm,psci-0.2", "arm,psci")),
    Probe("tree 1.0, 0.2", None, _tree("arm,psci-1.0", "arm,psci-0.2")),
    Probe("tree 1.0", None, _tree("arm,psci-1.0")),
    Probe("tree 1.1, 1.0", None, _tree("arm,psci-1.1", "arm,psci-1.0")),
    Probe("errors 64", _ANY, _error_width(64)),
    Probe("errors 32", _ANY, _error_width(32)),
    Probe("x0 alone", _ANY, _column("which writes x0 alone", partial(dataclasses.replace, result_registers=1))),
    Probe("poison x1-x3", _ANY, _poison("x1-x3")),
    Probe("poison x4-x17", _ANY, _poison("x4-x17")),
    Probe("Trusted OS", "CPU_OFF", _trusted_os, broken=True),
    Probe("clusters", "CPU_ON", _clusters),
    Probe("scribbled", "CPU_ON", _scribbled),
    Probe("CPU_ON fails", "CPU_ON", _fault(f"CPU_ON: x0={Psci.INTERNAL_FAILURE.name}")),
    Probe("CPU_ON lost", "CPU_ON", _fault("CPU_ON: drop"), broken=True),
    Probe("CPU_ON pending", "CPU_ON", _fault("CPU_ON: delay=2"), broken=True),
)
