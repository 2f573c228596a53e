"""A host in TOML: every column can be given, and whatever else stands in the file is refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emu.cli import main
from emu.hostfile import KEYS, column_of, read_host, rules
from emu.hostpage import columns
from emu.questions import ask, questions
from emu.setup import Choices, make
from firmware.abi import Psci, Version
from firmware.dispatch import Firmware
from firmware.errors import InputError, UserError
from firmware.hosts import HOSTS, host_named
from firmware.trap import Conduit, Reply, Resume
from guests import elf_path


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_column_has_a_key() -> None:
    assert {column_of(key) for key in KEYS} == {*columns(), "summary"}


def test_a_host_is_its_base_with_what_the_file_changes(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        'based-on = "xen"\nsummary = "mine"\naffinity-rule = "always_on"\nno-such-cpu = "DENIED"\nserves = { remove = ["CPU_OFF"] }\n',
    )

    host, base = read_host(path), host_named("xen")

    changed = {column for column in columns() if getattr(host, column) != getattr(base, column)}
    assert (host.name, host.summary) == (str(path), "mine")
    assert changed == {"affinity_rule", "no_such_cpu", "serves"}
    assert host.serves == base.serves - {"CPU_OFF"}
    assert {host.sources[column] for column in changed} == {str(path)}


def test_a_value_of_every_kind(tmp_path: Path) -> None:
    host = read_host(
        write(
            tmp_path,
            """
based-on = "kvm-5.4"
latest = "1.0"
versions = ["1.1", "1.0"]
smccc = "none"
registers = ["PSCI_VERSION"]
bitmap-resets = { STD_BMAP = 1 }
lacks = [0x84000003]
ids-0-1 = { cpu-suspend = 1, cpu-off = 2, cpu-on = 3, migrate = 4 }
unknown = "UNDEF"
conduits = "platform"
default-conduit = "smc"
immediates = { hvc = "UNDEF", smc = -2 }
undispatched = { hvc = "same-instruction" }
result-registers = 2
status-mask = 0xffffffff
pending-seen-as = "OFF"
trusted-os = { type = 0, vcpu = 0, refuses-off = false }
at-el2 = {}
workaround-answers = { SMCCC_ARCH_WORKAROUND_1 = "spectre_v2_hardened", SMCCC_ARCH_WORKAROUND_2 = "spectre_v4_by_ssbd" }
standard-secure = { uid = [1, 2, 3, 4], revision = [1, 0], calls = 7 }
soc-id = [1, 2]
node-compatible = ["arm,psci-1.0"]
reset-ends = true
deviations = [{ discovery = "PSCI_FEATURES", function = "CPU_ON", value = -1 }]
""",
        )
    )

    assert (host.latest, host.versions, host.smccc) == (Version(1, 0), (Version(1, 0), Version(1, 1)), None)
    assert (host.unknown, host.default_conduit, host.trusted_os) == (None, Conduit.SMC, (0, 0, False, 0))
    assert host.immediates == {Conduit.HVC: Resume.UNDEF, Conduit.SMC: -2}
    assert host.undispatched == {Conduit.HVC: Reply(resume=Resume.SAME)}
    assert host.node_compatible(Version(1, 1)) == ("arm,psci-1.0",)
    assert host.deviation("PSCI_FEATURES", "CPU_ON") == Psci.NOT_SUPPORTED


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty; allowed is a file with at least one byte"),
        ("summary = 'x'", "based-on is missing; it names a host (psci-emu hosts)"),
        ("based-on = 3", "based-on: 3 is not a string"),
        ("based-on = 'xenn'", "based-on: unknown host 'xenn'; did you mean xen?"),
        ("based-on = 'xen'\naffinity-rul = 1", "unknown key 'affinity-rul'; did you mean affinity-rule?"),
        ("based-on = 'xen'\nname = 'x'", "unknown key 'name'"),
        ("based-on = 'xen'\naffinity-rule = 'alway_on'", "affinity-rule: unknown rule 'alway_on'; did you mean always_on?"),
        ("based-on = 'xen'\nserves = ['CPU_OM']", "serves: unknown function 'CPU_OM'; did you mean CPU_ON?"),
        ("based-on = 'xen'\nserves = { ad = [] }", "serves: unknown key 'ad'; did you mean add?"),
        ("based-on = 'xen'\nlatest = '1.4'", "latest: unknown PSCI version '1.4'; allowed: 0.1, 0.2, 1.0, 1.1, 1.2, 1.3, none"),
        ("based-on = 'xen'\nlatest = '1.0'", "latest: 1.0 is not among versions"),
        ("based-on = 'xen'\nversions = []", "versions: [] names no version"),
        ("based-on = 'tf-a'\noffers-0-1 = true", "offers-0-1: there are no ids-0-1 to offer"),
        ("based-on = 'xen'\nreset-ends = 1", "reset-ends: 1 is not true or false"),
        ("based-on = 'xen'\nresult-registers = 5", "result-registers: 5 is not a whole number from 0x1 to 0x4"),
        ("based-on = 'xen'\nunknown = 'MAYBE'", "unknown: 'MAYBE' is not one of SUCCESS, NOT_SUPPORTED"),
        ("based-on = 'xen'\ntrusted-os = { type = 1 }", "trusted-os: vcpu is missing"),
        ("based-on = 'xen'\nworkaround-answers = {}", "workaround-answers: none for SMCCC_ARCH_WORKAROUND_1"),
        ("based-on = 'xen'\nsoc-name = 'ü'", "soc-name: 'ü' is not a line of at most 135 ASCII characters"),
        ("based-on = [", "is not TOML: "),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(capfd: pytest.CaptureFixture[str], tmp_path: Path, text: str, sentence: str) -> None:
    path = write(tmp_path, text)

    assert main(["run", "-kernel", str(elf_path("race")), "-host", str(path)]) == 103

    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"psci-emu: {path}")
    assert sentence in err
    assert err.count("\n") == 1


def test_a_file_too_long_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has more than"):
        read_host(write(tmp_path, "#" * (1 << 20 | 1)))


@pytest.mark.parametrize("arguments", [("regs",), ("functions",), ("explain", "CPU_ON"), ("run", "-kernel", str(elf_path("prober")))])
def test_a_file_stands_wherever_a_host_is_named(capfd: pytest.CaptureFixture[str], tmp_path: Path, arguments: tuple[str, ...]) -> None:
    path = write(tmp_path, 'based-on = "kvm-6.12"\nnode-compatible = ["arm,psci-0.2"]\n')

    assert main([*arguments, "-host", str(path)]) == 0
    out = capfd.readouterr().out
    assert ("binding" not in out) or "arm,psci-0.2" in out


def test_a_run_on_ones_own_host_is_recorded_and_replayed(tmp_path: Path) -> None:
    path, trace = write(tmp_path, 'based-on = "xen"\nno-such-cpu = "DENIED"\n'), str(tmp_path / "trace")

    assert main(["run", "-kernel", str(elf_path("race")), "-smp", "5", "-host", str(path), "--trace", trace]) == 0
    assert main(["replay", trace]) == 0
    assert main(["replay", trace, "-host", "spec"]) in (0, 100)
    assert main(["replay", trace, "-host", str(path)]) == 0


def test_a_trusted_os_on_a_cpu_that_there_is_not_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, 'based-on = "xen"\ntrusted-os = { type = 1, vcpu = 3 }\n')

    with pytest.raises(UserError, match="sits on vCPU 3, and there are only 2"):
        make(Choices(host=str(path), mpidrs=(0, 1)))
    make(Choices(host=str(path), mpidrs=(0, 1, 2, 3)))


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_based_on_another_and_changed_in_nothing_is_the_same_but_for_its_name(tmp_path: Path, host: str) -> None:
    mine = read_host(write(tmp_path, f'based-on = "{host}"\n'))

    assert all(getattr(mine, column) == getattr(HOSTS[host], column) for column in columns())


# ---- hostile files


def toml(value: Any) -> str:
    """Spell a value in TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


