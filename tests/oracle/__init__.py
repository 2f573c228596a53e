"""A second, independent model of the firmware: tables from the reference pages, and nothing of the code under test.

`Oracle(host, ...)` holds a state, takes the boundary's events through `step`, and says what must happen. Tests run it beside the
firmware and compare. Differences between hosts are columns (`columns.py`); functions are rows (`functions.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tests.oracle import registers
from tests.oracle.columns import HOSTS, UNAFFECTED, Columns
from tests.oracle.dispatch import trapped
from tests.oracle.words import (
    Effect,
    Enter,
    Errno,
    Event,
    Mp,
    MpState,
    Outcome,
    PendingReset,
    Power,
    Psci,
    RegisterAccess,
    Regs,
    Reset,
    Resume,
    Standby,
    Trap,
    Vcpu,
    Woken,
)
from tests.oracle.world import NO_TRUSTED_OS, Config, World

__all__ = [
    "HOSTS",
    "Columns",
    "Config",
    "Effect",
    "Enter",
    "Errno",
    "Event",
    "Mp",
    "MpState",
    "Oracle",
    "Outcome",
    "PendingReset",
    "Power",
    "Psci",
    "RegisterAccess",
    "Regs",
    "Reset",
    "Resume",
    "Standby",
    "Trap",
    "Vcpu",
    "Woken",
    "World",
    "call",
    "transition",
]


def transition(config: Config, world: World, event: Event) -> tuple[Outcome, World]:
    """The whole model as one pure function of configuration, state and event."""
    match event:
        case Trap():
            return trapped(config, world, event)
        case Enter(index):
            vcpu = world.vcpus[index]
            started = Power.ON if vcpu.power is Power.ON_PENDING else vcpu.power
            return _apply_reset(replace(world.put(index, replace(vcpu, power=started)), has_run=True), index)
        case RegisterAccess(index):
            return _apply_reset(world, index) if config.columns.access_applies_reset else (Outcome(world.vcpus), world)
        case Woken(index):
            return _woken(world, index)
        case MpState(index, state):
            world = world.put(index, _in_mp_state(config, world.vcpus[index], state))
        case Reset():
            vcpus = tuple(Vcpu(Power.OFF if index else Power.ON) for index in range(len(world.vcpus)))
            world = replace(world, vcpus=vcpus, os_initiated=False, slept={})
    return Outcome(world.vcpus), world


def _apply_reset(world: World, index: int) -> tuple[Outcome, World]:
    vcpu = world.vcpus[index]
    world = world.put(index, replace(vcpu, pending=None, skips=False))
    return Outcome(world.vcpus, vcpu.reset()), world


def _woken(world: World, index: int) -> tuple[Outcome, World]:
    vcpu = world.vcpus[index]
    if vcpu.power is not Power.SUSPENDED:
        return Outcome(world.vcpus), world
    if vcpu.wake is None:
        # KVM's MP_STATE_SUSPENDED is sticky: the wake-up is reported and only user space ends the state.
        return Outcome(world.vcpus, resume=Resume.EXIT, effects=frozenset({("woken", index)})), world
    regs = vcpu.reset()
    world = world.put(index, Vcpu(Power.ON))
    if vcpu.wake.power_state is not None:
        key = (index, vcpu.wake.power_state)
        world = replace(world, slept={**world.slept, key: world.slept.get(key, 0) + 1})
    return Outcome(world.vcpus, regs, Resume.NEXT), world


def _in_mp_state(config: Config, vcpu: Vcpu, state: Mp) -> Vcpu:
    """What the VMM's KVM_SET_MP_STATE leaves: it neither applies nor drops a pending reset."""
    runnable = Power.ON_PENDING if config.columns.on_pending and vcpu.pending else Power.ON
    power = {Mp.RUNNABLE: runnable, Mp.STOPPED: Power.OFF, Mp.SUSPENDED: Power.SUSPENDED}[state]
    # It is an ioctl of the vCPU's: KVM_RUN has returned, and has moved the PC if that waited.
    return replace(vcpu, power=power, wake=None, skips=vcpu.skips and vcpu.pending is not None)


