"""PSCI's state, each vCPU's and the whole VM's, and what a vCPU's reset undoes beside it: the only code that changes either.

1. Nothing outside this file assigns a power state, a pending entry, or anything else that a snapshot holds.
2. This file knows neither hosts, nor function IDs, nor return codes.
3. A pending entry is applied once: by `enter`, by `access` or by `wake`, whichever comes first.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from firmware.abi import AFFINITY_FIELDS, ENTRY_PSTATE, MASK64, PowerState
from firmware.trap import EntryState, MpStateValue, Runnable

# What an affinity level compares: all of the MPIDR value but the fields below the level.
_COMPARED_FIELDS: Final = tuple(~sum(AFFINITY_FIELDS[:level]) for level in range(len(AFFINITY_FIELDS)))


# What a vCPU's registers are after a reset that nobody's CPU_ON asked for.
AT_RESET: Final = EntryState(pc=0, x0=0, pstate=ENTRY_PSTATE, big_endian=False)

_INSTRUCTION_BYTES: Final = 4

# How many different power_states are counted for each vCPU: a platform has a handful, a guest could invent a great many.
_COUNTED_POWER_STATES: Final = 256


class Suspension(NamedTuple):
    """A vCPU's sleep under way: the power_state it asked for, and since when."""

    power_state: int
    since_ns: int


class Statistics(NamedTuple):
    """How often a vCPU has slept in a power_state, and for how long in all."""

    times: int = 0
    residency_ns: int = 0


class PowerSnapshot(NamedTuple):
    """Everything `Power` holds.

    states, pending   power state and pending entry of each vCPU
    suspensions       each vCPU's sleep that will be counted, None where there is none
    statistics        (vcpu, power_state) with its statistics, in ascending order
    os_initiated      the suspend mode
    memory_protected  what MEM_PROTECT was last told
    suspended_by_user  vCPUs that user space made KVM_MP_STATE_SUSPENDED, which is no sleep of their own
    ssbd_off          vCPUs whose Spectre v4 mitigation is switched off, where a guest can do that
    skipping          vCPUs whose next entry comes to stand behind its first instruction
    """

    states: tuple[PowerState, ...]
    pending: tuple[EntryState | None, ...]
    suspensions: tuple[Suspension | None, ...] = ()
    statistics: tuple[tuple[tuple[int, int], Statistics], ...] = ()
    os_initiated: bool = False
    memory_protected: bool = False
    suspended_by_user: frozenset[int] = frozenset()
    ssbd_off: frozenset[int] = frozenset()
    skipping: frozenset[int] = frozenset()

    def as_user_space_finds_it(self) -> PowerSnapshot:
        """Return what is left when no vCPU is in KVM_RUN any more: instructions that were to be skipped have been."""
        # Since Linux commit 26e0aabb38a6 ("KVM: arm64: Commit pending PC adjustemnts before returning to userspace") (in v5.13).
        pending = [entry and _behind(entry) if vcpu in self.skipping else entry for vcpu, entry in enumerate(self.pending)]
        return self._replace(pending=tuple(pending), skipping=frozenset())


def _behind(entry: EntryState) -> EntryState:
    return entry._replace(pc=entry.pc + _INSTRUCTION_BYTES & MASK64)


