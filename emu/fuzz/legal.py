"""Is a case's firmware correct: might a guest that keeps to the standards meet it?

1. Legal is a host that has what PSCI makes mandatory, at any of its versions and over a conduit of its own, with any schedule, calls that
   take longer, and what the standards leave open. A guest that fails there has a bug of its own.
2. All else is broken, however many machines are like that: a guest that fails there might be more robust.
"""

from __future__ import annotations

from typing import Final

from emu.fuzz.case import Case, fault_of
from emu.setup import Setup
from firmware.abi import PSCI_0_2, PSCI_1_0, Version
from firmware.dispatch import Firmware, configuration, rows
from firmware.faults import Fault, Poison, ZeroExtend
from firmware.host import Config
from firmware.hosts.spec import SPEC
from firmware.table import is_offered
from firmware.trap import Conduit, Reply, Resume

# DEN 0022, the table of functions: mandatory from 0.2 on, and from 1.0 on.
_MANDATORY: Final = frozenset({"PSCI_VERSION", "CPU_SUSPEND", "CPU_OFF", "CPU_ON", "AFFINITY_INFO", "SYSTEM_OFF", "SYSTEM_RESET"})
_MANDATORY_1_0: Final = _MANDATORY | {"PSCI_FEATURES"}
_SINCE: Final = {"arm,psci-1.1": Version(1, 1), "arm,psci-1.0": PSCI_1_0, "arm,psci-0.2": PSCI_0_2}
# Functions whose result is x0: all of PSCI's, and what leads to the others.
_X0_ALONE: Final = frozenset({"SMCCC_VERSION", "SMCCC_ARCH_FEATURES"}) | {
    function.name for service, function in rows(configuration(SPEC)) if service.name in ("PSCI", "PSCI 0.1")
}


def is_correct(setup: Setup) -> bool:
    """Say whether firmware to which nothing is done is correct: what it offers, and what its device tree promises."""
    config = setup.config
    strings = setup.compatible or ()
    return all(config.offered >= _SINCE.get(string, PSCI_0_2) for string in strings) and serves_correctly(config, Conduit(setup.method))


def serves_correctly(config: Config, conduit: Conduit) -> bool:
    """Say whether what a configuration offers is correct, to a guest that calls by this conduit."""
    return _has_what_is_mandatory(config) and _is_served(config, conduit)


def is_allowed(case: Case) -> bool:
    """Say whether what is done to a case's firmware is allowed; a move is judged where it is made."""
    return not case.changes and all(_is_left_open(fault) for fault in case.faults)


def _is_left_open(text: str) -> bool:
    # A W register's write leaves the upper half zero, as U-Boot's does. A call may change x1 to x3 (DEN 0028, since 1.1), and x4 to x17
    # while SMCCC 1.0 is in force, which that fault is limited to; unless its result is there, as a UUID or entropy is.
    fault = fault_of(text)
    if not isinstance(fault, Fault):
        return False
    return isinstance(fault.action, ZeroExtend) or (isinstance(fault.action, Poison) and fault.function in _X0_ALONE)


def _has_what_is_mandatory(config: Config) -> bool:
    if config.offered < PSCI_0_2:
        return True
    mandatory = _MANDATORY if config.offered < PSCI_1_0 else _MANDATORY_1_0
    served = {function.name for service, function in rows(config) if is_offered(config, service, function)}
    lies = any(deviation.discovery == "PSCI_FEATURES" and deviation.value >= 0 for deviation in config.host.deviations)
    return mandatory <= served and not lies


def _is_served(config: Config, conduit: Conduit) -> bool:
    """Say whether the conduit that the device tree names leads to the firmware: PSCI_VERSION, or CPU_ON of 0.1, is not refused there."""
    if conduit in config.host.undispatched:
        return conduit is config.host.default_conduit
    table = Firmware(config).tables.by_conduit[conduit]
    ids = config.host.ids_0_1
    asked = _PSCI_VERSION if config.offered >= PSCI_0_2 or ids is None else ids.cpu_on
    entry = None if asked is None else table.entries.get(asked)
    return entry is not None and (not isinstance(entry, Reply) or (entry.resume is Resume.NEXT and entry != table.default))


_PSCI_VERSION: Final = 0x8400_0000
