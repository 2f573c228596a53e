"""`migrate`: move a running guest to another host, and tell what it had and what it has."""

from __future__ import annotations

import argparse
import dataclasses

from emu import words
from emu.commands import Command
from emu.commands.run import add_machine_options, add_version_options, inputs, run_to, setup_of
from emu.hosts import host_of
from emu.machine import Machine
from emu.migrate import Moved, destination_of, move
from emu.migrationtext import tell
from emu.outcome import ExitCode
from emu.policyfile import policy_of
from emu.session import Session, add_session_options, session
from firmware.errors import UserError
from firmware.migration import created
from firmware.overlay import with_faults
from firmware.policy import DEFAULT_POLICY, POLICIES


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--from", dest="host", metavar="HOST", help="the host the guest starts on (psci-emu hosts)")
    parser.add_argument("--to", metavar="HOST", help="the host it is moved to")
    parser.add_argument("--at", metavar="POINT", help="when: call:NAME#N or console:REGEX")
    policies = ", ".join(POLICIES)
    parser.add_argument("--policy", default=DEFAULT_POLICY, metavar="P", help=f"FILE.toml, or of {policies}; default {DEFAULT_POLICY}")
    parser.add_argument("--machine-type", metavar="T", help="where the policy's machine types ask for versions: which")
    parser.add_argument("--to-cpu", metavar="CPU", help="what the destination's CPU needs and has: spectre-v2=vulnerable,ssbs")
    add_machine_options(parser)
    add_version_options(parser)
    add_session_options(parser)


def _migrate(options: argparse.Namespace) -> int:
    for name, value in (("--from", options.host), ("--to", options.to), ("--at", options.at)):
        if value is None:
            raise UserError(f"{name} is missing; a move needs --from HOST, --to HOST and --at POINT")
    policy = policy_of(options.policy)
    machine_type = policy.machine_type(options.machine_type)
    setup = setup_of(options)
    if options.psci is None and not options.fwreg:
        # Nobody asked for a version: it is the kernel's or the machine type's.
        unasked = created(setup.config, setup.config.host, policy, machine_type, None)
        setup = dataclasses.replace(setup, config=with_faults(unasked, setup.config.faults))
    point = words.parse_until(setup.config, options.at, "--at")
    like = dataclasses.replace(setup.config, mitigations=(words.parse_host_cpu(options.to_cpu),))
    if options.conduit is None:
        like = dataclasses.replace(like, conduits=words.parse_conduit(host_of(options.to).default_conduit.value)[1])
    destination, fresh, why = host_of(options.to), None, ""
    try:
        fresh = destination_of(like, destination, policy, machine_type, setup.asked)
    except UserError as error:
        why = str(error)
    with session(options, inputs(options), {}) as shown:
        machine = shown.start(setup)
        outcome = run_to(machine, point)
        if outcome.code != ExitCode.OK:
            return shown.finish(outcome)
        if fresh is None:
            _new_line(machine)
            print(f"refused: the destination's VM cannot be created as the guest's owner asked: {why}")
            return _source_goes_on(shown, machine)
        moved = move(machine, fresh, policy, machine_type, output=shown.output, typed=shown.typed)
        return _go_on(shown, machine, moved)


def _go_on(shown: Session, machine: Machine, moved: Moved) -> int:
    _new_line(machine)
    tell(moved.migration)
    if moved.machine is None:
        return _source_goes_on(shown, machine)
    shown.show(moved.machine)
    outcome = moved.machine.run()
    found = moved.migration.version_changed or moved.migration.mitigation_lost
    if found and outcome.code == ExitCode.OK:
        outcome = outcome._replace(code=ExitCode.CHECK_FAILED, sentence=f"the guest was changed by the move: {outcome.sentence}")
    return shown.finish(outcome)


def _source_goes_on(shown: Session, machine: Machine) -> int:
    outcome = machine.run()
    refused = outcome._replace(code=ExitCode.CHECK_FAILED, sentence=f"the move was refused; the source went on: {outcome.sentence}")
    return shown.finish(refused if outcome.code == ExitCode.OK else outcome)


def _new_line(machine: Machine) -> None:
    if not machine.console.at_line_start:
        print()


MIGRATE = Command(_add_options, _migrate)