class Power:
    """Guard the PSCI state of every vCPU, and what PSCI remembers of the whole VM.

    mpidrs    affinity fields of each vCPU's MPIDR_EL1, by vCPU index; all different
    ssbd_off  vCPUs that begin with their Spectre v4 mitigation switched off
    """

    def __init__(self, mpidrs: tuple[int, ...], ssbd_off: frozenset[int] = frozenset()) -> None:
        self.mpidrs = mpidrs
        self._index = {mpidr: vcpu for vcpu, mpidr in enumerate(mpidrs)}
        self.states: list[PowerState] = []
        self._pending: list[EntryState | None] = []
        self._suspensions: list[Suspension | None] = []
        self._statistics: dict[tuple[int, int], Statistics] = {}
        self.os_initiated = False
        self.memory_protected = False
        self._suspended_by_user: set[int] = set()
        self.reset()
        self._ssbd_off = set(ssbd_off)
        self._skipping: set[int] = set()

    # ---- questions

    def find(self, target_cpu: int) -> int | None:
        """Return the vCPU with exactly this MPIDR value, or None."""
        return self._index.get(target_cpu)

    def states_of(self, target_affinity: int, lowest_affinity_level: int) -> list[PowerState]:
        """Return the states of an affinity instance's vCPUs; fields below the level are ignored (DEN 0022, AFFINITY_INFO)."""
        if lowest_affinity_level == 0:
            vcpu = self._index.get(target_affinity)
            return [] if vcpu is None else [self.states[vcpu]]
        compared = _COMPARED_FIELDS[lowest_affinity_level]
        return [self.states[vcpu] for vcpu, mpidr in enumerate(self.mpidrs) if not (mpidr ^ target_affinity) & compared]

    def vcpus_of(self, target_affinity: int, level: int) -> list[int]:
        """Return an affinity instance's vCPUs; fields below the level are ignored."""
        compared = _COMPARED_FIELDS[level]
        return [vcpu for vcpu, mpidr in enumerate(self.mpidrs) if not (mpidr ^ target_affinity) & compared]

    def others_off(self, vcpu: int) -> bool:
        return all(state is PowerState.OFF for other, state in enumerate(self.states) if other != vcpu)

    def others_started(self, vcpu: int) -> bool:
        return all(state is not PowerState.OFF for other, state in enumerate(self.states) if other != vcpu)

    def is_last_running(self, vcpu: int, level: int) -> bool:
        """Say whether no other vCPU of this one's affinity instance at a level runs or is about to."""
        others = (other for other in self.vcpus_of(self.mpidrs[vcpu], level) if other != vcpu)
        return not any(self.states[other] in (PowerState.ON, PowerState.ON_PENDING) for other in others)

    def has_lost_its_state(self, vcpu: int) -> bool:
        """Say whether a vCPU sleeps in a powerdown state: it will wake up at an entry point."""
        return self.states[vcpu] is PowerState.SUSPENDED and self._pending[vcpu] is not None

    def is_suspended_by_user(self, vcpu: int) -> bool:
        """Say whether it was user space that put a vCPU to sleep (KVM_MP_STATE_SUSPENDED)."""
        return self.states[vcpu] is PowerState.SUSPENDED and vcpu in self._suspended_by_user

    @property
    def ssbd_off(self) -> frozenset[int]:
        return frozenset(self._ssbd_off)

    def statistics(self, vcpu: int, power_state: int) -> Statistics:
        return self._statistics.get((vcpu, power_state), Statistics())

    # ---- what calls do

    def start(self, vcpu: int, entry: EntryState) -> Runnable:
        """Make a vCPU that does not run ON_PENDING; it takes on `entry` when it is next entered."""
        assert self.states[vcpu] in (PowerState.OFF, PowerState.ON_PENDING)
        self.states[vcpu] = PowerState.ON_PENDING
        self._pending[vcpu] = entry
        return Runnable(vcpu)

    def start_reset(self, vcpu: int, entry: EntryState) -> Runnable:
        """Make a vCPU that does not run ON, reset to `entry` already."""
        assert self.states[vcpu] is PowerState.OFF
        self.states[vcpu] = PowerState.ON
        self._pending[vcpu] = None
        self._ssbd_off.discard(vcpu)
        return Runnable(vcpu, entry)

    def stop(self, vcpu: int, *, skips: bool = False) -> None:
        """Stop a vCPU; `skips` leaves behind that its PC is still to be moved past the instruction that did it."""
        self.states[vcpu] = PowerState.OFF
        if skips:
            self._skipping.add(vcpu)

    def stop_all(self) -> None:
        """Stop every vCPU; entries that are pending stay so."""
        self.states = [PowerState.OFF] * len(self.mpidrs)
        self._suspensions = [None] * len(self.mpidrs)

    def suspend(self, vcpu: int, entry: EntryState | None, counted: Suspension | None = None) -> None:
        """Put the caller to sleep; with `entry` it lost its state and wakes up there. `counted` goes into the statistics."""
        self.states[vcpu] = PowerState.SUSPENDED
        self._suspended_by_user.discard(vcpu)
        self._suspensions[vcpu] = counted
        if entry is not None:
            self._pending[vcpu] = entry

    def switch_ssbd(self, vcpu: int, *, on: bool) -> None:
        """Switch a vCPU's Spectre v4 mitigation; its reset switches it on again."""
        if on:
            self._ssbd_off.discard(vcpu)
        else:
            self._ssbd_off.add(vcpu)

    def set_suspend_mode(self, os_initiated: bool) -> None:
        self.os_initiated = os_initiated

    def protect_memory(self, enable: bool) -> bool:
        """Set memory protection; return what it was."""
        before, self.memory_protected = self.memory_protected, enable
        return before

    # ---- what events do

    def enter(self, vcpu: int) -> EntryState | None:
        """End ON_PENDING and hand out the pending entry, if any."""
        if self.states[vcpu] is PowerState.ON_PENDING:
            self.states[vcpu] = PowerState.ON
        return self.access(vcpu)

    def access(self, vcpu: int) -> EntryState | None:
        """Hand out the pending entry, if any; the power state stays."""
        entry, self._pending[vcpu] = self._pending[vcpu], None
        if entry is not None:
            self._ssbd_off.discard(vcpu)
            if vcpu in self._skipping:
                entry = _behind(entry)
        self._skipping.discard(vcpu)
        return entry

    def wake(self, vcpu: int, time_ns: int = 0) -> EntryState | None:
        """End SUSPENDED and count it; hand out the entry of a vCPU that lost its state."""
        if self.states[vcpu] is not PowerState.SUSPENDED:
            return None
        self.states[vcpu] = PowerState.ON
        suspension, self._suspensions[vcpu] = self._suspensions[vcpu], None
        if suspension is not None:
            self._count(vcpu, suspension, time_ns)
        return self.access(vcpu)

    def _count(self, vcpu: int, suspension: Suspension, time_ns: int) -> None:
        key = (vcpu, suspension.power_state)
        if key not in self._statistics and sum(counted == vcpu for counted, _ in self._statistics) >= _COUNTED_POWER_STATES:
            return
        times, residency_ns = self.statistics(*key)
        self._statistics[key] = Statistics(times + 1, residency_ns + max(0, time_ns - suspension.since_ns))

    def set_mp_state(self, vcpu: int, state: MpStateValue) -> None:
        """Do as KVM_SET_MP_STATE; a pending entry is neither applied nor dropped, and no sleep is counted."""
        self._suspensions[vcpu] = None
        self._suspended_by_user.discard(vcpu)
        if self._pending[vcpu] is None:
            self._skipping.discard(vcpu)
        if state is MpStateValue.STOPPED:
            self.states[vcpu] = PowerState.OFF
        elif state is MpStateValue.SUSPENDED:
            self.states[vcpu] = PowerState.SUSPENDED
            self._suspended_by_user.add(vcpu)
        else:
            self.states[vcpu] = PowerState.ON if self._pending[vcpu] is None else PowerState.ON_PENDING

    def initialise(self, vcpu: int, *, stopped: bool) -> EntryState:
        """Do as KVM_ARM_VCPU_INIT, and hand out the state it resets the vCPU to: a pending entry, if any.

        The request behind a pending entry stays: whatever applies it next resets the vCPU again, to no entry point of anybody's.
        """
        entry = self._pending[vcpu]
        if entry is not None:
            self._pending[vcpu] = AT_RESET
        self._ssbd_off.discard(vcpu)
        self._skipping.discard(vcpu)
        self.set_mp_state(vcpu, MpStateValue.STOPPED if stopped else MpStateValue.RUNNABLE)
        return entry or AT_RESET

    def reset(self) -> None:
        """Be as at power-on, but for memory protection: it is there for what a reset would otherwise leave behind."""
        self.stop_all()
        self.states[0] = PowerState.ON
        self._pending = [None] * len(self.mpidrs)
        self._statistics = {}
        self.os_initiated = False
        self._ssbd_off = set()
        self._skipping = set()

    # ---- snapshot

    def snapshot(self) -> PowerSnapshot:
        return PowerSnapshot(
            tuple(self.states),
            tuple(self._pending),
            tuple(self._suspensions),
            tuple(sorted(self._statistics.items())),
            self.os_initiated,
            self.memory_protected,
            frozenset(vcpu for vcpu in self._suspended_by_user if self.is_suspended_by_user(vcpu)),
            self.ssbd_off,
            frozenset(self._skipping),
        )

    def restore(self, snapshot: PowerSnapshot) -> None:
        states, pending, suspensions, statistics, self.os_initiated, self.memory_protected, suspended_by_user, ssbd_off, skipping = snapshot
        self.states, self._pending = list(states), list(pending)
        self._suspensions = list(suspensions) or [None] * len(states)
        self._statistics = dict(statistics)
        self._suspended_by_user = set(suspended_by_user)
        self._ssbd_off, self._skipping = set(ssbd_off), set(skipping)
