"""Every guest of the catalogue on every modelled host, at every version it offers and over both conduits."""

from __future__ import annotations

import dataclasses
import io
import re
from typing import Final

import pytest

from emu.machine import Machine
from emu.outcome import ExitCode
from emu.report import Log
from emu.setup import Choices, make
from emu.words import CallPoint
from firmware.hosts import HOSTS
from guests import Guest, catalogue, elf_path

ENOUGH_INSTRUCTIONS: Final = 20_000_000
GUESTS: Final = catalogue()
OFFERS: Final = {
    "spec": ("none", "0.1", "0.2", "1.0", "1.1", "1.2", "1.3"),
    "kvm-6.12": ("none", "0.1", "0.2", "1.0", "1.1"),
    "qemu-7": ("none", "1.1"),
}
PLACES: Final = tuple((host, version) for host, versions in OFFERS.items() for version in versions)
CONDUITS: Final = ("hvc", "smc")
SEEDS: Final = range(1, 25)

every_guest = pytest.mark.parametrize("guest", GUESTS.values(), ids=lambda guest: guest.name)
every_place = pytest.mark.parametrize(("host", "version"), PLACES, ids=lambda word: word)
every_conduit = pytest.mark.parametrize("conduit", CONDUITS)


# Their vCPUs go off by SMC and are started again, where KVM lets them skip their first instruction (`off_by_smc_skips`).
STARTED_AGAIN: Final = {"off-on-again": ("0.1", "0.2", "1.0", "1.1"), "smc32-cpu-on": ("0.2", "1.0", "1.1")}
EXIT_EXCEPTION: Final = 98  # guests/lib/machine.h


def is_misled(guest: str, host: str, version: str, conduit: str) -> bool:
    return conduit == "smc" and HOSTS[host].off_by_smc_skips and version in STARTED_AGAIN.get(guest, ())


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """What can be seen of a run: its exit code, what the guest printed, and the -d log."""

    code: int
    console: str
    log: str


def run(
    name: str,
    host: str = "spec",
    version: str | None = None,
    conduit: str | None = None,
    *,
    smp: int | None = None,
    seed: int = 0,
    fwreg: tuple[str, ...] = (),
    log: bool = False,
    max_insns: int = ENOUGH_INSTRUCTIONS,
) -> Run:
    """Run a guest of the catalogue, with the CPUs its lesson takes if `smp` does not say otherwise."""
    mpidrs = tuple(range(GUESTS[name].smp if smp is None else smp))
    setup = make(Choices(host=host, psci=version, conduit=conduit, fwreg=fwreg, mpidrs=mpidrs))
    setup = dataclasses.replace(setup, kernel=elf_path(name), seed=seed, max_insns=max_insns)
    console, lines = bytearray(), io.StringIO()
    machine = Machine(setup, output=console.extend)
    if log:
        Log(machine, frozenset({"psci", "int"}), lines)
    outcome = machine.run()
    return Run(outcome.code, console.decode("ascii"), lines.getvalue())


def test_the_hosts_and_versions_below_are_all_there_are() -> None:
    offered = {
        name: ("none", *(("0.1",) if HOSTS[name].offers_0_1 else ()), *(str(version) for version in HOSTS[name].versions))
        for name in OFFERS
    }

    assert offered == OFFERS


@every_guest
@every_place
@every_conduit
def test_a_guest_ends_as_the_catalogue_says_and_a_second_run_is_the_same_to_the_byte(
    guest: Guest, host: str, version: str, conduit: str
) -> None:
    first = run(guest.name, host, version, conduit, log=True)
    second = run(guest.name, host, version, conduit, log=True)

    expected = EXIT_EXCEPTION if is_misled(guest.name, host, version, conduit) else guest.expect[version]
    assert first.code == expected, first.console + first.log
    assert second == first


@every_guest
@every_place
def test_the_log_changes_neither_the_console_nor_the_end(guest: Guest, host: str, version: str) -> None:
    watched, unwatched = run(guest.name, host, version, log=True), run(guest.name, host, version)

    assert (unwatched.code, unwatched.console) == (watched.code, watched.console)


