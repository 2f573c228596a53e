"""`make bench`: the figures that the README quotes, as ratios of medians within one run.

    python -m tests.bench [trap] [start] [linux] [boot] [probe] [restore] [fuzz]

Machines are noisy, so nothing here passes or fails: variants take turns, and only ratios are worth quoting, with QEMU turn by turn.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final

import unicorn
from unicorn import arm64_const as arm64

from emu.checkpoint import Checkpoint
from emu.commands.probe import LINUX_HAS_ASKED, PROBE, variants
from emu.engine import Engine
from emu.fuzz.campaign import REFERENCE
from emu.fuzz.case import Case
from emu.fuzz.guest import Store
from emu.fuzz.mutate import mutated
from emu.fuzz.worlds import Worlds
from emu.memory import MiB, Region
from emu.probe import groups
from emu.probe import probe as probed
from emu.scheduler import Clock
from emu.state import capture
from emu.trap import TrapPath
from firmware.dispatch import Firmware, configuration
from firmware.hosts import host_named
from guests import elf_path
from guests.gallery import gallery
from tests import initramfs
from tests.flat import CODE, SCRATCH, machine_of, move32
from tests.fuzzed import ANY_HOST, campaign_of, guest_of

_ROUNDS: Final = 9
_LOOPS: Final = 4_000
_BASE: Final = 0x4000_0000
_X9: Final = arm64.UC_ARM64_REG_X9

# Seven calls whose answer is ready, four of them keyed by x1, and AFFINITY_INFO, which reads what changes.
_MIX: Final = (
    (0x8400_0000, None),
    (0x8400_000A, 0xC400_0003),
    (0x8000_0000, None),
    (0x8000_0001, 0x8000_8000),
    (0x8400_0006, None),
    (0x8400_000A, 0x8400_0008),
    (0x8400_0055, None),
    (0xC400_0004, 0),
)


def _program(calls: tuple[tuple[int, int | None], ...]) -> bytes:
    """Make the calls x9 times, then spin."""
    words: list[int] = []
    for fid, argument in calls:
        words += move32(0, fid)
        if argument is not None:
            words += move32(1, argument)
        words.append(0xD400_0002)  # hvc #0
    words.append(0xF100_0529)  # subs x9, x9, #1
    words.append(0x5400_0001 | (-len(words) & 0x7FFFF) << 5)  # b.ne to the start
    words.append(0x1400_0000)  # b .
    return struct.pack(f"<{len(words)}I", *words)


def _instructions() -> int:
    return _LOOPS * (len(_program(_MIX)) // 4 - 1)


def _ours() -> Callable[[], None]:
    config = configuration(host_named("spec"))
    firmware = Firmware(config)
    engine = Engine("cortex-a57", config.mpidrs)
    memory = engine.map_ram(Region(_BASE, 0x1_0000))

    def never(*_arguments: object) -> None:
        raise AssertionError("the mix neither blocks nor faults")

    TrapPath(engine, firmware, Clock(), never, never)
    code = _program(_MIX)
    memory[: len(code)] = code
    loops, count = engine.x[9], _instructions()

    def run() -> None:
        loops.set(_LOOPS)
        engine.pc.set(_BASE)
        engine.run(count)
        assert loops.get() == 0

    return run


def _naive() -> Callable[[], None]:
    """Answer as tutorials do: the binding's hook, registers read one by one, if and elif."""
    uc = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
    uc.mem_map(_BASE, 0x1_0000)
    uc.reg_write(arm64.UC_ARM64_REG_CP_REG, (1, 1, 3, 6, 0, 0x501))
    uc.mem_write(_BASE, _program(_MIX))
    not_supported = (1 << 64) - 1

    def hook(uc: unicorn.Uc, _number: int, _user: object) -> None:
        x0, x1 = uc.reg_read(arm64.UC_ARM64_REG_X0), uc.reg_read(arm64.UC_ARM64_REG_X1)
        uc.reg_read(arm64.UC_ARM64_REG_X2)
        uc.reg_read(arm64.UC_ARM64_REG_X3)
        fid = x0 & 0xFFFF_FFFF
        if fid == 0x8400_0000:
            result = 0x1_0003
        elif fid in (0x8400_0001, 0x8400_0002, 0xC400_0003):
            result = not_supported
        elif fid in (0x8400_0004, 0xC400_0004):
            result = 0
        elif fid == 0x8400_0006:
            result = 2
        elif fid == 0x8400_000A:
            result = 0 if x1 & 0xFFFF_FFFF in (0xC400_0003, 0x8400_0008) else not_supported
        elif fid == 0x8000_0000:
            result = 0x1_0003
        elif fid == 0x8000_0001:
            result = 0 if x1 & 0xFFFF_FFFF == 0x8000_8000 else not_supported
        else:
            result = not_supported
        uc.reg_write(arm64.UC_ARM64_REG_X0, result)

    uc.hook_add(unicorn.UC_HOOK_INTR, hook)
    count = _instructions()

    def run() -> None:
        uc.reg_write(_X9, _LOOPS)
        uc.emu_start(_BASE, 0, count=count)
        assert uc.reg_read(_X9) == 0

    return run


