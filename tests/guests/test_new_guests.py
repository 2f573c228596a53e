"""What the guests of one lesson each show, on each modelled host: their key lines, in order."""

from __future__ import annotations

import dataclasses
from typing import Final, NamedTuple

import pytest

from emu.machine import Machine
from emu.outcome import ExitCode
from emu.setup import Choices, make
from emu.words import parse_smp
from guests import catalogue, elf_path

MOST_INSTRUCTIONS: Final = 2_000_000
GUESTS: Final = catalogue()
NEWEST: Final = {"spec": "1.3", "kvm-6.12": "1.1", "qemu-7": "1.1"}
LESSONS: Final = (
    "affinity-levels",
    "suspend-standby",
    "suspend-powerdown",
    "os-initiated",
    "reset",
    "reset2",
    "off2",
    "spectre-discovery",
    "trng",
    "stolen-time",
    "wrong-conduit",
    "version-unsigned",
    "smc32-cpu-on",
    "system-suspend",
)


class Run(NamedTuple):
    """How a guest ended, and the lines it printed."""

    code: int
    lines: list[str]


def run(
    name: str,
    host: str,
    version: str | None = None,
    *,
    smp: str | None = None,
    conduit: str | None = None,
    smccc: str | None = None,
    cap: tuple[str, ...] = (),
    fwreg: tuple[str, ...] = (),
    no_reboot: bool = False,
    seed: int = 0,
) -> Run:
    """Run a guest of the catalogue, on the CPUs its lesson takes if `smp` does not say otherwise."""
    mpidrs = parse_smp(GUESTS[name].smp_option if smp is None else smp)
    setup = make(Choices(host=host, psci=version, conduit=conduit, smccc=smccc, cap=cap, fwreg=fwreg, mpidrs=mpidrs))
    setup = dataclasses.replace(setup, kernel=elf_path(name), seed=seed, no_reboot=no_reboot, max_insns=MOST_INSTRUCTIONS)
    console = bytearray()
    outcome = Machine(setup, output=console.extend).run()
    return Run(outcome.code, console.decode("ascii").splitlines())


def shows(ran: Run, *wanted: str) -> bool:
    """Tell whether the guest ended well and printed these lines in this order, whatever stands between them."""
    rest = iter(line.strip() for line in ran.lines)
    return ran.code == ExitCode.OK and all(line in rest for line in wanted)


class Shown(NamedTuple):
    """Key lines of a guest on a host at a version, which is the host's newest where it is None."""

    guest: str
    host: str
    version: str | None
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.guest}-{self.host}-{self.version or NEWEST[self.host]}"


