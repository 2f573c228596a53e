"""The command: exit codes, refusals, what it prints and leaves, Ctrl-C, and findings that replay to the byte."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from emu.cli import main
from emu.outcome import ExitCode
from guests import elf_path
from guests.gallery import gallery
from tests.emu.programs import AFFINITY_INFO, PSCI_VERSION, Bench, Label, Part, call, exits, off, prints, tbnz

SECONDS: Final = 60  # for what takes a few; a test that gets there has failed
# At which the engine aborts the process under -cpu max (tests/emu/test_machine_fuzz.py).
ABORTS: Final = 0x4ED6_2CD9
RENDEZVOUS: Final = str(elf_path("rendezvous"))
SMALL: Final = ("-smp", "2", "-m", "16M", "--hosts", "spec", "--runs", "120")


class Ended(NamedTuple):
    code: int
    out: str
    err: str


class Command:
    """Run the command in this process, in a folder of the test's own."""

    def __init__(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.corpus = folder / "corpus"
        self._capfd = capfd

    def fuzz(self, *arguments: str) -> Ended:
        return self.ended("fuzz", "--corpus", str(self.corpus), *arguments)

    def ended(self, *arguments: str) -> Ended:
        code = main(arguments)
        return Ended(code, *self._capfd.readouterr())

    @property
    def findings(self) -> list[Path]:
        return sorted([*self.corpus.glob("crashes/*.toml"), *self.corpus.glob("hangs/*.toml")])


@pytest.fixture
def command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, capfd)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def kernel(bench: Bench) -> str:
    """A guest that fails where PSCI_VERSION answers an error, and ends well otherwise."""
    return str(bench.file(call(PSCI_VERSION), tbnz(0, 31, "fell"), call(AFFINITY_INFO), off(), exits(0), Label("fell"), exits(3)))


FEW: Final = ("-smp", "1", "-m", "16M", "--hosts", "qemu-6,xen", "--conduit", "hvc", "--runs", "60")


# ---- how it ends


def test_a_guest_that_is_right_on_correct_firmware_ends_with_0_whatever_broken_firmware_does_to_it(command: Command, kernel: str) -> None:
    ended = command.fuzz("-kernel", kernel, *FEW)

    assert (ended.code, ended.err) == (ExitCode.OK, "")
    assert "no bug: the guest was right on all firmware that is correct\n" in ended.out
    assert re.search(r"^\d+ robustness findings?: what it does wrong on firmware that is broken$", ended.out, re.MULTILINE)


def test_a_guest_that_fails_on_correct_firmware_ends_with_100(command: Command) -> None:
    guest = gallery()["G01"]

    ended = command.fuzz("-kernel", str(guest.elf), *guest.machine.split(), "-m", "16M", "--hosts", "spec,kvm-4.14.39", "--runs", "60")

    assert ended.code == ExitCode.CHECK_FAILED
    assert re.search(r"^\d+ bugs?: what the guest does wrong on firmware that is correct$", ended.out, re.MULTILINE)


def test_each_finding_is_told_with_all_that_is_needed(command: Command, kernel: str) -> None:
    ended = command.fuzz("-kernel", kernel, *FEW)

    found = ended.out.split("\n\n")[0]
    path = command.findings[0]
    assert re.fullmatch(
        rf"""1\. the guest ends with a wrong result, on broken firmware
   at        0x[0-9a-f]+, PSCI_VERSION
   what      the guest ended with exit code 3; on the reference: system off
   firmware  -host spec -psci 0\.2 -fault '[^']+'
   calls     cpu0 hvc 0x[0-9a-f]+: PSCI_VERSION\(\) = [^\n]+
   again     psci-emu replay '{re.escape(str(path))}'""",
        found,
    ), found


def test_the_firmware_that_a_finding_names_can_be_typed(command: Command, kernel: str) -> None:
    ended = command.fuzz("-kernel", kernel, *FEW)
    (firmware, *_) = re.findall(r"^   firmware  -host spec -psci 0\.2 -fault '([^']+)'$", ended.out, re.MULTILINE)

    assert command.ended("run", "-kernel", kernel, "-psci", "0.2", "-fault", firmware).code == 3


def test_the_same_is_run_and_found_for_the_same_seed_however_many_run_at_once(command: Command, tmp_path: Path, kernel: str) -> None:
    def told(name: str, jobs: str) -> list[tuple[str, bytes]]:
        command.corpus = tmp_path / name
        command.fuzz("-kernel", kernel, *FEW, "--runs", "300", "-j", jobs)
        return sorted((str(each.relative_to(command.corpus)), each.read_bytes()) for each in command.corpus.rglob("*.toml"))

    assert told("one", "1") == told("two", "2")