@every_guest
@every_place
def test_the_conduit_changes_nothing_but_its_name(guest: Guest, host: str, version: str) -> None:
    if is_misled(guest.name, host, version, "smc"):
        return
    by_hvc, by_smc = (run(guest.name, host, version, conduit) for conduit in CONDUITS)

    console = by_hvc.console.replace("by HVC", "by SMC")
    if host == "kvm-6.12":
        # Linux arch/arm64/kvm/hyp/hyp-entry.S, el1_sync: KVM does the workarounds for an HVC, and knows no such function for an SMC.
        console = re.sub(r"(?m)^(  SMCCC_ARCH_WORKAROUND_\d): SUCCESS$", r"\1: NOT_SUPPORTED", console)
    assert by_smc == dataclasses.replace(by_hvc, console=console)


# Where an old release is not what the guest was written for.
NO_CONTEXT_ID: Final = ("rendezvous", "off-on-again", "race")  # before Linux 3.16 a started vCPU has 0 in x0
UNLIKE_THE_CATALOGUE: Final = {
    **{(guest, host): 1 for host in ("kvm-3.11", "kvm-3.13", "kvm-3.14") for guest in NO_CONTEXT_ID[:2]},
    **{("race", host): ExitCode.NO_PROGRESS for host in ("kvm-3.11", "kvm-3.13", "kvm-3.14")},
    **{("affinity-levels", host): 1 for host in ("kvm-3.16", "kvm-3.19", "kvm-4.2")},  # AFFINITY_INFO says OFF of nobody
    ("wrong-conduit", "kvm-4.15"): ExitCode.DEADLOCK,  # SMC never advances
}


@pytest.mark.parametrize("host", [name for name in HOSTS if name.startswith("kvm-") and name not in OFFERS])
def test_every_guest_ends_on_every_kvm_release_as_the_catalogue_says_or_as_that_release_did(host: str) -> None:
    latest = str(HOSTS[host].latest)
    ended = {guest: run(guest, host, max_insns=2_000_000).code for guest in GUESTS}

    assert ended == {name: UNLIKE_THE_CATALOGUE.get((name, host), guest.expect[latest]) for name, guest in GUESTS.items()}


# ---- what a guest prints


@pytest.mark.parametrize("host", OFFERS)
@pytest.mark.parametrize("smp", [2, 5, 8])
def test_rendezvous_meets_every_cpu_with_its_own_context_id(host: str, smp: int) -> None:
    met = run("rendezvous", host, smp=smp)

    others = "".join(f"  CPU {cpu:#x}: context_id 0xc0de_0001_0000_000{cpu}\n" for cpu in range(1, smp))
    assert met == Run(0, f"rendezvous: {smp} CPUs\n  CPU 0x0: the boot CPU\n{others}PASS: all met\n", "")


@pytest.mark.parametrize("version", ["0.1", "0.2", "1.3"])
def test_off_on_again_sees_what_its_version_lets_it_see(version: str) -> None:
    lived = run("off-on-again", "spec", version)

    refusal = "INVALID_PARAMETERS\n" if version == "0.1" else "ALREADY_ON; AFFINITY_INFO ON, then OFF\n"
    rounds = "".join(
        f"  round {turn}: CPU_ON SUCCESS, in {'first' if turn % 2 else 'second'}_entry with context_id 0xff0_0000_0000_000{turn}; "
        f"CPU_ON again {refusal}"
        for turn in range(1, 5)
    )
    assert lived == Run(0, f"off-on-again: CPU 0x1, 4 rounds\n{rounds}PASS: 4 times on\n", "")


RACE: Final = Run(
    0,
    "race: 4 CPUs call CPU_ON for one target\n  winners: 1, refused: 3\nPASS: the target runs once, with the winner's context_id\n",
    "",
)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("host", "version"), [("spec", "0.1"), ("spec", "1.3"), ("kvm-6.12", "0.2"), ("kvm-6.12", "1.1"), ("qemu-7", None)]
)
def test_a_race_has_one_winner_in_whatever_order_the_cpus_run(host: str, version: str | None, seed: int) -> None:
    assert run("race", host, version, seed=seed) == RACE


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("host", ["spec", "kvm-6.12", "qemu-7"])
def test_all_cpus_meet_in_whatever_order_they_run(host: str, seed: int) -> None:
    assert run("rendezvous", host, smp=5, seed=seed) == run("rendezvous", host, smp=5)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", ["prober", "off-on-again", "version-loop", "hardcoded-0.2"])