NOT_ASKED_BELOW_1_0: Final = "PASS: nothing to show: not asked for, SMCCC is 1.0: PSCI below 1.0 has no PSCI_FEATURES"
NO_SMCCC: Final = "PASS: nothing to show: not asked for, SMCCC is 1.0: PSCI_FEATURES denies SMCCC_VERSION"
NO_AFFINITY_INFO: Final = "PASS: nothing to show: PSCI 0.1 has no AFFINITY_INFO"
EVERY_LEVEL: Final = (
    "the boot CPU is on:",
    "level 0: 0x0 ON 0x1 OFF 0x100 OFF 0x101 OFF",
    "level 1: 0x0 ON 0x100 OFF",
    "the last CPU is on too:",
    "level 0: 0x0 ON 0x1 OFF 0x100 OFF 0x101 ON",
    "level 1: 0x0 ON 0x100 ON",
    "level 2: 0x0 ON",
    "level 3: 0x0 ON",
    "the last CPU is off again:",
    "level 0: 0x0 ON 0x1 OFF 0x100 OFF 0x101 OFF",
    "level 1: 0x0 ON 0x100 OFF",
    "no such CPU: INVALID_PARAMETERS",
    "no such cluster: INVALID_PARAMETERS",
    "level 4: INVALID_PARAMETERS",
    "this firmware knows every level",
)
SLEPT: Final = tuple(f"round {turn}: CPU_SUSPEND SUCCESS, slept until the timer's deadline" for turn in (1, 2, 3))
SLEPT_BY_WFI: Final = tuple(
    line for turn in (1, 2, 3) for line in (f"round {turn}: CPU_SUSPEND NOT_SUPPORTED", f"round {turn}: WFI {SLEPT[0][21:]}")
)
RESUMED: Final = (
    "suspend-powerdown: power_state 0x1_0000, original StateID",
    "CPU_SUSPEND, reserved bit: INVALID_PARAMETERS",
    "CPU_SUSPEND, powerdown: did not return; at the entry point with context_id 0x5a5a_0000_c0ff_ee00",
)
NO_RESET_IN_0_1: Final = "PASS: nothing to show: PSCI 0.1 has no SYSTEM_RESET"
RESET: Final = (
    "reset: boot 1, CPU 0x1 is on, a word of the image is overwritten: SYSTEM_RESET",
    "reset: boot 2",
    "CPU 0x1: OFF",
    "the image: loaded anew",
    "RAM outside the image: as it was left",
    "PASS: 2 boots",
)
RESET2: Final = (
    "reset2: boot 1",
    "PSCI_FEATURES(SYSTEM_RESET2): SUCCESS",
    "SYSTEM_RESET2(reserved type): INVALID_PARAMETERS",
    "SYSTEM_RESET2(SYSTEM_WARM_RESET)",
    "reset2: boot 2",
    "SYSTEM_RESET2(vendor type, cookie)",
    "reset2: boot 3",
    "PASS: 3 boots",
)
RESET2_ABSENT: Final = ("PSCI_FEATURES(SYSTEM_RESET2): NOT_SUPPORTED", "SYSTEM_RESET", "reset2: boot 2", "PASS: 2 boots")
OFF2_ABSENT: Final = ("PSCI_FEATURES(SYSTEM_OFF2): NOT_SUPPORTED", "PASS: off by SYSTEM_OFF")
ENTROPY: Final = (
    "TRNG_VERSION: 1.0",
    "TRNG_FEATURES(TRNG_RND64): SUCCESS",
    "TRNG_FEATURES(PSCI_VERSION): NOT_SUPPORTED",
    "TRNG_RND32, 96 bits: SUCCESS",
    "TRNG_RND32, 96 bits again: differs",
    "TRNG_RND64, 192 bits: SUCCESS",
    "TRNG_RND64, 192 bits again: differs",
    "TRNG_RND32, 40 bits: SUCCESS",
    "TRNG_RND64, 40 bits: SUCCESS",
)
STOLEN: Final = (
    "SMCCC_ARCH_FEATURES(PV_TIME_FEATURES): SUCCESS",
    "PV_TIME_FEATURES(PV_TIME_ST): SUCCESS",
    "PV_TIME_ST: revision 0, attributes 0",
    "stolen time, alone: did not grow",
    "stolen time, beside a second CPU: grew",
    "PASS: the two CPUs share a core, and the guest can tell",
)
UNSIGNED: Final = (
    "version-unsigned: x0 is 0xffff_ffff_ffff_ffff",
    "as unsigned: PSCI 65535.65535; next: PSCI_FEATURES, SMCCC_VERSION, SYSTEM_RESET2, SYSTEM_OFF2",
    "as signed: NOT_SUPPORTED; next: nothing but what the device tree names",
)
NO_DIFFERENCE: Final = "PASS: no difference on this firmware"
TRUNCATED: Final = (
    "context_id 0xdead_beef_0000_1234: SUCCESS, arrives as 0x1234",
    "target_cpu 0xdead_beef_0000_0001: SUCCESS",
    "entry_point_address with the same junk: SUCCESS",
    "the CPU arrives at the lower half of it",
    "PASS: this host truncates: the upper halves are not arguments",
)
ONE_MODE: Final = ("PSCI_FEATURES(SET_SUSPEND_MODE): NOT_SUPPORTED", "PASS: nothing to show: platform-coordinated is the only mode")
NO_SUSPEND: Final = ("PSCI_FEATURES(SYSTEM_SUSPEND): NOT_SUPPORTED", "PASS: nothing to show: there is no SYSTEM_SUSPEND")
SUSPENDED: Final = "did not return; at the entry point with context_id 0x5a5a_0000_bedd_1e00"