def test_a_guest_that_makes_no_call_is_told_so(command: Command, bench: Bench) -> None:
    ended = command.fuzz("-kernel", str(bench.file(prints("hello"), exits(0))), "-m", "16M", "--hosts", "spec", "--time", "100s")

    assert ended.code == ExitCode.OK
    assert "the guest makes no call: there was no reply to change\n" in ended.out


def test_a_guest_at_which_the_engine_aborts_is_a_finding_that_replays(command: Command, bench: Bench) -> None:
    program: list[Part] = [call(PSCI_VERSION), tbnz(0, 31, "fell"), off(), Label("fell"), ABORTS]

    ended = command.fuzz("-kernel", str(bench.file(*program)), "-cpu", "max", *FEW[:-2], "--runs", "20")

    findings = [each for each in command.findings if "guest crash: the engine gave up at an instruction" in each.read_text()]
    assert (ended.code, ended.err) == (ExitCode.OK, "")
    assert "code should not be reached" not in ended.out  # the engine's own words
    assert len(findings) == 1
    replayed = command.ended("replay", str(findings[0]))
    assert (replayed.code, replayed.err) == (ExitCode.OK, "")
    assert replayed.out.endswith("the same run, to the byte\n")
    assert "code should not be reached" not in replayed.out


def test_a_guest_at_which_the_engine_aborts_before_anything_else_is_a_bug(command: Command, bench: Bench) -> None:
    ended = command.fuzz("-kernel", str(bench.file(ABORTS)), "-cpu", "max", *FEW[:-2], "--runs", "4")

    assert ended.code == ExitCode.CHECK_FAILED
    assert "1 bug: what the guest does wrong on firmware that is correct\n" in ended.out


# ---- what it leaves


def test_the_folder_is_in_afl_s_layout_and_holds_all_that_was_told(command: Command, kernel: str) -> None:
    ended = command.fuzz("-kernel", kernel, *FEW)

    assert sorted(each.name for each in command.corpus.iterdir()) == ["crashes", "fuzzer_stats", "hangs", "queue"]
    assert [str(path) for path in command.findings] == sorted(re.findall(r"^   again     psci-emu replay '(.*)'$", ended.out, re.MULTILINE))
    stats = dict(line.split(":", 1) for line in (command.corpus / "fuzzer_stats").read_text().splitlines())
    runs = re.search(r"^(\d+) runs, (\d+) blocks .*, (\d+) cases kept$", ended.out, re.MULTILINE)
    assert runs is not None
    of = {name.strip(): value.strip() for name, value in stats.items()}
    assert (of["execs_done"], of["edges_found"], of["corpus_count"]) == runs.groups()
    assert int(of["saved_crashes"]) + int(of["saved_hangs"]) == len(command.findings)
    assert len(list(command.corpus.glob("queue/*.toml"))) == int(runs[3])


