"""Random calls and events from random vCPUs: the firmware beside the independent oracle.

Woken is sent to vCPUs that wait in CPU_SUSPEND alone, as `firmware.trap` defines it: what ends KVM_MP_STATE_SUSPENDED is the
VMM's business, which the firmware does not model and the oracle does.
"""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from firmware.abi import MASK64, PowerState, Version
from firmware.dispatch import Firmware
from firmware.errors import RegisterError
from firmware.host import Mitigations, TrustedOs
from firmware.hosts import host_named
from firmware.trap import Access, Conduit, Enter, Event, MpState, MpStateValue, Reply, Reset, Resume, Runnable, SystemEvent, Trap, Woken
from firmware.trap import SystemEventType as Type
from tests import oracle as model
from tests.firmware.harness import ENTRY, OFFERS, RAM, V0_1, fid_of, make
from tests.oracle.functions import ROWS
from tests.oracle.registers import BITMAPS

FIDS: Final = tuple(fid for row in ROWS for fid in (row.fid32, row.fid64) if fid is not None)
CPU_ON: Final = 0xC400_0003
CPU_ON_0_1: Final = 0x95C1_BA60
TRNG_FEATURES: Final = 0x8400_0051
DISCOVERY: Final = (0x8400_000A, 0x8000_0001, TRNG_FEATURES, 0xC500_0020, 0x8000_0002, 0x8600_0000)
STOLEN_TIME: Final = 0x4700_0000
TOPOLOGIES: Final = ((0x0,), (0x0, 0x1), (0x0, 0x1, 0x100, 0x101), (0x0, 0x1_0000, 0x81_0000_0000), (0x2, 0x1, 0x0))
REGISTERS: Final = (*(0x6030_0000_0014_0000 + index for index in range(5)), *BITMAPS)
SPECTRE: Final = ("unaffected", "mitigated", "vulnerable")  # in the order of the oracle's 0, 1, 2

# Mostly what a caller might mean, sometimes anything; a half of each has junk above bit 31.
MEANT: Final = st.one_of(
    st.sampled_from([0, 1, 2, 3, 4, 0x100, 0x101, 0x1_0000, 0x81_0000_0000, 0x8000_0001, 0x100_0000, 0x8000_0000, 0x4000_0000]),
    st.sampled_from([ENTRY, ENTRY + 0x1000, ENTRY + 2, RAM[0] - 4, RAM[0] + RAM[1] - 4, RAM[0] + RAM[1]]),
    st.sampled_from(FIDS),
    st.integers(0, MASK64),
)
ARGUMENTS: Final = st.builds(lambda value, junk: value | junk << 32 & MASK64, MEANT, st.sampled_from([0, 0, 0, 1, 0xDEAD_BEEF]))
FUNCTION_IDS: Final = st.one_of(
    st.sampled_from(FIDS),
    st.sampled_from([0xC400_0003, 0x8400_0003, 0x95C1_BA60, 0xC400_0001, 0x8400_0002, 0xC400_0004]),
    st.builds(lambda fid: fid | 0x1_0000, st.sampled_from(FIDS)),
    st.integers(0, 0xFFFF_FFFF),
)
CONDUITS: Final = st.sampled_from(Conduit)
IMMEDIATES: Final = st.sampled_from([0, 0, 0, 0, 1, 0xFFFF])

SEEN: Final = {PowerState.ON: 0, PowerState.OFF: 1, PowerState.ON_PENDING: 2, PowerState.SUSPENDED: 0}
RESUMES: Final = {
    Resume.NEXT: model.Resume.NEXT,
    Resume.WAIT: model.Resume.WAIT,
    Resume.NEVER: model.Resume.NEVER,
    Resume.UNDEF: model.Resume.UNDEF,
    Resume.EXIT: model.Resume.EXIT,
}
EVENTS: Final = {Type.SHUTDOWN: "off", Type.RESET: "reset", Type.SUSPEND: "suspend"}