SHOWN: Final = (
    Shown("affinity-levels", "spec", None, EVERY_LEVEL),
    Shown("affinity-levels", "spec", "0.2", EVERY_LEVEL),
    Shown("affinity-levels", "spec", "0.1", (NO_AFFINITY_INFO,)),
    Shown("affinity-levels", "kvm-6.12", None, EVERY_LEVEL),
    Shown("affinity-levels", "kvm-6.12", "0.1", (NO_AFFINITY_INFO,)),
    Shown(
        "affinity-levels",
        "qemu-7",
        None,
        (
            "level 0: 0x0 ON 0x1 OFF 0x100 OFF 0x101 OFF",
            "level 1: 0x0 ON 0x100 ON",
            "no such CPU: INVALID_PARAMETERS",
            "no such cluster: ON",
            "level 4: ON",
            "this firmware knows single CPUs, and says the same of everything above",
        ),
    ),
    Shown("suspend-standby", "spec", None, SLEPT),
    Shown("suspend-standby", "spec", "0.1", SLEPT),
    Shown("suspend-standby", "kvm-6.12", None, SLEPT),
    Shown("suspend-standby", "kvm-6.12", "0.1", SLEPT_BY_WFI),
    Shown("suspend-standby", "qemu-7", None, SLEPT),
    Shown("suspend-powerdown", "spec", None, RESUMED),
    Shown("suspend-powerdown", "spec", "0.1", RESUMED),
    Shown("suspend-powerdown", "kvm-6.12", None, ("CPU_SUSPEND, reserved bit: SUCCESS", "CPU_SUSPEND, powerdown: returned SUCCESS")),
    Shown("suspend-powerdown", "kvm-6.12", "0.1", ("PASS: nothing to show: this firmware does not suspend",)),
    Shown(
        "suspend-powerdown",
        "qemu-7",
        None,
        (RESUMED[1], "CPU_SUSPEND, powerdown: returned SUCCESS", "PASS: it came back like a standby, with its state"),
    ),
    Shown("os-initiated", "spec", "0.2", ("PASS: nothing to show: PSCI below 1.0 has one mode, platform-coordinated",)),
    Shown("os-initiated", "kvm-6.12", None, ONE_MODE),
    Shown("os-initiated", "qemu-7", None, ONE_MODE),
    *(Shown("reset", host, None, RESET) for host in NEWEST),
    Shown("reset", "spec", "0.2", RESET),
    Shown("reset", "spec", "0.1", (NO_RESET_IN_0_1,)),
    Shown("reset2", "spec", None, RESET2),
    Shown("reset2", "spec", "1.0", RESET2_ABSENT),
    Shown("reset2", "spec", "0.2", ("SYSTEM_RESET2: not asked for, PSCI is below 1.0", "SYSTEM_RESET", "PASS: 2 boots")),
    Shown("reset2", "kvm-6.12", None, RESET2),
    Shown("reset2", "qemu-7", None, RESET2_ABSENT),
    Shown(
        "off2",
        "spec",
        None,
        (
            "PSCI_FEATURES(SYSTEM_OFF2): 0x1",
            "SYSTEM_OFF2(no such type): INVALID_PARAMETERS",
            "SYSTEM_OFF2(HIBERNATE_OFF, cookie 1): INVALID_PARAMETERS",
            "PASS: off by SYSTEM_OFF2(HIBERNATE_OFF)",
        ),
    ),
    Shown("off2", "spec", "1.2", OFF2_ABSENT),
    Shown("off2", "spec", "0.2", ("SYSTEM_OFF2: not asked for, PSCI is below 1.0", "PASS: off by SYSTEM_OFF")),
    Shown("off2", "kvm-6.12", None, OFF2_ABSENT),
    Shown("off2", "qemu-7", None, OFF2_ABSENT),
    Shown(
        "spectre-discovery",
        "spec",
        None,
        (
            "step 1: PSCI_VERSION: 1.3",
            "step 2: PSCI_FEATURES(SMCCC_VERSION): SUCCESS",
            "step 3: SMCCC_VERSION: 1.3",
            "step 4 on CPU 0x0:",
            "SMCCC_ARCH_FEATURES(WORKAROUND_1): there, and needed",
            "SMCCC_ARCH_WORKAROUND_1: x0 is as it was",
            "SMCCC_ARCH_FEATURES(WORKAROUND_2): not required",
            "step 4 on CPU 0x1:",
            "SMCCC_ARCH_WORKAROUND_3: x0 is as it was",
        ),
    ),
    Shown(
        "spectre-discovery",
        "spec",
        "0.2",
        ("step 1: PSCI_VERSION: 0.2", "PASS: SMCCC is 1.0, and nothing more may be asked: PSCI below 1.0 has no PSCI_FEATURES"),
    ),
    Shown("spectre-discovery", "kvm-6.12", None, ("step 3: SMCCC_VERSION: 1.1", "SMCCC_ARCH_WORKAROUND_1: SUCCESS", "step 4 on CPU 0x1:")),
    Shown("spectre-discovery", "qemu-7", None, ("PASS: SMCCC is 1.0, and nothing more may be asked: there is no SMCCC_VERSION",)),
    Shown("trng", "spec", None, (*ENTROPY, "TRNG_RND32, 0 bits: INVALID_PARAMETERS", "TRNG_RND32, 97 bits: INVALID_PARAMETERS")),
    Shown("trng", "spec", "0.2", (NOT_ASKED_BELOW_1_0,)),
    Shown("trng", "kvm-6.12", None, (*ENTROPY, "TRNG_RND32, 0 bits: SUCCESS", "TRNG_RND64, 193 bits: INVALID_PARAMETERS")),
    Shown("trng", "qemu-7", None, (NO_SMCCC,)),
    Shown("stolen-time", "spec", None, STOLEN),
    Shown("stolen-time", "spec", "0.2", (NOT_ASKED_BELOW_1_0,)),
    Shown("stolen-time", "kvm-6.12", None, STOLEN),
    Shown("stolen-time", "qemu-7", None, (NO_SMCCC,)),
    Shown("wrong-conduit", "spec", None, ("the other conduit: UNDEF", "the device tree's conduit: served, PSCI 1.3")),
    Shown("wrong-conduit", "spec", "0.1", ("the other conduit: UNDEF", "the device tree's conduit: served, INVALID_PARAMETERS")),
    Shown("wrong-conduit", "kvm-6.12", None, ("the other conduit: served, PSCI 1.1", "PASS: this host would forgive the mistake")),
    Shown("wrong-conduit", "qemu-7", None, ("the other conduit: UNDEF", "PASS: only the device tree's conduit will do")),
    Shown("version-unsigned", "spec", None, ("as unsigned: PSCI 1.3; next: PSCI_FEATURES, SMCCC_VERSION, SYSTEM_RESET2, SYSTEM_OFF2",)),
    Shown("version-unsigned", "spec", "0.1", UNSIGNED),
    Shown("version-unsigned", "kvm-6.12", "0.1", UNSIGNED),
    Shown("version-unsigned", "kvm-6.12", "0.2", ("as signed: PSCI 0.2; next: no call that is newer", NO_DIFFERENCE)),
    Shown("version-unsigned", "qemu-7", None, (NO_DIFFERENCE,)),
    Shown("smc32-cpu-on", "spec", None, TRUNCATED),
    Shown("smc32-cpu-on", "kvm-6.12", None, TRUNCATED),
    Shown(
        "smc32-cpu-on",
        "qemu-7",
        None,
        (
            "context_id 0xdead_beef_0000_1234: SUCCESS, arrives as 0xdead_beef_0000_1234",
            "target_cpu 0xdead_beef_0000_0001: INVALID_PARAMETERS",
            "PASS: this host reads whole registers: junk in an upper half counts",
        ),
    ),
    Shown("system-suspend", "spec", None, ("SYSTEM_SUSPEND, a second CPU on: DENIED", f"SYSTEM_SUSPEND, alone: {SUSPENDED}")),
    Shown("system-suspend", "spec", "0.2", ("PASS: nothing to show: PSCI below 1.0 has no SYSTEM_SUSPEND",)),
    Shown("system-suspend", "kvm-6.12", None, NO_SUSPEND),
    Shown("system-suspend", "qemu-7", None, NO_SUSPEND),
)