def test_without_corpus_the_folder_is_called_after_the_kernel(
    command: Command, kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    ended = command.ended("fuzz", "-kernel", kernel, *FEW[:-2], "--runs", "5")

    assert ended.out.endswith("cases and findings are in program.fuzz\n")
    assert (tmp_path / "program.fuzz" / "queue").is_dir()


def test_a_run_that_is_begun_again_from_its_folder_tells_all_again_and_writes_nothing_twice(command: Command, kernel: str) -> None:
    first = command.fuzz("-kernel", kernel, *FEW, "--runs", "200")
    before = {each: each.read_bytes() for each in command.corpus.rglob("*.toml")}

    second = command.fuzz("-kernel", kernel, *FEW, "--runs", "250")

    for path, content in before.items():
        assert path.read_bytes() == content
    cases = [re.sub(rb"id:\d+", b"", each.read_bytes()) for each in command.corpus.rglob("*.toml")]
    assert len(set(cases)) == len(cases)
    assert (first.code, second.code) == (ExitCode.OK, ExitCode.OK)


def test_the_cases_of_a_folder_are_run(command: Command, kernel: str) -> None:
    (command.corpus / "queue").mkdir(parents=True)
    (command.corpus / "queue" / "mine.toml").write_text(
        '[case]\nhost = "spec"\npsci = "1.3"\nfaults = ["AFFINITY_INFO: undef", "PSCI_VERSION: x0=0x80000000"]\n'
    )

    ended = command.fuzz("-kernel", kernel, *FEW[:-2], "--runs", "8")

    assert "-fault 'PSCI_VERSION: x0=0x80000000'" in ended.out


# ---- replay


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run."""
    folder = tmp_path_factory.mktemp("kept")
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        command = [sys.executable, "-m", "emu", "fuzz", "-kernel", RENDEZVOUS, *SMALL, "--corpus", str(folder)]
        assert subprocess.run(command, stdout=nowhere, timeout=SECONDS, check=False).returncode == ExitCode.OK
    return folder


def kept_findings(folder: Path) -> list[Path]:
    return sorted([*folder.glob("crashes/*.toml"), *folder.glob("hangs/*.toml")])


def test_each_finding_replays_to_the_byte(command: Command, kept: Path) -> None:
    findings = kept_findings(kept)

    assert len(findings) > 4
    for finding in findings:
        ended = command.ended("replay", str(finding))
        assert (ended.code, ended.err) == (ExitCode.OK, ""), finding
        assert ended.out.endswith("\nthe same run, to the byte\n"), finding


def test_a_finding_is_found_where_its_kernel_is_now_and_refused_with_another(command: Command, kept: Path, tmp_path: Path) -> None:
    finding = str(kept_findings(kept)[0])
    moved, changed = tmp_path / "moved.elf", tmp_path / "changed.elf"
    moved.write_bytes(Path(RENDEZVOUS).read_bytes())
    changed.write_bytes(moved.read_bytes() + b"\0")

    assert command.ended("replay", finding, "--kernel", str(moved)).code == ExitCode.OK
    refused = command.ended("replay", finding, "--kernel", str(changed))

    assert (refused.code, refused.out) == (ExitCode.INPUT, "")
    assert re.fullmatch(
        rf"psci-emu: {changed} is not the file that was fuzzed: its SHA-256 is [0-9a-f]{{16}}\.\.\., not [0-9a-f]{{16}}\.\.\.\n",
        refused.err,
    )


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        (r"^code = \d+", "code = 77", r"exit code: recorded 77, now \d+"),
        (r'^sentence = ".*"', 'sentence = "otherwise"', "end: recorded otherwise, now .*"),
        (r"^cpus_up = \d", "cpus_up = 9", r"vCPUs up: recorded 9, now \d"),
        (r'^site = ".*"', 'site = "elsewhere+0x4"', r".* at elsewhere\+0x4 is not found any more"),
        (r'^sha256 = "([0-9a-f]{63}).$', r'sha256 = "\g<1>', None),
    ],
)
def test_a_run_that_is_not_the_recorded_one_is_told_in_what(
    command: Command, kept: Path, tmp_path: Path, old: str, new: str, difference: str | None
) -> None:
    finding = next(iter(kept.glob("crashes/*lost-vcpu*")))
    text = finding.read_text()
    if difference is None:
        old, new, difference = text.rpartition('sha256 = "')[2][:64], 64 * "0", "calls, replies or console differ"
    other = tmp_path / "other.toml"
    other.write_text(re.sub(old, new, text, count=1, flags=re.MULTILINE))

    ended = command.ended("replay", str(other))

    assert (ended.code, ended.err) == (ExitCode.CHECK_FAILED, "")
    assert re.search(rf"^differs   {difference}$", ended.out, re.MULTILINE), ended.out
    assert "the same run" not in ended.out


def test_what_is_for_a_trace_is_refused_of_a_finding_and_the_other_way_round(
    command: Command, kept: Path, tmp_path: Path, kernel: str
) -> None:
    trace = tmp_path / "trace.jsonl"
    assert command.ended("run", "-kernel", kernel, "--trace", str(trace)).code == ExitCode.OK

    for arguments, sentence in (
        ((str(kept_findings(kept)[0]), "--host", "xen"), "-host is for a trace, and this is a finding"),
        ((str(trace), "--kernel", kernel), "-kernel is for a finding, and this is a trace"),
    ):
        assert command.ended("replay", *arguments) == Ended(ExitCode.USAGE, "", f"psci-emu: {sentence}\n")


def test_a_finding_cannot_write_to_the_terminal_what_it_likes(command: Command, kept: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text(re.sub(r'^detail = "', r'detail = "\\u001b[2J', kept_findings(kept)[0].read_text(), flags=re.MULTILINE))

    ended = command.ended("replay", str(other))

    assert ended.code == ExitCode.CHECK_FAILED
    assert "\x1b" not in ended.out
    assert "what      \\x1b[2J" in ended.out


# ---- refusals

REFUSALS: Final[list[tuple[tuple[str, ...], str]]] = [
    (("-fault", "CPU_ON: drop"), "-fault: the fuzzer finds faults itself; for one of your own there are run and lint"),
    (("--runs", "0"), "--runs '0' is not a number from 1 to "),
    (("--runs", "many"), "--runs 'many' is not a number"),
    (("-j", "0"), "-j '0' is not a number from 1 to "),
    (("-j", "65"), "-j 65: at most 64"),
    (("--time", "0s"), "--time '0s' is not a time such as 60s, 10m or 1h"),
    (("--time", "soon"), "--time 'soon' is not a time such as 60s, 10m or 1h"),
    (("--time", "nan"), "--time 'nan' is not a time such as 60s, 10m or 1h"),
    (("--time", "-1s"), "--time '-1s' is not a time such as 60s, 10m or 1h"),
    (("--conduit", "both"), "--conduit 'both': hvc or smc"),
    (("--hosts", "spec,qemu-77"), "unknown host 'qemu-77'; did you mean qemu-7?"),
    (("--until", "later"), "--until 'later' is neither call:NAME#N nor console:REGEX"),
    (("-machine", "virt,dumpdtb=x"), "-machine virt,dumpdtb=F is for run alone"),
    (("-host", "spec"), "option -host is not offered by psci-emu fuzz; did you mean -hosts?"),
    (("-psci", "1.0"), "option -psci is not offered by psci-emu fuzz"),
    (("-smp", "0"), "-smp '0': cpus must be a number from 1 to 123"),
    (("extra",), "unrecognized arguments: extra"),
]


@pytest.mark.parametrize(("arguments", "sentence"), REFUSALS, ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_what_cannot_be_is_refused_in_a_sentence_and_leaves_nothing(
    command: Command, kernel: str, arguments: tuple[str, ...], sentence: str
) -> None:
    ended = command.fuzz("-kernel", kernel, *arguments)

    assert (ended.code, ended.out) == (ExitCode.USAGE, "")
    assert ended.err.startswith(f"psci-emu: {sentence}")
    assert ended.err.count("\n") == 1
    assert not command.corpus.exists()


def test_without_a_guest_there_is_nothing_to_fuzz(command: Command) -> None:
    assert command.ended("fuzz") == Ended(ExitCode.USAGE, "", "psci-emu: nothing to fuzz; give -kernel F\n")


def test_a_host_of_one_s_own_is_refused(command: Command, kernel: str) -> None:
    ended = command.fuzz("-kernel", kernel, "--hosts", "my.toml")

    assert ended.code == ExitCode.USAGE
    assert ended.err.startswith("psci-emu: unknown host 'my.toml'")


@pytest.mark.parametrize("option", ["-kernel", "-initrd", "-dtb", "-symbols"])
def test_a_file_that_is_not_there_is_refused(command: Command, kernel: str, option: str) -> None:
    ended = command.fuzz("-kernel", kernel, option, "/nowhere")

    assert ended == Ended(ExitCode.INPUT, "", "psci-emu: /nowhere cannot be read: No such file or directory\n")


@pytest.mark.parametrize("option", ["-kernel", "-bios"])
def test_a_file_that_cannot_be_used_is_refused_by_its_name_before_anything_is_left(command: Command, tmp_path: Path, option: str) -> None:
    broken = tmp_path / "broken.elf"
    broken.write_bytes(b"\x7fELF" + bytes(60))

    ended = command.fuzz(option, str(broken))

    assert (ended.code, ended.out) == (ExitCode.INPUT, "")
    assert ended.err.startswith(f"psci-emu: {broken} ")
    assert ended.err.count("\n") == 1
    assert not command.corpus.exists()


@pytest.mark.parametrize("where", ["/dev/null", "/dev/null/below", "/proc/nowhere"])
def test_a_folder_that_cannot_be_written_is_refused(command: Command, kernel: str, where: str) -> None:
    command.corpus = Path(where)

    ended = command.fuzz("-kernel", kernel, *FEW)

    assert (ended.code, ended.out) == (ExitCode.USAGE, "")
    assert re.fullmatch(rf"psci-emu: --corpus {where} cannot be used: [A-Z][a-z ]+\n", ended.err)


def test_a_broken_case_in_the_folder_is_refused_by_its_file(command: Command, kernel: str) -> None:
    (command.corpus / "queue").mkdir(parents=True)
    broken = command.corpus / "queue" / "broken.toml"
    broken.write_text("[case]\nhost = 3\n")

    ended = command.fuzz("-kernel", kernel, *FEW)

    assert ended == Ended(ExitCode.INPUT, "", f"psci-emu: {broken}: case.psci is missing\n")


# ---- as a process


class Started:
    """The command as a process that would go on for long."""

    def __init__(self, folder: Path, *arguments: str, stderr: Any = subprocess.PIPE) -> None:
        self.corpus = folder / "corpus"
        command = [sys.executable, "-m", "emu", "fuzz", "-kernel", RENDEZVOUS, "-m", "16M", "--corpus", str(self.corpus), *arguments]
        self.life, inherited = os.pipe()
        # Unbuffered here: what is read line by line is not kept from communicate().
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, bufsize=0, start_new_session=True, pass_fds=(inherited,)
        )
        os.close(inherited)
        self.lines: list[bytes] = []

    def read_a_finding(self) -> None:
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            self.lines.append(line)
            if line.startswith(b"   again "):
                return

    def ended(self) -> Ended:
        """Wait until it has ended."""
        out, err = self.process.communicate(timeout=SECONDS)
        return Ended(self.process.returncode, b"".join([*self.lines, out]).decode(), (err or b"").decode())


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[Started]]:
    running: list[Started] = []
    yield running
    for each in running:
        if each.process.poll() is None:
            os.killpg(each.process.pid, signal.SIGKILL)
            each.process.wait()
        os.close(each.life)
        for stream in (each.process.stdout, each.process.stderr):
            if stream is not None:
                stream.close()
    del tmp_path


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_ends_with_130_a_summary_and_every_finding_that_was_told(started: list[Started], tmp_path: Path, jobs: str) -> None:
    started.append(one := Started(tmp_path, "--time", "1h", "-j", jobs))
    one.read_a_finding()

    os.killpg(one.process.pid, signal.SIGINT)
    ended = one.ended()

    assert (ended.code, ended.err) == (ExitCode.INTERRUPTED, "")
    told = re.findall(r"^   again     psci-emu replay '(.*)'$", ended.out, re.MULTILINE)
    assert sorted(told) == sorted(str(each) for name in ("crashes", "hangs") for each in (one.corpus / name).iterdir())
    assert re.search(r"^[\d,]+ runs, ", ended.out, re.MULTILINE)
    assert (one.corpus / "fuzzer_stats").exists()
    assert not list(one.corpus.rglob(".*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_who_is_killed_leaves_no_worker_behind(started: list[Started], tmp_path: Path, number: int) -> None:
    started.append(one := Started(tmp_path, "--time", "1h", "-j", "2"))
    one.read_a_finding()

    one.process.send_signal(number)

    assert one.ended().code == -number
    ready, _, _ = select.select([one.life], [], [], SECONDS)
    assert ready  # its other end is closed: nobody has it any more
    assert os.read(one.life, 1) == b""


def test_output_that_nobody_reads_any_more_is_no_error(started: list[Started], tmp_path: Path) -> None:
    started.append(one := Started(tmp_path, "--time", "1h"))
    one.read_a_finding()
    assert one.process.stdout is not None
    assert one.process.stderr is not None

    one.process.stdout.close()

    assert one.process.stderr.read() == b""
    assert one.process.wait(timeout=SECONDS) == ExitCode.OK


def test_output_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "emu", "fuzz", "-kernel", RENDEZVOUS, *SMALL, "--corpus", str(tmp_path / "corpus")]
    with open("/dev/full", "w", encoding="utf-8") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=SECONDS, check=False)

    assert (ended.returncode, ended.stderr) == (
        ExitCode.USAGE,
        "psci-emu: standard output cannot be written: No space left on device\n",
    )


def test_a_terminal_is_shown_how_far_it_is(started: list[Started], tmp_path: Path) -> None:
    controller, terminal = pty.openpty()
    started.append(one := Started(tmp_path, *SMALL, stderr=terminal))
    os.close(terminal)

    shown = b""
    while True:
        try:
            text = os.read(controller, 4096)
        except OSError:  # the other end is closed
            break
        shown += text
    os.close(controller)

    assert one.ended().code == ExitCode.OK
    lines = [line for line in shown.decode().replace("\x1b[K", "").split("\r") if line]
    assert lines
    for line in lines:
        assert len(line) < 80
        assert re.match(r"\d+ s \| [\d,]+ runs \([\d,]+/s\) \| [\d,]+ blocks \| [\d,]+ cases \| 0 bugs, \d+ robustness", line), line


def test_the_help_tells_of_each_option_in_a_line_or_two(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["fuzz", "-h"])

    assert ended.value.code == 0
    out = capfd.readouterr().out
    for option in ("--hosts", "--conduit", "--until", "--time", "--runs", "-j", "--scheduler", "--corpus", "--kernel"):
        assert re.search(rf"^  {option} ", out, re.MULTILINE), option
    assert "--fault" not in out  # which is refused
