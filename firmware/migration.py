"""May this guest be moved to that host, and what does it see there?

As KVM and its VMMs do it: the source's registers travel as a list of IDs and values, each is written on the destination in the list's
order, and the destination's errno decides. What a policy adds stands in policy.py.

1. Pure: configurations and states in, a `Migration` out; moving a machine is the machine's business.
2. Accepted or refused is one thing; whether the version changed and whether a mitigation was lost are two others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from firmware import fwregs
from firmware.abi import PSCI_0_1, Version
from firmware.dispatch import FirmwareState, configuration
from firmware.errors import RegisterError, UserError, errno_name
from firmware.host import Config, Host, Mitigations
from firmware.policy import MachineType, Missing, Policy
from firmware.view import WORKAROUNDS, Answer, View


class Step(NamedTuple):
    """One register on its way.

    when   "at creation" for what the destination's VMM writes by itself, "sent" for the stream, "not sent" for what was not in it
    errno  the kernel's spelling, "" where the write was accepted
    why    one sentence
    """

    when: str
    register: str
    id: int
    value: int
    errno: str
    why: str
    refused: bool = False


class Loss(NamedTuple):
    """A mitigation that a vCPU had and has no more."""

    vcpu: int
    workaround: str
    before: Answer
    after: Answer
    why: str


class Migration(NamedTuple):
    """How a move goes.

    steps            every register, in order
    withheld         (register, value) that the sender kept back
    config           the destination's configuration after the move; None where it was refused
    before, after    what the guest sees; after is None where it was refused
    losses           mitigations lost
    """

    steps: tuple[Step, ...]
    withheld: tuple[tuple[str, int], ...]
    config: Config | None
    before: View
    after: View | None
    losses: tuple[Loss, ...]

    @property
    def accepted(self) -> bool:
        return self.config is not None

    @property
    def refusals(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.refused)

    @property
    def version_changed(self) -> bool:
        return self.after is not None and self.before.version != self.after.version

    @property
    def mitigation_lost(self) -> bool:
        return bool(self.losses)


# ---- the guest's side of a policy


def created(like: Config, host: Host, policy: Policy, machine_type: MachineType, asked: Version | None) -> Config:
    """Return a fresh VM's configuration on a host under a policy, other facts (topology, memory, conduits, the CPU's state) as in `like`.

    asked  the version that the user asked for, None for none; 0.1 is a vCPU without the PSCI_0_2 bit
    Raises UserError (RegisterError with KVM's errno) for a version that cannot be had.
    """
    config = configuration(host, like.mpidrs)
    if policy.kernel_default is not None and "PSCI_VERSION" in host.registers:
        if policy.kernel_default not in host.versions:
            told = f"host {host.name} cannot offer PSCI {policy.kernel_default} unasked; it has {_listed(host)}"
            raise UserError(f"policy {policy.name}: {told}")
        config = dataclasses.replace(config, version=policy.kernel_default)
    kept = {column: getattr(like, column) for column in _OF_THE_VM}
    config = dataclasses.replace(config, **kept)
    version = asked or machine_type.asks_for
    if asked == PSCI_0_1:
        if not host.offers_0_1:
            raise UserError(f"host {host.name} does not offer PSCI 0.1")
        return dataclasses.replace(config, psci_0_2=False)
    if version is None or version == config.offered:
        return config
    if "PSCI_VERSION" not in host.registers:
        raise RegisterError(_ENOENT, f"host {host.name} has no version register: PSCI {host.latest} is all it offers, not {version}")
    return fwregs.BY_NAME["PSCI_VERSION"].set(config, version.word, False)


def _listed(host: Host) -> str:
    return ", ".join(map(str, host.versions))


_ENOENT: Final = 2
_OF_THE_VM: Final = ("conduits", "ram", "pv_time_base", "wall_clock_ns", "mitigations", "capabilities", "el2_fast_path")


def carried(state: FirmwareState, source: Host, config: Config) -> FirmwareState:
    """Return the firmware's state as it arrives on a destination that took the registers.

    What waits for a vCPU's entry travels in its registers, where the source's host brings them up to date before they are read.
    """
    power = state.power.as_user_space_finds_it()
    if not source.access_applies_reset:
        # Only what CPU_SUSPEND left behind is not a reset; no such host has it.
        power = power._replace(pending=(None,) * len(power.pending))
    power = power._replace(ssbd_off=config.ssbd_off)
    return dataclasses.replace(state, version=config.version, psci_0_2=config.psci_0_2, bitmaps=config.bitmaps, power=power)


# ---- the move


def plan(source: Config, fresh: Config, policy: Policy, machine_type: MachineType, ask: Callable[[Config], View]) -> Migration:
    """Say how a guest moves from a source to a fresh VM on the destination.

    source        its configuration as it is
    fresh         the destination's VM as its VMM created it (`created`), with the destination's CPU
    machine_type  one of the policy's, the same on both sides
    ask           what a guest sees under a configuration (`firmware/view.py`, over the conduit it calls by)
    """
    before = ask(source)
    steps: list[Step] = []
    withheld = []
    config = fresh
    sent = set()
    for register, value in _values(source):
        if register.name in machine_type.hides or not policy.sends(register.name, value):
            withheld.append((register.name, value))
            continue
        sent.add(register.name)
        step, config = _write("sent", config, register, value, policy)
        steps.append(step)
        if not step.errno and fwregs.switched(register, config, value) is False:
            config = dataclasses.replace(config, ssbd_off=source.ssbd_off)
    for register in fwregs.of_host(fresh):
        if register.name not in sent and register.name not in machine_type.hides:
            step, config = _missing(config, register, policy)
            steps.append(step)
    if any(step.refused for step in steps):
        return Migration(tuple(steps), tuple(withheld), None, before, None, ())
    after = ask(config)
    return Migration(tuple(steps), tuple(withheld), config, before, after, _losses(before, after, config))


def _values(source: Config) -> Iterator[tuple[fwregs.Register, int]]:
    # Each vCPU's registers travel. Where one's value is not another's, there is a step for each value.
    for register in fwregs.of_host(source):
        values = (fwregs.read(register, source, off=vcpu in source.ssbd_off) for vcpu in range(len(source.mpidrs)))
        for value in dict.fromkeys(values):
            yield register, value


def _write(when: str, config: Config, register: fwregs.Register, value: int, policy: Policy) -> tuple[Step, Config]:
    try:
        config = fwregs.find(config, register.id).set(config, value, False)
    except RegisterError as error:
        name = errno_name(error.errno)
        ignored = register.name not in config.host.registers and policy.may_lack(register.name)
        return Step(when, register.name, register.id, value, name, str(error).removeprefix(f"{name}: "), not ignored), config
    return Step(when, register.name, register.id, value, "", "accepted"), config


def _missing(config: Config, register: fwregs.Register, policy: Policy) -> tuple[Step, Config]:
    value = register.get(config)
    if register.name == "PSCI_VERSION" and policy.absent_version is not None:
        return _write("not sent", config, register, policy.absent_version.word, policy)
    if policy.missing is Missing.KEEP:
        return Step("not sent", register.name, register.id, value, "", "the destination's own value stays"), config
    return Step("not sent", register.name, register.id, value, "", f"policy {policy.name} does not let it be missing", True), config


# ---- the verdict on mitigations

# What ARCH_FEATURES says of a workaround: 0 call it; 1 or -2 there is no need to (DEN 0028, SMCCC_ARCH_WORKAROUND_1 to 3).
_CALL_IT: Final = 0
_NO_NEED: Final = {"SMCCC_ARCH_WORKAROUND_1": (1,), "SMCCC_ARCH_WORKAROUND_2": (1, -2), "SMCCC_ARCH_WORKAROUND_3": (1,)}


def _state(name: str, mitigations: Mitigations) -> str:
    return {
        "SMCCC_ARCH_WORKAROUND_1": mitigations.spectre_v2,
        "SMCCC_ARCH_WORKAROUND_2": mitigations.spectre_v4,
        "SMCCC_ARCH_WORKAROUND_3": mitigations.spectre_bhb,
    }[name]


def _losses(before: View, after: View, config: Config) -> tuple[Loss, ...]:
    # What a guest was never led to, it does not lose, though a call past all rules may have been answered.
    if not before.leads_to_mitigations:
        return ()
    losses = []
    for name in WORKAROUNDS:
        pairs = zip(before.workaround(name), after.workaround(name), strict=True)
        for vcpu, (was, is_) in enumerate(pairs):
            why = _lost(name, was, is_, config.mitigation(vcpu))
            if why is not None:
                losses.append(Loss(vcpu, name, was, is_, why))
    return tuple(losses)


def _lost(name: str, was: Answer, is_: Answer, cpu: Mitigations) -> str | None:
    needless = _NO_NEED[name]
    if was != _CALL_IT and was not in needless:
        return None
    if is_ != _CALL_IT and is_ not in needless:
        return "the destination does not offer it"
    if _state(name, cpu) == "vulnerable":
        return "the destination offers it, but its CPU has no such mitigation"
    if was in needless and is_ == _CALL_IT:
        return "the guest was told that it need not call it, and here it must"
    return None
