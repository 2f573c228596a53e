"""Each vCPU's PSCI state, and the only code that changes it.

1. Nothing outside this file assigns a power state or a pending entry.
2. This file knows neither hosts, nor function IDs, nor return codes.
3. A pending entry is applied once: by `enter`, by `access` or by `wake`, whichever comes first.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from firmware.abi import AFFINITY_FIELDS, PowerState
from firmware.trap import EntryState, MpStateValue, Runnable

# What an affinity level compares: all of the MPIDR value but the fields below the level.
_COMPARED_FIELDS: Final = tuple(~sum(AFFINITY_FIELDS[:level]) for level in range(len(AFFINITY_FIELDS)))


class PowerSnapshot(NamedTuple):
    """The power states and pending entries, one of each per vCPU."""

    states: tuple[PowerState, ...]
    pending: tuple[EntryState | None, ...]


class Power:
    """Guard the PSCI state of every vCPU.

    mpidrs  affinity fields of each vCPU's MPIDR_EL1, by vCPU index; all different
    """

    def __init__(self, mpidrs: tuple[int, ...]) -> None:
        self.mpidrs = mpidrs
        self._index = {mpidr: vcpu for vcpu, mpidr in enumerate(mpidrs)}
        self.states: list[PowerState] = []
        self._pending: list[EntryState | None] = []
        self.reset()

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

    def others_off(self, vcpu: int) -> bool:
        return all(state is PowerState.OFF for other, state in enumerate(self.states) if other != vcpu)

    # ---- what calls do

    def start(self, vcpu: int, entry: EntryState) -> Runnable:
        """Make a vCPU that does not run ON_PENDING; it takes on `entry` when it is next entered."""
        assert self.states[vcpu] in (PowerState.OFF, PowerState.ON_PENDING)
        self.states[vcpu] = PowerState.ON_PENDING
        self._pending[vcpu] = entry
        return Runnable(vcpu)

    def stop(self, vcpu: int) -> None:
        self.states[vcpu] = PowerState.OFF

    def stop_all(self) -> None:
        """Stop every vCPU; entries that are pending stay so."""
        self.states = [PowerState.OFF] * len(self.mpidrs)

    def suspend(self, vcpu: int, entry: EntryState | None) -> None:
        """Put the caller to sleep; with `entry` it lost its state and wakes up there."""
        self.states[vcpu] = PowerState.SUSPENDED
        if entry is not None:
            self._pending[vcpu] = entry

    # ---- what events do

    def enter(self, vcpu: int) -> EntryState | None:
        """End ON_PENDING and hand out the pending entry, if any."""
        if self.states[vcpu] is PowerState.ON_PENDING:
            self.states[vcpu] = PowerState.ON
        return self.access(vcpu)

    def access(self, vcpu: int) -> EntryState | None:
        """Hand out the pending entry, if any; the power state stays."""
        entry, self._pending[vcpu] = self._pending[vcpu], None
        return entry

    def wake(self, vcpu: int) -> EntryState | None:
        """End SUSPENDED; hand out the entry of a vCPU that lost its state."""
        if self.states[vcpu] is not PowerState.SUSPENDED:
            return None
        self.states[vcpu] = PowerState.ON
        return self.access(vcpu)

    def set_mp_state(self, vcpu: int, state: MpStateValue) -> None:
        """Do as KVM_SET_MP_STATE; a pending entry is neither applied nor dropped."""
        if state is MpStateValue.STOPPED:
            self.states[vcpu] = PowerState.OFF
        elif state is MpStateValue.SUSPENDED:
            self.states[vcpu] = PowerState.SUSPENDED
        else:
            self.states[vcpu] = PowerState.ON if self._pending[vcpu] is None else PowerState.ON_PENDING

    def reset(self) -> None:
        self.stop_all()
        self.states[0] = PowerState.ON
        self._pending = [None] * len(self.mpidrs)

    # ---- snapshot

    def snapshot(self) -> PowerSnapshot:
        return PowerSnapshot(tuple(self.states), tuple(self._pending))

    def restore(self, snapshot: PowerSnapshot) -> None:
        self.states = list(snapshot.states)
        self._pending = list(snapshot.pending)