RULE_COLUMNS = ("affinity_rule", "suspend_rule", "unknown_rule", "workaround_answers", "target_rule")
RULES = [name for column in RULE_COLUMNS for name in rules(column)]
MEANING = (
    *("none", "UNDEF", "hvc", "smc", "both", "0.1", "0.2", "1.0", "1.3", "ON", "DENIED", "arm,psci-1.0"),
    *("CPU_ON", "PSCI_FEATURES", "STD_BMAP", "PSCI_VERSION", "SMCCC_ARCH_WORKAROUND_1"),
    *("add", "remove", "type", "vcpu", "uid", "revision", "calls", "cpu-on", "value", "function", "discovery"),
)
WORDS = st.sampled_from([*MEANING, *RULES])
SHORT = st.text(st.characters(codec="ascii"), max_size=5)
SCALARS = st.one_of(st.booleans(), st.integers(-(1 << 63), (1 << 63) - 1), st.integers(0, 8), WORDS, SHORT)
VALUES = st.recursive(SCALARS, lambda each: st.lists(each, max_size=4) | st.dictionaries(WORDS, each, max_size=4), max_leaves=8)
TABLES = st.dictionaries(st.one_of(st.sampled_from([*KEYS]), SHORT), VALUES, max_size=4)


def use(path: Path) -> None:
    """Read a host and ask it everything, or be told in one sentence why not."""
    sentence = ""
    try:
        setup = make(Choices(host=str(path), mpidrs=(0, 1)))
    except UserError as refused:
        sentence = str(refused)
    assert "\n" not in sentence
    if sentence:
        return
    setup.device_tree(None)
    firmware = Firmware(setup.config)
    for conduit in Conduit:
        for question in questions(setup.config):
            ask(firmware, question, conduit)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(base=st.sampled_from([*HOSTS]), table=TABLES)
def test_any_table_is_a_host_that_answers_or_is_refused(tmp_path: Path, base: str, table: dict[str, Any]) -> None:
    lines = {"based-on": base, **table}
    use(write(tmp_path, "\n".join(f"{json.dumps(key)} = {toml(value)}" for key, value in lines.items())))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(min_size=1, max_size=200), st.text(max_size=60).map(lambda text: f'based-on = "spec"\n{text}'.encode())))
def test_any_bytes_are_a_host_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)

    use(path)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_good_file_with_one_value_of_another_kind_is_a_host_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    key = data.draw(st.sampled_from([*KEYS]))
    value = data.draw(VALUES)

    use(write(tmp_path, f'based-on = "{data.draw(st.sampled_from([*HOSTS]))}"\n{key} = {toml(value)}\n'))


def test_a_register_that_is_listed_twice_is_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path, 'based-on = "kvm-6.12"\nregisters = ["PSCI_VERSION", "STD_BMAP", "PSCI_VERSION"]\n')

    with pytest.raises(InputError, match=r"mine\.toml: registers: 'PSCI_VERSION' is there 2 times"):
        read_host(path)