def trap() -> None:
    """Compare the pure trap path with the naive style, on the mix of eight IDs."""
    variants = {"ready answers": _ours(), "naive hook": _naive()}
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(_ROUNDS):
        for name, run in variants.items():
            before = time.thread_time()
            run()
            taken[name].append(time.thread_time() - before)
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    traps = _LOOPS * len(_MIX)
    for name, seconds in medians.items():
        print(f"trap path, {name:<14} {seconds / traps * 1e9:8.0f} ns/trap {traps / seconds:12,.0f} traps/s")
    print(f"trap path: ready answers are {medians['naive hook'] / medians['ready answers']:.1f} times as fast as the naive hook\n")


_QEMU_OPTIONS: Final = ("-M", "virt", "-cpu", "cortex-a57", "-accel", "tcg,thread=single", "-nographic", "-semihosting", "-nic", "none")


def start() -> None:
    """Compare process start to exit of a small guest with QEMU's."""
    qemu = shutil.which("qemu-system-aarch64")
    if qemu is None:
        print("process start: qemu-system-aarch64 is not installed, nothing to compare with\n")
        return
    guest = str(elf_path("version-loop"))
    commands = {
        "psci-emu": [sys.executable, "-m", "emu", "run", "-kernel", guest, "-host", "qemu-7"],
        "QEMU": [qemu, *_QEMU_OPTIONS, "-kernel", guest],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    # Bytecode is cached, as in an installed package.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(commands["psci-emu"], check=True, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    for _ in range(_ROUNDS):
        for name, command in commands.items():
            before = time.perf_counter()
            subprocess.run(command, check=True, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            taken[name].append(time.perf_counter() - before)
    _compare("process start to exit", taken)


_KERNEL: Final = Path(__file__).parent.parent / ".cache" / "kernels" / "Image"
_LAST_PSCI_LINE: Final = b"psci: SMC Calling Convention"


def linux() -> None:
    """Compare process start to the kernel's last psci line with QEMU's, on the same kernel and command line."""
    qemu = shutil.which("qemu-system-aarch64")
    if qemu is None or not _KERNEL.exists():
        print("Linux to its psci lines: needs qemu-system-aarch64 and `make kernels`\n")
        return
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    kernel = ["-kernel", str(_KERNEL), "-append", "earlycon=pl011,0x9000000"]
    commands = {
        "psci-emu": [sys.executable, "-m", "emu", "run", "-host", "kvm-6.12", *kernel],
        "QEMU": [qemu, "-M", "virt", "-cpu", "cortex-a57", "-accel", "tcg,thread=single", "-nographic", "-nic", "none", *kernel],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(_ROUNDS):
        for name, command in commands.items():
            before = time.perf_counter()
            _to_line(command, environment, _LAST_PSCI_LINE)
            taken[name].append(time.perf_counter() - before)
    _compare("Linux to its last psci line", taken)


_BOOT_ROUNDS: Final = 5  # each is seconds


def boot() -> None:
    """Compare process start to power-off with QEMU's: the kernel starts four CPUs and a shell, which says how many there are."""
    qemu = shutil.which("qemu-system-aarch64")
    if qemu is None or not _KERNEL.exists():
        print("Linux to power-off: needs qemu-system-aarch64 and `make kernels`\n")
        return
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    kernel = ["-kernel", str(_KERNEL), "-initrd", str(initramfs.write()), "-smp", "4", "-m", "256M"]
    kernel += ["-append", 'console=ttyAMA0 RUN="cat /sys/devices/system/cpu/online"']
    commands = {
        "psci-emu": [sys.executable, "-m", "emu", "run", "-host", "kvm-6.12", *kernel],
        "QEMU": [qemu, "-M", "virt", "-cpu", "cortex-a57", "-accel", "tcg,thread=single", "-nographic", "-nic", "none", *kernel],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(_BOOT_ROUNDS):
        for name, command in commands.items():
            before = time.perf_counter()
            done = subprocess.run(command, check=True, env=environment, stdin=subprocess.DEVNULL, capture_output=True)
            taken[name].append(time.perf_counter() - before)
            assert b"\n0-3\r\n" in done.stdout
    _compare("Linux to power-off, 4 CPUs", taken)


def _compare(what: str, taken: dict[str, list[float]]) -> None:
    for name, seconds in taken.items():
        print(f"{what}, {name:<9} {statistics.median(seconds) * 1000:6.0f} ms")
    ratios = [ours / qemus for ours, qemus in zip(taken["psci-emu"], taken["QEMU"], strict=True)]
    print(f"{what}: {statistics.median(ratios):.2f} times QEMU's\n")


def _to_line(command: list[str], environment: dict[str, str], line: bytes) -> bytes:
    with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        printed = b""
        while line not in printed:
            more = os.read(process.stdout.fileno(), 1 << 16)
            assert more, f"it ended after {printed[-200:]!r}"
            printed += more
        process.kill()
    return printed


def probe() -> None:
    """Tell what each further firmware of a group costs: the whole group's time less that of two of it, one CPU each."""
    if not _KERNEL.exists():
        print("probe: needs `make kernels`\n")
        return
    options = argparse.ArgumentParser()
    PROBE.add_options(options)
    group = max(groups(variants(options.parse_args(["--kernel", str(_KERNEL)]))), key=len)
    taken: dict[int, list[float]] = {2: [], len(group): []}
    for _ in range(_BOOT_ROUNDS):
        for count, seconds in taken.items():
            before = time.perf_counter()
            assert [finding.code for finding in probed(group[:count])] == [0] * count
            seconds.append(time.perf_counter() - before)
    further = [(all_ - two) / (len(group) - 2) for two, all_ in zip(*taken.values(), strict=True)]
    print(f"probe: {statistics.median(further) * 1000:.0f} ms for each further firmware of a group of {len(group)}\n")


_PAGES_TOUCHED: Final = 16  # and the page of the code
_CALLS: Final = 19  # and SYSTEM_OFF
_LOOPS_BETWEEN: Final = 630  # three instructions each
_EXECUTIONS: Final = 2_000


# Makes movz x1, #2 of the movz x1, #1 that it has just executed.
_PATCH: Final = [0xD503_201F, *move32(10, CODE + 5 * 4), *move32(12, 0xD280_0041), 0xD280_0021, 0xB900_014C, 0x1400_0001]


def _touching() -> list[int]:
    """Touch pages, make calls, loop, and switch off: about 2000 instructions."""
    words = [*move32(9, SCRATCH)]
    words += [0xF900_0129, 0x9140_0529] * _PAGES_TOUCHED  # str x9, [x9]; add x9, x9, #1, lsl #12
    for number in range(_CALLS):
        fid, argument = _MIX[number % len(_MIX)]
        words += [*move32(0, fid), *([] if argument is None else move32(1, argument)), 0xD400_0002]
    words += [*move32(11, _LOOPS_BETWEEN), 0x9100_0529, 0xF100_056B, 0x54FF_FFC1]  # add x9, x9, #1; subs x11, x11, #1; b.ne
    return [*words, *move32(0, 0x8400_0008), 0xD400_0002]


def restore() -> None:
    """Put a machine back and run it again, contents verified before and after; CPU time, in units of a trap of the same run too."""
    run = _ours()
    for ram_bytes, what, words in ((2 * MiB, "", []), (64 * MiB, "", []), (2 * MiB, ", patching itself", _PATCH)):
        machine = machine_of([*words, *_touching()], ram_bytes)
        machine.step(1)
        before, kept = capture(machine), Checkpoint(machine)
        taken: dict[str, list[float]] = {"execution": [], "trap": []}
        for _ in range(_ROUNDS):
            started = time.thread_time()
            for _ in range(_EXECUTIONS):
                assert machine.run().sentence == "system off"
                kept.restore()
            taken["execution"].append((time.thread_time() - started) / _EXECUTIONS)
            started = time.thread_time()
            run()
            taken["trap"].append((time.thread_time() - started) / (_LOOPS * len(_MIX)))
        assert capture(machine) == before
        execution, trap_ = (statistics.median(seconds) for seconds in taken.values())
        rate = f"{1 / execution:8,.0f} executions/s"
        print(f"restore, {ram_bytes >> 20:2} MiB{what}: {rate}, {execution * 1e6:5.0f} us each, as long as {execution / trap_:.0f} traps")
    print()


_SMALL_GUEST: Final = gallery()["G31"]
_FUZZED: Final = 60_000
_CASES_A_JOB: Final = 512  # as the command's
_FUZZED_OF_LINUX: Final = 200


def fuzz() -> None:
    """Fuzz a small guest, and Linux to the end of its probing; CPU time of one core, everything included but the first boots."""
    campaign_of(_SMALL_GUEST.elf, _SMALL_GUEST.machine, 1_000, batch=_CASES_A_JOB)
    started = time.process_time()
    short = campaign_of(_SMALL_GUEST.elf, _SMALL_GUEST.machine, 1_000, batch=_CASES_A_JOB).progress.executions
    begun = time.process_time()
    long = campaign_of(_SMALL_GUEST.elf, _SMALL_GUEST.machine, _FUZZED, batch=_CASES_A_JOB).progress.executions
    seconds = (time.process_time() - begun) - (begun - started)
    print(f"fuzz, a small guest: {(long - short) / seconds:,.0f} executions/s")
    if not _KERNEL.exists():
        print("fuzz, Linux: needs `make kernels`\n")
        return
    guest, store = guest_of(_KERNEL, "-smp 1 -append earlycon", until=f"console:{LINUX_HAS_ASKED.decode()}"), Store()
    store.add(_KERNEL.read_bytes())
    worlds = Worlds(guest, REFERENCE, store.paths, careful=False)
    profile = tuple(Counter(call.function for call in worlds.reference.calls if call.function is not None).items())
    draw, cases = Random(0), list[Case]()
    while len(cases) < _FUZZED_OF_LINUX:
        case = mutated(REFERENCE, profile, ANY_HOST, draw).case
        if case.plain == REFERENCE and worlds.run(case) is not None:
            cases.append(case)
    started = time.process_time()
    for case in cases:
        execution = worlds.run(case)
        assert execution is not None
        worlds.suspects(case, execution)
    rate = _FUZZED_OF_LINUX / (time.process_time() - started)
    print(f"fuzz, Linux from its first call to the end of its probing: {rate:,.0f} executions/s\n")


_BENCHMARKS: Final = {"trap": trap, "start": start, "linux": linux, "boot": boot, "probe": probe, "restore": restore, "fuzz": fuzz}


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in _BENCHMARKS]
    if unknown:
        print(f"unknown benchmark {unknown[0]!r}; there are: {', '.join(_BENCHMARKS)}", file=sys.stderr)
        return 102
    for name in names or _BENCHMARKS:
        _BENCHMARKS[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
