"""Move a running guest to another host: the machine's part (firmware/migration.py decides)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from emu.machine import Machine
from emu.state import adopt
from firmware.host import Config
from firmware.migration import Migration, carried, plan
from firmware.policy import Policy
from firmware.trap import Conduit
from firmware.view import view


class Moved(NamedTuple):
    """A move: how it went, and the destination's machine, which goes on; None where it was refused and the source does."""

    migration: Migration
    machine: Machine | None


def move(
    machine: Machine,
    fresh: Config,
    policy: Policy,
    *,
    output: Callable[[bytes], object] = lambda _text: None,
    typed: Callable[[int], bytes] = lambda _limit: b"",
) -> Moved:
    """Move a machine that is between two turns.

    fresh          the destination's VM as its VMM creates it (firmware/migration.py, `created`)
    output, typed  the two ends of the destination's console
    """
    migration = plan(machine.config, fresh, policy, partial(view, conduit=Conduit(machine.setup.method)))
    if migration.config is None:
        return Moved(migration, None)
    state = machine.snapshot()
    setup = dataclasses.replace(machine.setup, config=migration.config, boot=machine.board.boot)
    destination = Machine(setup, output=output, typed=typed)
    adopt(destination, state, carried(state.firmware, migration.config))
    return Moved(migration, destination)