@pytest.mark.parametrize("shown", SHOWN, ids=str)
def test_a_guest_shows_its_lesson_as_the_host_teaches_it(shown: Shown) -> None:
    ran = run(shown.guest, shown.host, shown.version)

    assert shows(ran, *shown.lines), ran


def test_every_lesson_is_shown_on_every_host() -> None:
    # os-initiated on spec's newest has a test of its own.
    assert {(shown.guest, shown.host) for shown in SHOWN} == {(guest, host) for guest in LESSONS for host in NEWEST}


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
@pytest.mark.parametrize("host", NEWEST)
@pytest.mark.parametrize("guest", LESSONS)
def test_a_guest_prints_the_same_in_whatever_order_the_cpus_run(guest: str, host: str, seed: int) -> None:
    assert run(guest, host, seed=seed) == run(guest, host)


@pytest.mark.parametrize("host", NEWEST)
def test_without_clusters_each_level_above_0_holds_all_cpus(host: str) -> None:
    ran = run("affinity-levels", host, smp="3")

    assert shows(ran, "level 0: 0x0 ON 0x1 OFF 0x2 OFF", "level 1: 0x0 ON", "level 2: 0x0 ON", "level 3: 0x0 ON"), ran


def test_the_mode_can_be_set_where_the_firmware_says_that_it_can() -> None:
    ran = run("os-initiated", "spec")

    offered = "PSCI_FEATURES(SET_SUSPEND_MODE): SUCCESS" in [line.strip() for line in ran.lines]
    set_and_back = (
        "SET_SUSPEND_MODE(OS-initiated): SUCCESS",
        "SET_SUSPEND_MODE(OS-initiated): SUCCESS",
        "SET_SUSPEND_MODE(platform-coordinated): SUCCESS",
    )
    lines = (
        *("the boot CPU alone is on:", *set_and_back, "SET_SUSPEND_MODE(no such mode): INVALID_PARAMETERS"),
        *("one more CPU is on, and others are off:", "SET_SUSPEND_MODE(OS-initiated): DENIED"),
        *("all CPUs are on:", *set_and_back[:2], "SET_SUSPEND_MODE(platform-coordinated): DENIED"),
        "PASS: OS-initiated mode could be set",
    )
    assert shows(ran, *(lines if offered else ONE_MODE)), ran


