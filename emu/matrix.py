"""Every source with every destination, guest and policy: what becomes of the guest.

A cell is worked out from the registers (firmware/migration.py). Cells whose registers, values and answers are the same form a class,
and a guest is moved live for each class (emu/livemove.py): the table is not a theory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from typing import Final, NamedTuple

from emu.hosts import host_of
from emu.migrate import destination_of
from emu.policyfile import policy_of
from emu.setup import guest_config
from firmware.abi import PSCI_0_1, PSCI_VERSIONS, Version
from firmware.errors import RegisterError, UserError, errno_name, unknown
from firmware.host import Config, Mitigations
from firmware.migration import Migration, created, plan
from firmware.policy import Asks, MachineType, Policy
from firmware.view import WORKAROUNDS, View, view

DEFAULT_GUEST: Final = "default"
_VERSIONS: Final = {str(version): version for version in PSCI_VERSIONS}


class Case(NamedTuple):
    """One cell's question, as plain data.

    guest        "default", a PSCI version, or a machine type of the policy's
    policy       a name, or a TOML file's path
    source_cpu, destination_cpu  what the hosts' CPUs need and have
    """

    source: str
    destination: str
    guest: str
    policy: str
    source_cpu: Mitigations
    destination_cpu: Mitigations


class Side(NamedTuple):
    """A VM as one side's VMM creates it, or why that cannot be had."""

    config: Config | None
    refusal: str = ""
    errno: str = ""


class Answer(NamedTuple):
    """One cell's answer: a symbol of the legend, and how it came about; `migration` is None where no VM could be created."""

    symbol: str
    source: Side
    destination: Side
    migration: Migration | None


LEGEND: Final = (
    ("=", "moved, and the guest sees the version and the mitigations it had"),
    ("v", "moved, and the PSCI version is another"),
    ("m", "moved, and a mitigation is lost"),
    ("b", "moved, and both"),
    ("x", "refused: the source goes on"),
    ("c", "refused earlier still: the destination's VM cannot be created as the guest's owner asked"),
    (".", "no such guest: the source does not offer it"),
)


class Matrix:
    """Answer cells; what many cells share is worked out once."""

    def __init__(self) -> None:
        self._policies: dict[str, Policy] = {}
        self._sides: dict[tuple[str, str, str, Mitigations, bool], Side] = {}
        self._views: dict[object, View] = {}

    def policy(self, name: str) -> Policy:
        if name not in self._policies:
            self._policies[name] = policy_of(name)
        return self._policies[name]

    def answer(self, case: Case) -> Answer:
        """Work out one cell."""
        source = self.side(case, destination=False)
        destination = self.side(case, destination=True)
        if source.config is None:
            return Answer(".", source, destination, None)
        if destination.config is None:
            return Answer("c", source, destination, None)
        policy = self.policy(case.policy)
        migration = plan(source.config, destination.config, policy, machine_type_of(policy, case.guest), self._ask)
        return Answer(_symbol(migration), source, destination, migration)

    def side(self, case: Case, *, destination: bool) -> Side:
        """Return the VM that a side's VMM creates before anything is sent."""
        name, cpu = (case.destination, case.destination_cpu) if destination else (case.source, case.source_cpu)
        key = (name, case.guest, case.policy, cpu, destination)
        if key not in self._sides:
            self._sides[key] = self._create(*key)
        return self._sides[key]

    def _create(self, name: str, guest: str, policy_name: str, cpu: Mitigations, destination: bool) -> Side:
        policy = self.policy(policy_name)
        asked = _VERSIONS.get(guest)
        host = host_of(name)
        create = destination_of if destination else created
        try:
            return Side(create(guest_config(host, cpu), host, policy, machine_type_of(policy, guest), asked))
        except RegisterError as error:
            number = errno_name(error.errno)
            return Side(None, str(error).removeprefix(f"{number}: "), number)
        except UserError as error:
            return Side(None, str(error))

    def _ask(self, config: Config) -> View:
        key = (config.host.name, config.offered, config.version, config.bitmaps, config.mitigations)
        if key not in self._views:
            self._views[key] = view(config, config.host.default_conduit)
        return self._views[key]


def machine_type_of(policy: Policy, guest: str) -> MachineType:
    """Return the machine type that a cell's guest has: the policy's first one, unless the guest names another."""
    return policy.machine_type(None if guest == DEFAULT_GUEST or guest in _VERSIONS else guest)


def guests_of(policy: Policy) -> tuple[str, ...]:
    """Name the guests that a policy can tell apart: by machine type, and by the versions that a user may ask for."""
    types = (DEFAULT_GUEST,) if len(policy.machine_types) == 1 else tuple(each.name for each in policy.machine_types)
    versions: Iterable[Version] = (PSCI_0_1,) if policy.asks is Asks.NOBODY else PSCI_VERSIONS
    return types + tuple(map(str, versions))


def cases(
    sources: Sequence[str],
    destinations: Sequence[str],
    policies: Sequence[str],
    guests: Sequence[str] | None,
    cpus: tuple[Mitigations, Mitigations],
) -> Iterator[Case]:
    """Yield every cell's question; `guests` None for all that each policy can tell apart, `cpus` the source's and the destination's."""
    for policy in policies:
        offered = guests_of(policy_of(policy))
        for guest in offered if guests is None else [each for each in guests if each in offered]:
            for source, destination in itertools.product(sources, destinations):
                yield Case(source, destination, guest, policy, *cpus)


def check_guests(guests: Sequence[str], policies: Sequence[str]) -> None:
    """Refuse a guest that no policy knows."""
    known = {guest for policy in policies for guest in guests_of(policy_of(policy))}
    for guest in guests:
        if guest not in known:
            raise unknown("guest version", guest, known)


def class_of(answer: Answer) -> object:
    """Return what cells of one class have in common: registers, values, the destination's answers, and what the guest sees."""
    migration = answer.migration
    if migration is None:
        return None
    registers = tuple((step.when, step.register, step.value, step.errno) for step in migration.steps)
    return registers, migration.withheld, _seen(migration.before), None if migration.after is None else _seen(migration.after)


def _seen(seen: View) -> object:
    names = ("PSCI_VERSION", "SMCCC_VERSION")
    return tuple(seen.of(name) for name in names), tuple(seen.workaround(name) for name in WORKAROUNDS)


def _symbol(migration: Migration) -> str:
    if not migration.accepted:
        return "x"
    return {(False, False): "=", (True, False): "v", (False, True): "m", (True, True): "b"}[
        migration.version_changed, migration.mitigation_lost
    ]


class Checked(NamedTuple):
    """A class that was moved live, by its first cell; `wrong` says what came out otherwise, "" for nothing."""

    case: Case
    wrong: str


def move_live(
    representatives: Sequence[Case], executor: Executor, check: Callable[[Case], str], progress: Callable[[], None]
) -> list[Checked]:
    """Move a guest for each class, over any executor; results come in the classes' order."""
    checked = []
    for case, wrong in zip(representatives, executor.map(check, representatives, chunksize=8), strict=True):
        checked.append(Checked(case, wrong))
        progress()
    return checked