@pytest.mark.parametrize("host", OFFERS)
def test_a_guest_that_waits_for_what_it_started_prints_the_same_in_whatever_order_the_cpus_run(name: str, host: str, seed: int) -> None:
    assert run(name, host, seed=seed) == run(name, host)


def test_a_seed_changes_the_order_and_the_same_seed_repeats_it() -> None:
    logs = {run("race", seed=seed, log=True).log for seed in (1, 2, 3)}

    assert len(logs) == 3
    assert run("race", seed=3, log=True).log in logs


# ---- the prober's conclusions

KEYS: Final = (
    "Trusted OS",
    "SMCCC version",
    "spectre-v2",
    "ssbd",
    "spectre-bhb",
    "suspend",
    "SYSTEM_SUSPEND",
    "SYSTEM_RESET2",
    "SYSTEM_OFF2",
)
NOBODY: Final = "none, or one that needs no migration"
ASKS_NOTHING: Final = ("not asked",) * 9
ASKS_0_1: Final = ("not asked", "1.0", *("not asked",) * 3, "ID in the device tree", *("not asked",) * 3)
ASKS_0_2: Final = (NOBODY, "1.0", *("not asked",) * 3, "original StateID", *("not asked",) * 3)
HELPED: Final = ("mitigated by firmware", "not required", "mitigated by firmware", "original StateID")
HELPED_BY_SPEC: Final = (*HELPED[:-1], "original StateID, OS-initiated mode")
CONCLUSIONS: Final = {
    ("spec", "none"): ASKS_NOTHING,
    ("spec", "0.1"): ASKS_0_1,
    ("spec", "0.2"): ASKS_0_2,
    ("spec", "1.0"): (NOBODY, "1.3", *HELPED_BY_SPEC, "offered", "not offered", "not offered"),
    ("spec", "1.1"): (NOBODY, "1.3", *HELPED_BY_SPEC, "offered", "offered", "not offered"),
    ("spec", "1.2"): (NOBODY, "1.3", *HELPED_BY_SPEC, "offered", "offered", "not offered"),
    ("spec", "1.3"): (NOBODY, "1.3", *HELPED_BY_SPEC, "offered", "offered", "offered, HIBERNATE_OFF"),
    ("kvm-6.12", "none"): ASKS_NOTHING,
    ("kvm-6.12", "0.1"): ASKS_0_1,
    ("kvm-6.12", "0.2"): ASKS_0_2,
    ("kvm-6.12", "1.0"): (NOBODY, "1.1", *HELPED, "not offered", "not offered", "not offered"),
    ("kvm-6.12", "1.1"): (NOBODY, "1.1", *HELPED, "not offered", "offered", "not offered"),
    ("qemu-7", "none"): ASKS_NOTHING,
    ("qemu-7", "1.1"): (NOBODY, "1.0", *("not asked",) * 3, "original StateID", *("not offered",) * 3),
}
BINDINGS: Final = {"none": "no psci node", "0.1": "arm,psci by HVC", "0.2": "arm,psci-0.2 by HVC"}


@every_place
def test_the_prober_concludes_what_its_host_offers_at_this_version(host: str, version: str) -> None:
    console = run("prober", host, version).console

    assert re.findall(r"(?m)^  conclusion: (.+?) = (.+)$", console) == [
        ("device tree", BINDINGS.get(version, "arm,psci-1.0 by HVC")),
        ("PSCI version", version),
        *zip(KEYS, CONCLUSIONS[host, version], strict=True),
        ("second CPU", "not asked" if version == "none" else "started, and off again"),
        ("power-off by", "semihosting" if version in ("none", "0.1") else "SYSTEM_OFF"),
    ]


@pytest.mark.parametrize("host", OFFERS)
def test_the_prober_finds_no_second_cpu_where_there_is_none(host: str) -> None:
    assert "conclusion: second CPU = none in the device tree\n" in run("prober", host, smp=1).console


# ---- the version register


@pytest.mark.parametrize("host", ["spec", "kvm-6.12"])
def test_a_guest_that_knows_0_2_only_catches_fire_at_1_0(host: str) -> None:
    burnt = run("hardcoded-0.2", host, "1.0")

    assert (burnt.code, burnt.console) == (ExitCode.CRASH, "this guest knows PSCI 0.2 only, found 1.0: on fire\n")