@pytest.mark.parametrize("guest", ["reset", "reset2"])
def test_a_reset_ends_the_run_where_nobody_reboots(guest: str) -> None:
    ran = run(guest, "spec", no_reboot=True)

    assert ran.code == ExitCode.RESET
    assert not any("boot 2" in line for line in ran.lines)


def test_kvm_suspends_the_system_with_other_cpus_on_where_the_vmm_enabled_the_capability() -> None:
    ran = run("system-suspend", "kvm-6.12", cap=("system-suspend",))

    assert shows(ran, "PSCI_FEATURES(SYSTEM_SUSPEND): SUCCESS", f"SYSTEM_SUSPEND, a second CPU on: {SUSPENDED}"), ran


def test_both_conduits_are_served_where_the_platform_has_both() -> None:
    ran = run("wrong-conduit", "spec", conduit="both")

    assert shows(ran, "the other conduit: served, PSCI 1.3", "the device tree's conduit: served, PSCI 1.3"), ran


def test_the_device_tree_names_smc_where_that_is_the_conduit() -> None:
    ran = run("wrong-conduit", "spec", conduit="smc")

    assert shows(ran, "wrong-conduit: the device tree has PSCI by SMC", "the other conduit: UNDEF"), ran


@pytest.mark.parametrize("conduit", ["hvc", "smc"])
def test_kvm_does_the_workarounds_for_an_hvc_and_knows_no_such_function_for_an_smc(conduit: str) -> None:
    ran = run("spectre-discovery", "kvm-6.12", conduit=conduit)

    assert shows(ran, f"SMCCC_ARCH_WORKAROUND_1: {'SUCCESS' if conduit == 'hvc' else 'NOT_SUPPORTED'}"), ran


def test_an_smccc_of_1_0_ends_the_discovery_at_its_second_step() -> None:
    ran = run("spectre-discovery", "spec", smccc="1.0")

    assert shows(
        ran,
        "step 2: PSCI_FEATURES(SMCCC_VERSION): NOT_SUPPORTED",
        "PASS: SMCCC is 1.0, and nothing more may be asked: there is no SMCCC_VERSION",
    ), ran


@pytest.mark.parametrize(
    ("guest", "register", "line"),
    [
        ("trng", "STD_BMAP=0", "PASS: nothing to show: TRNG_VERSION: NOT_SUPPORTED"),
        ("stolen-time", "STD_HYP_BMAP=0", "PASS: nothing to show: there is no PV time"),
    ],
)
def test_a_service_that_its_register_turns_off_is_not_found(guest: str, register: str, line: str) -> None:
    ran = run(guest, "kvm-6.12", fwreg=(register,))

    assert shows(ran, line), ran


@pytest.mark.parametrize("guest", LESSONS)
def test_a_guest_without_firmware_says_what_it_lacks(guest: str) -> None:
    assert run(guest, "spec", "none") == Run(2, ["FAIL: no psci node in the device tree"])
