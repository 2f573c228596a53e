from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.devices.pl011 import (
    CR,
    DMACR,
    DR,
    FBRD,
    FR,
    FR_RXFE,
    FR_RXFF,
    FR_TXFE,
    IBRD,
    ICR,
    IFLS,
    ILPR,
    IMSC,
    INT_RX,
    INT_TX,
    LCR_H,
    LCR_H_FEN,
    MIS,
    RIS,
    RSR_ECR,
    Pl011,
)


def with_fifo() -> Pl011:
    uart = Pl011()
    uart.write(LCR_H, 4, LCR_H_FEN)
    return uart


def test_reset_values_are_the_manuals() -> None:
    uart = Pl011()

    registers = {offset: uart.read(offset, 4) for offset in (FR, IBRD, FBRD, LCR_H, CR, IFLS, IMSC, RIS, MIS, DMACR)}

    assert registers == {FR: 0x90, IBRD: 0, FBRD: 0, LCR_H: 0, CR: 0x300, IFLS: 0x12, IMSC: 0, RIS: 0, MIS: 0, DMACR: 0}
    assert not uart.irq


def test_the_identification_registers_are_a_pl011s() -> None:
    uart = Pl011()

    assert [uart.read(offset, 4) for offset in range(0xFE0, 0x1000, 4)] == [0x11, 0x10, 0x14, 0x00, 0x0D, 0xF0, 0x05, 0xB1]


def test_a_character_is_sent_although_nobody_enabled_the_uart() -> None:
    uart = Pl011()
    uart.write(CR, 4, 0)

    for character in b"hi":
        uart.write(DR, 1, character)

    assert uart.drain() == b"hi"
    assert uart.drain() == b""
    assert uart.read(FR, 4) & FR_TXFE


@pytest.mark.parametrize("size_bytes", [1, 2, 4])
def test_only_the_low_byte_of_dr_is_sent(size_bytes: int) -> None:
    uart = Pl011()

    uart.write(DR, size_bytes, 0x1234_5641)

    assert uart.drain() == b"A"


def test_sending_raises_the_transmit_interrupt_until_it_is_cleared() -> None:
    uart = Pl011()
    uart.write(IMSC, 4, INT_TX)

    uart.write(DR, 1, 0x41)

    assert (uart.irq, uart.read(RIS, 4), uart.read(MIS, 4)) == (True, INT_TX, INT_TX)
    uart.write(ICR, 4, INT_TX)
    assert (uart.irq, uart.read(RIS, 4)) == (False, 0)


def test_a_masked_interrupt_shows_in_ris_alone() -> None:
    uart = with_fifo()

    uart.feed(b"x")

    assert (uart.irq, uart.read(RIS, 4), uart.read(MIS, 4)) == (False, INT_RX, 0)


def test_received_characters_are_read_in_order_and_the_last_ends_the_interrupt() -> None:
    uart = with_fifo()
    uart.write(IMSC, 4, INT_RX)
    assert uart.read(FR, 4) == FR_TXFE | FR_RXFE

    accepted = uart.feed(b"ab")

    assert accepted == 2
    assert (uart.irq, uart.read(FR, 4)) == (True, FR_TXFE)
    assert (uart.read(DR, 4), uart.irq) == (ord("a"), True)
    assert (uart.read(DR, 1), uart.irq) == (ord("b"), False)
    assert (uart.read(DR, 4), uart.read(FR, 4)) == (0, FR_TXFE | FR_RXFE)


@pytest.mark.parametrize(("fen", "depth"), [(LCR_H_FEN, 16), (0, 1)], ids=["FIFO", "holding register"])
def test_the_receiver_takes_its_depth_and_no_more(fen: int, depth: int) -> None:
    uart = Pl011()
    uart.write(LCR_H, 4, fen)

    assert uart.feed(bytes(20)) == depth
    assert uart.read(FR, 4) & FR_RXFF
    assert uart.feed(b"x") == 0
    uart.read(DR, 4)
    assert not uart.read(FR, 4) & FR_RXFF
    assert uart.feed(b"xy") == 1


def test_feeding_nothing_raises_nothing() -> None:
    uart = with_fifo()

    assert (uart.feed(b""), uart.read(RIS, 4)) == (0, 0)


def test_turning_the_fifo_on_or_off_empties_it_and_other_lcr_h_bits_do_not() -> None:
    uart = with_fifo()
    uart.feed(b"ab")

    uart.write(LCR_H, 4, LCR_H_FEN | 0x60)
    assert bytes(uart.rx) == b"ab"

    uart.write(LCR_H, 4, 0x60)
    assert bytes(uart.rx) == b""


@pytest.mark.parametrize(
    ("offset", "kept"),
    [(ILPR, 0xFF), (IBRD, 0xFFFF), (FBRD, 0x3F), (LCR_H, 0xFF), (CR, 0xFFFF), (IFLS, 0x3F), (IMSC, 0x7FF), (DMACR, 0x7)],
)
def test_a_register_keeps_its_implemented_bits(offset: int, kept: int) -> None:
    uart = Pl011()

    uart.write(offset, 4, 0xFFFF_FFFF)

    assert uart.read(offset, 4) == kept
    assert uart.read(offset, 2) == kept & 0xFFFF
    assert uart.read(offset, 1) == kept & 0xFF
    assert uart.read(offset + 1, 1) == kept >> 8


@pytest.mark.parametrize("offset", [FR, RIS, MIS, RSR_ECR, 0x008, 0x04C, 0xFE0, 0xFFC])
def test_writing_read_only_and_unknown_registers_changes_nothing(offset: int) -> None:
    uart = Pl011()

    uart.write(offset, 4, 0xFFFF_FFFF)

    assert uart == Pl011()


@pytest.mark.parametrize("offset", [RSR_ECR, 0x008, 0x01C, 0x04C, 0x800, 0xFDC, 0x1000])
def test_unknown_registers_and_the_error_status_read_zero(offset: int) -> None:
    assert Pl011().read(offset, 4) == 0


def test_an_upper_byte_of_dr_consumes_nothing() -> None:
    uart = with_fifo()
    uart.feed(b"a")

    assert uart.read(DR + 1, 1) == 0
    assert uart.read(DR, 1) == ord("a")


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=20),
            st.tuples(st.integers(0, 0xFFF), st.sampled_from([1, 2, 4]), st.none() | st.integers(0, 2**32 - 1)),
        ),
        max_size=50,
    )
)
def test_a_copy_is_another_one_like_it(history: list[bytes | tuple[int, int, int | None]]) -> None:
    uart = Pl011()
    for event in history:
        if isinstance(event, bytes):
            assert 0 <= uart.feed(event) <= len(event)
            continue
        offset, size_bytes, value = event
        if value is None:
            assert 0 <= uart.read(offset, size_bytes) < 1 << 8 * size_bytes
        else:
            uart.write(offset, size_bytes, value)
    restored = uart.copy()

    assert [restored.read(offset, 4) for offset in range(0, 0x1000, 4)] == [uart.read(offset, 4) for offset in range(0, 0x1000, 4)]
    assert (restored.drain(), restored.irq) == (uart.drain(), uart.irq)