class Oracle:
    """One VM on one modelled host.

    host           a name of `HOSTS`, or a `Columns` of your own
    version        the PSCI version's encoding (0x2, 0x1_0001); None: the host's default, 0x1 without the feature bit
    vcpus, mpidrs  how many, or each one's MPIDR_EL1; vCPU 0 starts ON, the others OFF
    trusted_os     (type, vCPU it sits on), with MIGRATE_INFO_TYPE's types
    """

    def __init__(
        self,
        host: str | Columns,
        *,
        version: int | None = None,
        vcpus: int = 1,
        mpidrs: Sequence[int] | None = None,
        feature_psci_0_2: bool = True,
        cap_system_suspend: bool = False,
        spectre_v2: int = UNAFFECTED,
        spectre_v4: int = UNAFFECTED,
        spectre_bhb: int = UNAFFECTED,
        ssbs: int = 0,
        ram: tuple[int, int] | None = None,
        trusted_os: tuple[int, int] | None = None,
        extended_power_state: bool = False,
        conduits: frozenset[str] = frozenset(("hvc", "smc")),
        stolen_time_ipas: Mapping[int, int] | None = None,
        ptp: bool = True,
    ) -> None:
        columns = HOSTS[host] if isinstance(host, str) else host
        trusted_os_type, trusted_os_cpu = trusted_os or (NO_TRUSTED_OS, 0)
        self.config = Config(
            columns=columns,
            mpidrs=tuple(mpidrs) if mpidrs is not None else tuple(0x8000_0000 | index for index in range(vcpus)),
            feature_psci_0_2=feature_psci_0_2,
            cap_system_suspend=cap_system_suspend,
            spectre_v2=spectre_v2,
            spectre_v4=spectre_v4,
            spectre_bhb=spectre_bhb,
            ssbs=ssbs,
            ram=ram,
            trusted_os_type=trusted_os_type,
            trusted_os_cpu=trusted_os_cpu,
            extended_power_state=extended_power_state,
            conduits=conduits,
            stolen_time_ipas=stolen_time_ipas or {},
            ptp=ptp,
        )
        accepted = columns.versions if feature_psci_0_2 else (0x1,)
        version = accepted[-1] if version is None else version
        assert version in accepted, f"{columns.name} offers {accepted}, not {version:#x}"
        self.world = World(
            vcpus=tuple(Vcpu(Power.OFF if index else Power.ON) for index in range(len(self.config.mpidrs))),
            version=version,
            bitmaps=dict(zip(registers.BITMAPS, columns.bitmap_resets, strict=True)),
        )

    @property
    def states(self) -> tuple[Vcpu, ...]:
        return self.world.vcpus

    def step(self, event: Event) -> Outcome:
        outcome, self.world = transition(self.config, self.world, event)
        return outcome

    def list_registers(self) -> tuple[int, ...]:
        return self.config.columns.registers

    def get_register(self, reg: int, vcpu: int = 0) -> tuple[Errno, int | None]:
        """Read through `vcpu`: a RegisterAccess even where the register is refused."""
        self.step(RegisterAccess(vcpu))
        return registers.get(self.config, self.world, reg)

    def set_register(self, reg: int, value: int, vcpu: int = 0) -> Errno:
        self.step(RegisterAccess(vcpu))
        errno, self.world = registers.set_(self.config, self.world, reg, value)
        return errno


def call(oracle: Oracle, fid: int, *arguments: int, vcpu: int = 0) -> Outcome:
    """Call by HVC #0, the arguments from x1 up and the rest 0."""
    x1, x2, x3 = (*arguments, 0, 0, 0)[:3]
    return oracle.step(Trap(vcpu, "hvc", 0, fid, x1, x2, x3))
