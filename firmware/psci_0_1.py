"""PSCI 0.1: four functions under IDs that the platform chooses and its device tree tells.

The functions are those of `psci.py`; only the IDs, and which of them a host serves, are 0.1's.
"""

from __future__ import annotations

from typing import Final

from firmware.abi import PSCI_0_1, Version
from firmware.host import Config
from firmware.psci import cpu_off, has_trusted_os, migrate
from firmware.psci_suspend import cpu_suspend
from firmware.table import Function, Service


def _rows(config: Config) -> tuple[Function, ...]:
    ids = config.host.ids_0_1
    if ids is None:
        return ()
    # The arguments have the caller's width, so the IDs stand in the SMC64 column although their bit 30 says nothing.
    # fmt: off
    rows = (
        Function("CPU_SUSPEND", None, ids.cpu_suspend, PSCI_0_1, cpu_suspend,
                 ("power_state", "entry_point_address", "context_id")),
        Function("CPU_OFF",     None, ids.cpu_off,     PSCI_0_1, cpu_off, ("power_state",)),
        Function("CPU_ON",      None, ids.cpu_on,      PSCI_0_1, config.host.cpu_on_0_1,
                 ("target_cpu", "entry_point_address", "context_id")),
        Function("MIGRATE",     None, ids.migrate,     PSCI_0_1, migrate, ("target_cpu",), present=has_trusted_os),
    )
    # fmt: on
    return rows if config.host.discovers_0_1_ids else tuple(row._replace(discovered_by=()) for row in rows)


NAMES: Final = ("CPU_SUSPEND", "CPU_OFF", "CPU_ON", "MIGRATE")


def _version(config: Config) -> Version | None:
    """PSCI 0.1's IDs are answered under 0.1 alone, or always where the host's column says so."""
    return PSCI_0_1 if config.host.ids_0_1_always or config.offered == PSCI_0_1 else None


PSCI_0_1_IDS: Final = Service(
    "PSCI 0.1", ("PSCI_FEATURES",), _version, _rows, serves=lambda host: host.serves_0_1, refuses=lambda host: host.refuses_0_1
)
