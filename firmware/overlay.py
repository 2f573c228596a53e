"""The overlay: the rows that faults name become entries which are worked out at each call; all others stay as `build` made them.

1. Without faults there is no overlay, and a ready answer costs what it always did.
2. How many replies a function has given is the firmware's state (firmware/dispatch.py), not this file's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from firmware import faults
from firmware.abi import MASK32, MASK64, PSCI_1_0, SMCCC_1_0, Psci
from firmware.errors import UserError
from firmware.faults import AnyFault, Fault, TrustedOsOn, UnknownUndefined, WrongConduit
from firmware.host import Config, Result, TrustedOs
from firmware.table import NOT_SERVED, Faulty, Function, Table, Tables, encode
from firmware.trap import Conduit, Reply, Resume

_OF_A_TRUSTED_OS: Final = frozenset({"MIGRATE", "MIGRATE_INFO_TYPE", "MIGRATE_INFO_UP_CPU"})


def with_faults(config: Config, injected: tuple[AnyFault, ...]) -> Config:
    """Return a configuration with faults; applied to its own result it changes nothing. Raises UserError for one that cannot be."""
    host = config.host
    for fault in injected:
        if isinstance(fault, TrustedOsOn):
            if fault.vcpu >= len(config.mpidrs):
                raise UserError(f"fault '{fault}': there are only {len(config.mpidrs)} CPUs, from cpu0")
            trusted_os = TrustedOs(type=0 if fault.migratable else 1, vcpu=fault.vcpu)
            host = host.evolve(cite="a fault", trusted_os=trusted_os, serves=host.serves | _OF_A_TRUSTED_OS)
    return dataclasses.replace(config, host=host, faults=injected)


def check_faults(config: Config) -> None:
    """Raise UserError for a fault that could never happen under a fresh machine's configuration."""
    for fault in config.faults:
        if not config.conduits:
            raise UserError(f"fault '{fault}': neither conduit is served, so there is no firmware to break")
        if isinstance(fault, Fault) and fault.action == faults.Poison(4, 17) and not _may_change_x4_to_x17(config):
            raise UserError(f"fault '{fault}': SMCCC {config.smccc} is in force, and from 1.1 on the firmware keeps x4 to x17")


def overlaid(config: Config, tables: Tables, names: Mapping[int, Function]) -> Tables:
    """Lay the configuration's faults over its tables; `names` has the row of every function ID, served or not."""
    by_conduit = dict(tables.by_conduit)
    if any(isinstance(fault, UnknownUndefined) for fault in config.faults):
        by_conduit = {conduit: table._replace(default=NOT_SERVED, otherwise=None) for conduit, table in by_conduit.items()}
    by_function: dict[str, tuple[Fault, ...]] = {}
    for fault in config.faults:
        if isinstance(fault, Fault):
            by_function[fault.function] = (*by_function.get(fault.function, ()), fault)
    faults = {fid: (row.name, by_function[row.name]) for fid, row in names.items() if row.name in by_function}
    by_conduit = {conduit: _overlaid(config, conduit, table, faults) for conduit, table in by_conduit.items()}
    if any(isinstance(fault, WrongConduit) for fault in config.faults):
        named = Conduit.SMC if config.conduits == {Conduit.SMC} else Conduit.HVC
        other = Conduit.HVC if named is Conduit.SMC else Conduit.SMC
        by_conduit = {other: by_conduit[named], named: Table(MASK32, {}, NOT_SERVED)}
    return Tables(by_conduit, tables.functions)


def _overlaid(config: Config, conduit: Conduit, table: Table, faults: Mapping[int, tuple[str, tuple[Fault, ...]]]) -> Table:
    served = bool(config.conduits) and (table.entries or table.default != NOT_SERVED)
    if not served or conduit in config.host.undispatched:
        return table  # nobody looks at the function ID there
    faulty = {fid: Faulty(*named, table) for fid, named in faults.items()}
    return table._replace(entries={**table.entries, **faulty})


def answer(config: Config, faulty: Faulty, count: int, x1: int, perform: Callable[[], Reply]) -> Reply:
    """Answer the function's call of this number; `perform` does it, and is asked at most once."""
    reply: Reply | None = None
    for fault in faulty.faults:
        if fault.befalls(count, x1):
            instead = _in_place(config, fault)
            reply = _changed(config, fault, perform() if reply is None else reply) if instead is None else instead
    return perform() if reply is None else reply


def _in_place(config: Config, fault: Fault) -> Reply | None:
    """Return what a fault answers without the call being done, None where it changes what the call answers."""
    returned = partial(encode, config.host)
    match fault.action:
        case faults.Undefined():
            return Reply(resume=Resume.UNDEF)
        case faults.Drop():
            return returned(Result((Psci.SUCCESS,)))
        case faults.Delay():
            return returned(Result((faults.pending_answer(fault.function),)))
        case faults.Replace(regs) if dict(regs).get(0) is not None:
            x0 = dict(regs)[0]
            return _written(returned(Result((x0,))), {number: value for number, value in regs if number})
        case _:
            return None


def _changed(config: Config, fault: Fault, reply: Reply) -> Reply:
    if reply.resume not in (Resume.NEXT, Resume.WAIT):
        return reply  # there is no caller to see registers
    x0 = dict(reply.regs).get(0)
    match fault.action:
        case faults.Replace(regs):
            return _written(reply, dict(regs))
        case faults.Poison(first, last):
            return reply if first > 3 and not _may_change_x4_to_x17(config) else _written(reply, faults.poison(first, last))
        case faults.ZeroExtend() if x0 is not None:
            return _written(reply, {0: faults.zero_extended(x0)})
        case faults.Exchange(code, other) if x0 is not None and faults.as_code(x0) == code:
            return _written(reply, {0: other & (MASK64 if other >= 0 else config.host.status_mask)})
        case _:
            return reply


def _written(reply: Reply, values: Mapping[int, int]) -> Reply:
    regs = {**dict(reply.regs), **{number: value & MASK64 for number, value in values.items()}}
    return reply._replace(regs=tuple(sorted(regs.items())))


def _may_change_x4_to_x17(config: Config) -> bool:
    return config.offered < PSCI_1_0 or config.smccc is None or config.smccc == SMCCC_1_0