@pytest.mark.parametrize("host", ["spec", "kvm-6.12"])
@pytest.mark.parametrize(
    ("version", "fwreg"),
    [("0.2", ()), (None, ("PSCI_VERSION=0.2",)), (None, ("PSCI_VERSION=2",)), (None, ("KVM_REG_ARM_PSCI_VERSION=0x2",))],
)
def test_a_guest_that_knows_0_2_only_is_saved_by_the_version_register(host: str, version: str | None, fwreg: tuple[str, ...]) -> None:
    assert run("hardcoded-0.2", host, version, fwreg=fwreg) == Run(0, "this guest knows PSCI 0.2 only, and found it\n", "")


# At 0.2 PSCI_FEATURES is not there to answer for SMCCC_VERSION, so nothing of SMCCC may be asked.
ROUND_0_2: Final = "PSCI 0.2, SMCCC 1.0, WORKAROUND_1 not asked, WORKAROUND_2 not asked, WORKAROUND_3 not asked"
ROUNDS: Final = {
    ("spec", "1.3"): "PSCI 1.3, SMCCC 1.3, WORKAROUND_1 0, WORKAROUND_2 -2, WORKAROUND_3 0",
    ("kvm-6.12", "1.1"): "PSCI 1.1, SMCCC 1.1, WORKAROUND_1 0, WORKAROUND_2 -2, WORKAROUND_3 0",
}


def rounds(*answers: str) -> str:
    return "".join(f"round {number}: {answer}\n" for number, answer in enumerate(answers, 1))


@pytest.mark.parametrize(("host", "version"), ROUNDS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_version_written_after_a_rounds_last_call_is_seen_from_the_next_round_on(host: str, version: str, seed: int) -> None:
    # A round calls PSCI_VERSION first and ARCH_FEATURES three times at its end.
    changed = run("version-loop", host, f"{version},0.2@call:SMCCC_ARCH_FEATURES#9", seed=seed)

    assert changed == Run(0, rounds(*[ROUNDS[host, version]] * 3, *[ROUND_0_2] * 5), "")


@pytest.mark.parametrize(("host", "version"), ROUNDS)
def test_a_version_written_while_running_holds_from_the_very_next_call_on(host: str, version: str) -> None:
    changed = run("version-loop", host, "0.2@call:PSCI_VERSION#3", log=True)

    # Round 3 has been told the old version, and finds PSCI_FEATURES gone; the next question for the version tells the new one.
    halfway = ROUND_0_2.replace("PSCI 0.2", f"PSCI {version}")
    assert changed.code == 0
    assert changed.console == rounds(*[ROUNDS[host, version]] * 2, halfway, *[ROUND_0_2] * 5)
    asked = [line for line in changed.log.splitlines() if "PSCI_VERSION()" in line or "PSCI_FEATURES(" in line]
    assert [line.rpartition(" = ")[2] for line in asked[4:8]] == [
        f"{ROUND_WORDS[version]} ({version})",
        "NOT_SUPPORTED",
        "0x2 (0.2)",
        "0x2 (0.2)",
    ]


ROUND_WORDS: Final = {"1.1": "0x10001", "1.3": "0x10003"}


def test_a_version_can_be_lowered_and_raised_again() -> None:
    changed = run("version-loop", "kvm-6.12", "0.2,1.0@call:PSCI_VERSION#2,0.2@call:PSCI_VERSION#4")

    assert re.findall(r"PSCI (\d\.\d)", changed.console) == ["0.2", "0.2", "1.0", "1.0", "0.2", "0.2", "0.2", "0.2"]


def test_the_call_that_until_waits_for_is_the_last_one_in_the_log() -> None:
    setup = make(Choices(mpidrs=(0, 1, 2, 3), rest={"kernel": elf_path("rendezvous")}))
    machine = Machine(dataclasses.replace(setup, until=CallPoint("CPU_ON", 3)))
    lines = io.StringIO()
    Log(machine, frozenset({"psci"}), lines)

    assert machine.run().code == ExitCode.OK
    assert lines.getvalue().count("CPU_ON(") == 3
