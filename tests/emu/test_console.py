"""The console between the guest and whoever reads and types."""

from __future__ import annotations

import re

import pytest

from emu.console import Console
from emu.devices.pl011 import DR, FR, FR_RXFE, LCR_H, LCR_H_FEN


def console(*, typed: bytes = b"", until: bytes | None = None) -> tuple[Console, bytearray]:
    output, left = bytearray(), bytearray(typed)

    def take(limit: int) -> bytes:
        taken = bytes(left[:limit])
        del left[:limit]
        return taken

    made = Console(output.extend, take)
    if until is not None:
        made.look_for(re.compile(until))
    return made, output


def send(to: Console, text: bytes) -> None:
    for character in text:
        to.uart.write(DR, 4, character)


def test_what_the_guest_sends_comes_out_at_a_flush_and_once() -> None:
    it, output = console()
    send(it, b"hello")

    it.flush()
    it.flush()

    assert output == b"hello"
    assert it.printed_bytes == 5


def test_what_was_typed_is_there_as_soon_as_the_guest_looks() -> None:
    it, _ = console(typed=b"ab")

    assert not it.read(FR, 4) & FR_RXFE
    assert [it.read(DR, 4), it.read(DR, 4)] == list(b"ab")
    assert it.read(FR, 4) & FR_RXFE


def test_no_more_is_taken_than_the_uart_has_room_for() -> None:
    it, _ = console(typed=bytes(range(65, 91)))
    it.uart.write(LCR_H, 4, LCR_H_FEN)

    for _ in range(3):
        it.poll()

    assert bytes(it.uart.rx) == bytes(range(65, 81))
    assert bytes(it.read(DR, 1) for _ in range(26)) == bytes(range(65, 91))


@pytest.mark.parametrize(
    ("until", "texts", "matched"), [(b"b+c", [b"ab", b"bc"], True), (b"b+c", [b"ab"], False), (b"^x", [b"a\nx"], False)]
)
def test_a_match_may_come_in_pieces(until: bytes, texts: list[bytes], matched: bool) -> None:
    it, _ = console(until=until)

    for text in texts:
        it.print(text)

    assert it.matched is matched


def test_a_match_once_is_a_match_for_good_and_old_output_is_forgotten() -> None:
    it, _ = console(until=b"first")
    it.print(b"first")
    it.print(bytes(1 << 17))
    other, _ = console(until=b"first")
    other.print(b"fir" + bytes(1 << 17))
    other.print(b"st")

    assert it.matched
    assert not other.matched


def test_a_reset_loses_nothing_that_was_sent() -> None:
    it, output = console(typed=b"x")
    send(it, b"bye")
    it.poll()

    it.reset()

    assert output == b"bye"
    assert not it.uart.rx