def effects_of(reply: Reply) -> frozenset[tuple[str, int]]:
    found = set()
    for effect in reply.effects:
        if isinstance(effect, Runnable):
            found.add(("runnable", effect.vcpu))
        elif isinstance(effect, SystemEvent):
            found.add((EVENTS[effect.type], effect.flags))
        else:
            assert effect.content == bytes(64)
            found.add(("zeroed", effect.address))
    return frozenset(found)


def entry_of(reply: Reply) -> dict[str, int]:
    entry = reply.entry
    return {} if entry is None else {"pc": entry.pc, "x0": entry.x0, "pstate": entry.pstate, "ee": int(entry.big_endian)}


class Machine(RuleBasedStateMachine):
    """One VM twice. After every step the firmware is replaced by a fresh one that was restored from its state."""

    host = "spec"
    time_ns = 0

    @initialize(data=st.data())
    def power_on(self, data: st.DataObject) -> None:
        mpidrs = data.draw(st.sampled_from(TOPOLOGIES))
        version: Version = data.draw(st.sampled_from(OFFERS[self.host]))
        v2, v4, bhb = (data.draw(st.integers(0, 2)) for _ in range(3))
        ssbs = data.draw(st.booleans())
        suspend = data.draw(st.booleans())
        stolen_time = data.draw(st.booleans())
        host, options = host_named(self.host), dict[str, Any]()
        if self.host == "spec":
            if data.draw(st.booleans()):
                trusted_os = (data.draw(st.integers(0, 1)), data.draw(st.integers(0, len(mpidrs) - 1)))
                host, options = host.evolve(trusted_os=TrustedOs(*trusted_os), cite="a test"), {"trusted_os": trusted_os}
            if data.draw(st.booleans()):
                host, options = host.evolve(extended_state_id=True, cite="a test"), {**options, "extended_power_state": True}
        self.firmware = make(
            host,
            mpidrs=mpidrs,
            psci=version,
            mitigations=(Mitigations(SPECTRE[v2], SPECTRE[v4], SPECTRE[bhb], ssbs),),
            capabilities=frozenset({"system-suspend"} if suspend else ()),
            el2_fast_path=False,
            pv_time_base=STOLEN_TIME if stolen_time else None,
        )
        self.initial = self.firmware.config
        self.oracle = model.Oracle(
            self.host,
            version=version.word,
            mpidrs=[0x8000_0000 | mpidr for mpidr in mpidrs],
            feature_psci_0_2=version != V0_1,
            cap_system_suspend=suspend,
            spectre_v2=v2,
            spectre_v4=v4,
            spectre_bhb=bhb,
            ssbs=int(ssbs),
            ram=RAM,
            stolen_time_ipas={vcpu: STOLEN_TIME + 64 * vcpu for vcpu in range(len(mpidrs))} if stolen_time else {},
            **options,
        )

    # ---- comparing

    def compare(self, event: Event, same: model.Event) -> Reply:
        """Let both take an event; the whole reply must be what the oracle says."""
        reply, outcome = self.firmware.handle(event), self.oracle.step(same)
        entry = entry_of(reply)
        regs = {f"x{register}": value & ~outcome.free.get(f"x{register}", 0) for register, value in reply.regs}
        assert {**regs, **entry} == outcome.regs
        if isinstance(event, Trap):
            assert RESUMES[reply.resume] is outcome.resume
            assert not entry
        else:
            assert reply.resume is Resume.NEXT
        assert effects_of(reply) == frozenset(effect for effect in outcome.effects if effect[0] != "stopped")
        return reply

    def trap(self, vcpu: int, conduit: Conduit, imm: int, regs: tuple[int, int, int, int], big_endian: bool) -> Reply:
        if self.host == "spec" and regs[0] & 0xFFFE_FFFF == TRNG_FEATURES:
            # An upper half is a known difference: test_trng.py, test_spec_looks_at_the_low_half_of_trng_features_argument.
            regs = (regs[0], regs[1] & 0xFFFF_FFFF, *regs[2:])
        before = self.firmware.state()
        self.time_ns += 1000
        reply = self.compare(
            Trap(vcpu, conduit, regs, imm, big_endian, time_ns=self.time_ns),
            model.Trap(vcpu, conduit.value, imm, *regs, big_endian=big_endian),
        )
        if reply.resume is Resume.NEXT and dict(reply.regs).get(0, 0) >> 63:
            assert self.firmware.state() == before, "a refused call changed something"
        return reply

    def callers(self) -> list[int]:
        return [vcpu for vcpu, state in enumerate(self.oracle.states) if state.power is model.Power.ON]

    def vcpu(self, data: st.DataObject) -> int:
        return data.draw(st.integers(0, len(self.oracle.states) - 1))

    # ---- the rules

    @precondition(lambda self: self.callers())
    @rule(data=st.data(), fid=FUNCTION_IDS, args=st.tuples(ARGUMENTS, ARGUMENTS, ARGUMENTS), conduit=CONDUITS, imm=IMMEDIATES)
    def call(self, data: st.DataObject, fid: int, args: tuple[int, int, int], conduit: Conduit, imm: int) -> None:
        upper = data.draw(st.sampled_from([0, 0, 0xABCD << 32]))
        self.trap(data.draw(st.sampled_from(self.callers())), conduit, imm, (fid | upper, *args), data.draw(st.booleans()))

    @precondition(lambda self: self.callers())
    @rule(data=st.data(), discovery=st.sampled_from(DISCOVERY), asked=st.sampled_from(FIDS), junk=st.sampled_from([0, 1, 0xFFFF_FFFF]))
    def discover(self, data: st.DataObject, discovery: int, asked: int, junk: int) -> None:
        self.trap(data.draw(st.sampled_from(self.callers())), Conduit.HVC, 0, (discovery, asked | junk << 32, 0, 0), False)

    @precondition(lambda self: self.callers())
    @rule(data=st.data(), name=st.sampled_from(["CPU_ON", "AFFINITY_INFO", "CPU_SUSPEND", "CPU_OFF", "MIGRATE"]), smc64=st.booleans())
    def manage_power(self, data: st.DataObject, name: str, smc64: bool) -> None:
        """The calls that matter most, with arguments that are mostly right."""
        target = data.draw(st.sampled_from(self.firmware.config.mpidrs))
        args = {
            "CPU_ON": (target, data.draw(st.sampled_from([ENTRY, ENTRY + 8])), data.draw(ARGUMENTS)),
            "AFFINITY_INFO": (target, data.draw(st.integers(0, 4)), 0),
            "CPU_SUSPEND": (data.draw(st.sampled_from([0, 0x1_0000, 0x4000_0000, 0x100_0001])), ENTRY, data.draw(ARGUMENTS)),
            "CPU_OFF": (0, 0, 0),
            "MIGRATE": (target, 0, 0),
        }[name]
        x1, x2, x3 = args
        fid = fid_of(self.firmware, name, smc64=smc64)
        self.trap(data.draw(st.sampled_from(self.callers())), data.draw(CONDUITS), 0, (fid, x1, x2, x3), data.draw(st.booleans()))

    @precondition(lambda self: self.callers())
    @rule(data=st.data(), entry=st.sampled_from([ENTRY, ENTRY, ENTRY + 4, ENTRY + 2]), context=ARGUMENTS)
    def race(self, data: st.DataObject, entry: int, context: int) -> None:
        """Several vCPUs start one target: the first success is the only one."""
        target = self.vcpu(data)
        was_off = self.oracle.states[target].power is model.Power.OFF
        fid = CPU_ON_0_1 if self.firmware.config.offered == V0_1 else CPU_ON
        callers = data.draw(st.lists(st.sampled_from(self.callers()), min_size=2, max_size=4))
        mpidr = self.firmware.config.mpidrs[target]
        replies = [self.trap(vcpu, Conduit.HVC, 0, (fid, mpidr, entry, context), False) for vcpu in callers]
        won = [reply for reply in replies if dict(reply.regs)[0] == 0]
        good = entry % 4 == 0 or self.host != "spec"
        assert won == replies[: int(was_off and good)]

    @rule(data=st.data())
    def enter(self, data: st.DataObject) -> None:
        vcpu = self.vcpu(data)
        self.compare(Enter(vcpu), model.Enter(vcpu))

    @rule(data=st.data())
    def access(self, data: st.DataObject) -> None:
        vcpu = self.vcpu(data)
        self.compare(Access(vcpu), model.RegisterAccess(vcpu))

    @rule(data=st.data())
    def wake(self, data: st.DataObject) -> None:
        vcpu = self.vcpu(data)
        state = self.oracle.states[vcpu]
        if state.power is not model.Power.SUSPENDED or state.wake is not None:
            self.compare(Woken(vcpu), model.Woken(vcpu))

    @rule(data=st.data(), state=st.sampled_from(list(zip(MpStateValue, model.Mp, strict=True))))
    def mp_state(self, data: st.DataObject, state: tuple[MpStateValue, model.Mp]) -> None:
        vcpu = self.vcpu(data)
        self.compare(MpState(vcpu, state[0]), model.MpState(vcpu, state[1]))

    @rule(really=st.integers(0, 3))
    def reset(self, really: int) -> None:
        if really == 0:
            self.compare(Reset(), model.Reset())

    @rule(
        register=st.one_of(st.sampled_from(REGISTERS), st.integers(0, MASK64)),
        value=st.one_of(st.integers(0, 0x13), st.sampled_from([0x1_0000, 0x1_0001, 0x1_0002, 0x1_0003, 0x1_0004])),
    )
    def write_register(self, register: int, value: int) -> None:
        before = self.firmware.state()
        try:
            self.firmware.set_one_reg(register, value)
            errno = 0
        except RegisterError as error:
            errno = error.errno
            assert self.firmware.state() == before, "a refused write changed something"
        assert errno == registers_set(self.oracle, register, value)

    # ---- what holds after every step

    @invariant()
    def registers_agree(self) -> None:
        for register in self.firmware.reg_list():
            assert (0, self.firmware.get_one_reg(register)) == registers_get(self.oracle, register)
        assert self.firmware.reg_list() == self.oracle.list_registers()

    @invariant()
    def power_states_agree(self) -> None:
        pending = self.firmware.config.host.pending_seen_as
        seen = (pending if state is PowerState.ON_PENDING else state for state in self.firmware.power.states)
        assert tuple(SEEN[state] for state in seen) == tuple(
            {model.Power.OFF: 1, model.Power.ON_PENDING: 2}.get(state.power, 0) for state in self.oracle.states
        )

    @invariant()
    def a_restored_firmware_is_the_same(self) -> None:
        state = self.firmware.state()
        restored = Firmware(self.initial)
        restored.restore(state)
        assert restored.state() == state
        assert restored.config == self.firmware.config
        self.firmware = restored


def registers_get(oracle: model.Oracle, register: int) -> tuple[int, int | None]:
    # Not `Oracle.get_register`, which is a RegisterAccess as well: the firmware is told of that by an event of its own.
    errno, value = model.registers.get(oracle.config, oracle.world, register)
    return int(errno), value


def registers_set(oracle: model.Oracle, register: int, value: int) -> int:
    errno, oracle.world = model.registers.set_(oracle.config, oracle.world, register, value)
    return int(errno)


class KvmMachine(Machine):
    host = "kvm-6.12"


@pytest.mark.parametrize("machine", [Machine, KvmMachine], ids=lambda machine: machine.host)
def test_firmware_and_oracle_never_part(machine: type[Machine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            derandomize=True,
            database=None,
            deadline=None,
            max_examples=100,
            stateful_step_count=50,
            suppress_health_check=list(HealthCheck),
        ),
    )
