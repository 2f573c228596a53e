"""Move a running guest to another host: the machine's part (firmware/migration.py decides)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from emu.console import nobody
from emu.machine import Machine
from emu.state import adopt, capture
from firmware.abi import PSCI_0_1, Version
from firmware.host import Config, Host
from firmware.migration import Migration, carried, created, plan
from firmware.policy import Asks, MachineType, Policy
from firmware.trap import Conduit
from firmware.view import view


class Moved(NamedTuple):
    """A move: how it went, and the destination's machine, which goes on; None where it was refused and the source does."""

    migration: Migration
    machine: Machine | None


def destination_of(like: Config, host: Host, policy: Policy, machine_type: MachineType, asked: Version | None) -> Config:
    """Return the destination's VM as its VMM creates it for a guest whose owner asked for a version on the source, or for None."""
    if asked is not None and asked != PSCI_0_1 and policy.asks is not Asks.BOTH:
        asked = None  # it is not on the destination's command line: it comes with the register, or not at all
    return created(like, host, policy, machine_type, asked)


def move(
    machine: Machine,
    fresh: Config,
    policy: Policy,
    machine_type: MachineType,
    *,
    output: Callable[[bytes], object] = lambda _text: None,
    typed: Callable[[int], bytes] = nobody,
) -> Moved:
    """Move a machine that is between two turns.

    fresh          the destination's VM as its VMM creates it (firmware/migration.py, `created`)
    machine_type   one of the policy's
    output, typed  the two ends of the destination's console
    """
    migration = plan(machine.firmware.config_as_it_is, fresh, policy, machine_type, partial(view, conduit=Conduit(machine.setup.method)))
    if migration.config is None:
        return Moved(migration, None)
    state = capture(machine)
    setup = dataclasses.replace(machine.setup_as_it_is, config=migration.config)
    destination = Machine(setup, output=output, typed=typed)
    adopt(destination, state, carried(state.firmware, machine.config.host, migration.config))
    return Moved(migration, destination)
