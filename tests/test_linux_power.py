"""Debian's arm64 kernel, unmodified, asleep and awake again: CPU_SUSPEND through cpuidle, and suspend to RAM and to idle."""

from __future__ import annotations

from collections import Counter
from typing import Final

from emu.machine import Machine
from emu.observer import Observer
from emu.outcome import ExitCode
from emu.snapshot import take
from emu.state import adopt
from emu.trap import Record
from emu.words import CallPoint
from firmware.abi import PowerState
from firmware.trap import EntryState
from tests.test_linux_userspace import CPUS, said_by_user_space, setup_of

STANDBY, POWERDOWN = 0x0, 0x1_0000
USED: Final = f"cd {CPUS}; for s in 1 2; do for c in cpu0 cpu1; do cat $c/cpuidle/state$s/usage; done; done"
SLEEPS: Final = "cat /sys/power/mem_sleep; echo +2 > /sys/class/rtc/rtc0/wakealarm; echo mem > /sys/power/state; date; cat online"
AWAKE: Final = "Sun Jan 21 00:00:0%d UTC 2018"


class Calls(Observer):
    """Count calls by vCPU, function and first argument, and entries by vCPU and state before."""

    def __init__(self, machine: Machine, *functions: str) -> None:
        self.calls: Counter[tuple[int, str, int]] = Counter()
        self.entries: Counter[tuple[int, PowerState]] = Counter()
        machine.observe(self, calls=frozenset(functions))

    def call(self, record: Record) -> None:
        assert record.function is not None
        self.calls[record.trap.vcpu, record.function.name, record.trap.regs[1]] += 1

    def entry(self, vcpu: int, _entry: EntryState, before: PowerState, _after: PowerState) -> None:
        self.entries[vcpu, before] += 1


def test_cpus_idle_in_standby_and_powerdown_and_the_system_suspends_until_its_alarm() -> None:
    console = bytearray()
    setup = setup_of(f"sleep 1; {USED}; {SLEEPS}", smp=2, host="spec", gic=3, idle_states=True)
    machine = Machine(setup, output=console.extend)
    seen = Calls(machine, "CPU_SUSPEND", "SYSTEM_SUSPEND", "CPU_ON")

    assert machine.run() == (ExitCode.OK, "system off")
    *used, mem_sleep, date, online = said_by_user_space(console.decode().replace("\r", ""))
    assert (mem_sleep, date, online) == ("s2idle [deep]", AWAKE % 3, "0-1")
    by_kernel = [int(number) for number in used]
    assert min(by_kernel) > 0
    calls = [seen.calls[vcpu, "CPU_SUSPEND", state] for state in (STANDBY, POWERDOWN) for vcpu in (0, 1)]
    assert all(count >= least for count, least in zip(calls, by_kernel, strict=True))
    # Each time vCPU 0, which switches the machine off, was powered down, it came back at its entry point.
    assert seen.entries[0, PowerState.ON] == seen.calls[0, "CPU_SUSPEND", POWERDOWN] + 1
    assert Counter({key[:2]: count for key, count in seen.calls.items() if key[1] != "CPU_SUSPEND"}) == {
        (0, "SYSTEM_SUSPEND"): 1,
        (0, "CPU_ON"): 2,
    }


def test_on_kvm_powerdown_is_a_refusal_to_the_kernel_and_mem_is_suspend_to_idle() -> None:
    console = bytearray()
    setup = setup_of(f"sleep 1; {USED}; cat cpu0/cpuidle/state2/rejected; {SLEEPS}", smp=2, gic=2, idle_states=True)
    machine = Machine(setup, output=console.extend)
    seen = Calls(machine, "CPU_SUSPEND", "SYSTEM_SUSPEND")

    assert machine.run() == (ExitCode.OK, "system off")
    *used, rejected, mem_sleep, date, online = said_by_user_space(console.decode().replace("\r", ""))
    assert (mem_sleep, date, online) == ("[s2idle]", AWAKE % 3, "0-1")
    assert min(map(int, used[:2])) > 0
    assert used[2:] == ["0", "0"]  # it returned: Linux cpu_suspend makes that -EOPNOTSUPP
    assert 0 < int(rejected) <= seen.calls[0, "CPU_SUSPEND", POWERDOWN]
    assert {function for _, function, _ in seen.calls} == {"CPU_SUSPEND"}


def test_kvm_suspends_the_system_where_it_is_asked_to_and_a_snapshot_of_it_asleep_wakes_up_too() -> None:
    console = bytearray()
    machine = Machine(setup_of(f"cd {CPUS}; {SLEEPS}", smp=1, cap=("system-suspend",)), output=console.extend)
    assert machine.run(CallPoint("SYSTEM_SUSPEND", 1)) == (ExitCode.OK, "--until was met")
    asleep, printed = take(machine), bytes(console)

    assert machine.run() == (ExitCode.OK, "system off")
    assert said_by_user_space(console.decode().replace("\r", "")) == ["s2idle [deep]", AWAKE % 2, "0"]
    assert machine.clock.now_ns > 2_000_000_000

    later = bytearray(printed)
    again = Machine(asleep.setup, output=later.extend)
    adopt(again, asleep.state)
    assert again.run() == (ExitCode.OK, "system off")
    assert later == console
