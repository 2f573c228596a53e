"""What is read off the console as a kernel's panic or Oops."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.announcement import Announcement
from firmware.trap import MpState, MpStateValue, Reply, Reset

MOUNT = "VFS: Unable to mount root fs on unknown-block(0,0)"


def heard(*lines: str) -> Announcement:
    announced = Announcement()
    announced.console("".join(f"{line}\r\n" for line in lines).encode())
    return announced


@pytest.mark.parametrize("before", ["", "[    0.750828] ", "[12345.750828] ", "[    0.000000][    T0] ", "[    1.000000][   C3] "])
def test_a_panic_is_heard_with_printks_stamp_and_caller_or_without(before: str) -> None:
    assert heard(f"{before}Kernel panic - not syncing: {MOUNT}") == Announcement(panic=MOUNT)


def test_a_panics_last_word_is_its_end_until_the_next_one_begins() -> None:
    end = f"[    0.7] ---[ end Kernel panic - not syncing: {MOUNT} ]---"

    assert heard(end) == Announcement(panic=MOUNT, is_end=True)
    assert heard(end, "Kernel panic - not syncing: again") == Announcement(panic="again")


@pytest.mark.parametrize(
    ("line", "oops"),
    [
        (
            "[ 0.1] Internal error: Oops - Undefined instruction: 0000000002000000 [#1] SMP",
            "Oops - Undefined instruction: 0000000002000000",
        ),
        ("Internal error: Oops: 0000000096000004 [#2] PREEMPT SMP", "Oops: 0000000096000004"),
        ("Internal error: Oops - BUG: 00000000f2000800 [#1]", "Oops - BUG: 00000000f2000800"),
    ],
)
def test_an_oops_is_heard(line: str, oops: str) -> None:
    assert heard("[    0.1] some line", line, "Modules linked in:") == Announcement(oops=oops)


@pytest.mark.parametrize(
    "line",
    [
        "he said: Kernel panic - not syncing: no",
        "Kernel panic: no",
        "[x] Kernel panic - not syncing: no",
        "Kernel panic - not syncing from here",
        " Internal error: no",
        "systemd[1]: Internal error: no",
    ],
)
def test_what_only_looks_like_one_is_none(line: str) -> None:
    assert heard(line).sentence is None


def test_sentences() -> None:
    oops, panic = "Internal error: Oops: 1 [#1] SMP", "Kernel panic - not syncing: "

    assert heard(panic + "x").sentence == "kernel panic: x"
    assert heard("Kernel panic - not syncing").sentence == "kernel panic"
    assert heard(oops).sentence == "kernel Oops: Oops: 1"
    assert heard(oops, panic + "Attempted to kill init!").sentence == "kernel panic: Attempted to kill init!; before it an Oops: Oops: 1"
    assert heard("").sentence is None


def test_a_line_counts_when_it_is_whole_however_it_comes() -> None:
    announced = Announcement()
    for character in b"[    0.1] Kernel panic - not syncing: x\r":
        announced.console(bytes([character]))
    assert announced.sentence is None

    announced.console(b"\n")

    assert announced == Announcement(panic="x")


def test_a_text_is_printable_and_no_longer_than_a_sentence_can_bear() -> None:
    assert heard("Kernel panic - not syncing: \x1b[2J\xe9").panic == "?[2J??"
    assert heard("Kernel panic - not syncing: " + "x" * 300).panic == "x" * 200


def test_a_line_without_end_is_heard_as_far_as_a_panic_is_long() -> None:
    announced = Announcement()
    for _ in range(100):
        announced.console(b"x" * 100)

    assert announced == Announcement(b"x" * 512)


def test_a_reset_begins_anew_and_what_was_announced_stands() -> None:
    announced = heard("---[ end Kernel panic - not syncing: x ]---")
    announced.console(b"half a line")

    announced.firmware_event(MpState(0, MpStateValue.RUNNABLE), Reply())
    assert announced == Announcement(b"half a line", panic="x", is_end=True)
    announced.firmware_event(Reset(), Reply())

    assert announced == Announcement(panic="x")


@given(st.binary(max_size=2000), st.lists(st.integers(0, 2000)))
def test_any_text_is_heard_alike_however_it_is_cut(text: bytes, cuts: list[int]) -> None:
    whole, parts = Announcement(), Announcement()
    whole.console(text)
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    for first, last in itertools.pairwise(places):
        parts.console(text[first:last])

    assert (parts.panic, parts.oops, parts.is_end) == (whole.panic, whole.oops, whole.is_end)
    assert len(parts.line) <= 512
