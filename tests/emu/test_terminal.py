"""The user's side of the console."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator

import pytest

from emu.terminal import Input, Output, standard_input


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            pass


def keys(pipe: tuple[int, int], text: bytes, *, escapes: bool) -> tuple[Input, list[str]]:
    quits: list[str] = []
    os.write(pipe[1], text)
    return Input(pipe[0], escapes=escapes, quit_=lambda: quits.append("quit")), quits


def test_input_is_taken_as_far_as_asked_and_without_waiting(pipe: tuple[int, int]) -> None:
    typed, _ = keys(pipe, b"hello", escapes=False)

    assert [typed.take(2), typed.take(10), typed.take(10)] == [b"he", b"llo", b""]


def test_input_that_ended_stays_ended(pipe: tuple[int, int]) -> None:
    typed, _ = keys(pipe, b"x", escapes=False)
    os.close(pipe[1])

    assert [typed.take(9), typed.take(9), typed.take(9)] == [b"x", b"", b""]


@pytest.mark.parametrize(
    ("text", "kept", "quits"),
    [(b"a\x01xb", b"ab", 1), (b"\x01\x01", b"\x01", 0), (b"\x01b", b"", 0), (b"x", b"x", 0), (b"\x01", b"", 0), (b"\x01x\x01x", b"", 2)],
)
def test_control_a_is_an_escape_on_a_terminal(pipe: tuple[int, int], text: bytes, kept: bytes, quits: int) -> None:
    typed, seen = keys(pipe, text, escapes=True)

    assert typed.take(100) == kept
    assert len(seen) == quits


def test_an_escape_may_come_in_pieces(pipe: tuple[int, int]) -> None:
    typed, seen = keys(pipe, b"a\x01xb", escapes=True)

    assert b"".join(typed.take(1) for _ in range(4)) == b"ab"
    assert seen == ["quit"]


def test_elsewhere_control_a_is_a_character(pipe: tuple[int, int]) -> None:
    typed, seen = keys(pipe, b"\x01x", escapes=False)

    assert (typed.take(9), seen) == (b"\x01x", [])


def test_output_is_written_at_once() -> None:
    stream = io.BytesIO()

    Output(stream).write(b"x")

    assert stream.getvalue() == b"x"


def test_output_to_nowhere_is_dropped() -> None:
    Output(None).write(b"x")


def test_output_whose_reader_has_gone_says_so_once(pipe: tuple[int, int]) -> None:
    broken: list[str] = []
    with os.fdopen(os.dup(pipe[1]), "wb", buffering=0) as stream:
        output = Output(stream, lambda: broken.append("broken"))
        os.close(pipe[0])

        output.write(b"x")
        output.write(b"y")

    assert broken == ["broken"]


def test_without_a_standard_input_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in (None, io.StringIO()):
        monkeypatch.setattr("sys.stdin", stream)
        with standard_input(lambda: None) as typed:
            assert typed is None
