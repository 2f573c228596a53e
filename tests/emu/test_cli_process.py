"""The command as a process: signals, pipes, terminals, closed and full outputs."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from emu.outcome import ExitCode
from tests.emu.programs import (
    ERET,
    PSCI_VERSION,
    SCRATCH,
    UDF,
    WFI,
    Bench,
    Label,
    Part,
    b,
    call,
    cbnz,
    cbz,
    exits,
    ldr,
    ldr32,
    mov,
    off,
    prints,
    store8,
    sub,
    svc,
    tbnz,
    vector,
    vectors_here,
)

FLAG: Final = SCRATCH + 0x100
SECONDS: Final = 60  # for what takes none; a test that gets there has failed


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def ends(arguments: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(arguments, capture_output=True, timeout=SECONDS, check=False, **options)


def starts(*arguments: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command(*arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "emu", "run", *map(str, arguments)]


def spins() -> list[Part]:
    return [prints("go\n"), mov(9, FLAG), Label("spin"), ldr(10, 9), cbz(10, "spin")]


def echoes() -> list[Part]:
    """Print what is typed, as it comes; end at a dot."""
    return [
        prints("ready\n"),
        mov(9, UART_BASE),
        Label("wait"),
        ldr32(10, 9, 0x18),
        tbnz(10, 4, "wait"),  # FR.RXFE
        ldr32(10, 9),
        store8(10, 9),
        sub(11, 10, ord(".")),
        cbnz(11, "wait"),
        off(),
    ]


UART_BASE: Final = 0x0900_0000


@pytest.mark.parametrize("arguments", [["hosts"], ["regs"], ["hosts", "diff", "xen", "bao"], ["guests"]])
def test_a_table_for_a_closed_standard_output_is_no_mistake_of_ours(arguments: list[str]) -> None:
    ran = ends(["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "emu", *arguments])

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")


# ---- signals


def test_an_interrupt_ends_at_the_next_slice_with_the_summary_so_far(bench: Bench) -> None:
    with starts("-kernel", bench.file(call(PSCI_VERSION), spins())) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"go\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=SECONDS)

    assert process.returncode == ExitCode.INTERRUPTED
    assert err.startswith(b"psci-emu: interrupted (after 1 call")
    assert err.count(b"\n") == 1


def test_an_interrupt_does_not_wait_for_a_guest_that_only_takes_exceptions(bench: Bench) -> None:
    program: list[Part] = [vectors_here(), prints("go\n"), Label("again"), svc(), b("again"), vector(0x200), ERET]

    with starts("-kernel", bench.file(*program)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"go\n"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=SECONDS)

    assert process.returncode == ExitCode.INTERRUPTED


# ---- outputs


def test_a_reader_that_goes_away_ends_the_run_without_a_word_about_us(bench: Bench) -> None:
    path = bench.file(Label("again"), prints("line\n"), b("again"))
    with starts("-kernel", path) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read()
        process.wait(timeout=SECONDS)

    assert process.returncode == ExitCode.INTERRUPTED
    assert b"Traceback" not in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["run"], ["hosts"]], ids=["run", "hosts"])
def test_a_full_disk_is_told_in_one_sentence(bench: Bench, arguments: list[str]) -> None:
    kernel = ["-kernel", str(bench.file(prints("hello\n"), off()))] if arguments == ["run"] else []
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "emu", *arguments, *kernel], stdout=full, stderr=subprocess.PIPE, timeout=SECONDS, check=False
        )

    assert ended.returncode == ExitCode.USAGE
    assert ended.stderr.startswith(b"psci-emu: ")
    assert ended.stderr.count(b"\n") == 1


def test_a_closed_standard_output_is_no_mistake_of_ours(bench: Bench) -> None:
    path = bench.file(prints("hello\n"), exits(5))

    ended = ends(["sh", "-c", 'exec "$@" >&-', "sh", *command("-kernel", path)])

    assert b"Traceback" not in ended.stderr
    assert ended.returncode != ExitCode.OURS


def test_a_closed_standard_input_is_an_input_without_characters(bench: Bench) -> None:
    path = bench.file(prints("hello\n"), exits(5))

    ended = ends(["sh", "-c", 'exec "$@" <&-', "sh", *command("-kernel", path)])

    assert (ended.returncode, ended.stdout) == (5, b"hello\n")


# ---- inputs


def test_a_regular_file_gives_the_same_bytes_each_run(bench: Bench, tmp_path: Path) -> None:
    typed = tmp_path / "typed"
    typed.write_bytes(bytes(range(1, 0x2E)) + b"\xff\x80 the rest\n.")
    runs = []
    for _ in range(2):
        with typed.open("rb") as stream:
            ended = ends(command("-kernel", bench.file(*echoes()), "-d", "psci,engine"), stdin=stream)
        runs.append((ended.returncode, ended.stdout, ended.stderr))

    assert runs[0] == runs[1]
    assert runs[0][:2] == (0, b"ready\n" + typed.read_bytes())


def test_a_pipe_is_read_as_it_comes(bench: Bench) -> None:
    with starts("-kernel", bench.file(*echoes())) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        for line in (b"one\n", b"two\n"):
            process.stdin.write(line)
            process.stdin.flush()
            assert process.stdout.readline() == line
        out, _ = process.communicate(b".", timeout=SECONDS)

    assert (process.returncode, out) == (0, b".")


def test_a_control_a_in_a_pipe_is_a_character(bench: Bench) -> None:
    ended = ends(command("-kernel", bench.file(*echoes())), input=b"\x01x.")

    assert (ended.returncode, ended.stdout) == (0, b"ready\n\x01x.")


def test_an_input_that_ends_leaves_a_silent_line(bench: Bench) -> None:
    ended = ends(command("-kernel", bench.file(*echoes()), "--max-insns", "1000000"), input=b"abc")

    assert ended.stdout == b"ready\nabc"
    assert ended.returncode == ExitCode.NO_PROGRESS


# ---- a terminal


class Terminal:
    """A pseudo-terminal with the command at its other end."""

    def __init__(self, arguments: list[str]) -> None:
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(arguments, stdin=self.slave, stdout=self.slave, stderr=subprocess.PIPE)

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def read_until(self, text: bytes) -> bytes:
        """Read the screen until a text is there."""
        screen = b""
        while text not in screen:
            ready, _, _ = select.select([self.master], [], [], SECONDS)
            assert ready, screen
            screen += os.read(self.master, 4096)
        return screen

    def attributes(self) -> list[object]:
        return list(termios.tcgetattr(self.slave))


@contextlib.contextmanager
def terminal(*arguments: str | Path) -> Iterator[Terminal]:
    opened = Terminal(command(*arguments))
    try:
        yield opened
    finally:
        opened.process.kill()
        opened.process.communicate()
        os.close(opened.master)
        os.close(opened.slave)


def test_control_a_x_ends_the_run_and_the_terminal_is_as_before(bench: Bench) -> None:
    with terminal("-kernel", bench.file(*echoes())) as screen:
        screen.read_until(b"ready")
        during = screen.attributes()
        screen.type(b"ab")
        screen.read_until(b"ab")
        screen.type(b"\x01x")
        _, err = screen.process.communicate(timeout=SECONDS)

        assert screen.process.returncode == ExitCode.INTERRUPTED
        assert err.startswith(b"psci-emu: interrupted (")
        assert during != screen.before
        assert screen.attributes() == screen.before


def test_every_other_key_reaches_the_guest(bench: Bench) -> None:
    with terminal("-kernel", bench.file(*echoes())) as screen:
        screen.read_until(b"ready")
        screen.type(b"\x03\x1a\x04\x13\x11\x7f\x1b[A\x01\x01!\x01b?.")
        seen = screen.read_until(b".")
        screen.process.communicate(timeout=SECONDS)

        assert seen.strip(b"\r\n") == b"\x03\x1a\x04\x13\x11\x7f\x1b[A\x01!?."
        assert screen.process.returncode == 0


@pytest.mark.parametrize(("end", "code"), [(UDF, ExitCode.CRASH), (WFI, ExitCode.DEADLOCK)])
def test_the_terminal_is_restored_however_the_run_ends(bench: Bench, end: int, code: int) -> None:
    with terminal("-kernel", bench.file(prints("ready\n"), end)) as screen:
        screen.process.communicate(timeout=SECONDS)

        assert screen.process.returncode == code
        assert screen.attributes() == screen.before


def test_the_terminal_is_left_alone_where_the_console_is_elsewhere(bench: Bench, tmp_path: Path) -> None:
    with terminal("-kernel", bench.file(prints("go\n"), exits(0)), "-serial", f"file:{tmp_path / 'console'}") as screen:
        screen.process.communicate(timeout=SECONDS)

        assert screen.attributes() == screen.before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_leaves_the_terminal_as_it_was(bench: Bench, number: signal.Signals) -> None:
    with terminal("-kernel", bench.file(*echoes())) as screen:
        screen.read_until(b"ready")
        screen.process.send_signal(number)
        screen.process.communicate(timeout=SECONDS)

        assert screen.attributes() == screen.before
