"""Seeded entropy for TRNG: an input of the firmware, and part of its state."""

from __future__ import annotations

from typing import Final

from firmware.abi import MASK64

_BLOCK_BITS: Final = 256


class Entropy:
    """Hand out bits of SHA-256(seed, position); the same seed gives the same bits.

    position  blocks handed out so far; with the seed, the whole state
    """

    def __init__(self, seed: int, position: int = 0) -> None:
        self.seed = seed
        self.position = position

    def take(self, bits: int) -> int:
        """Return `bits` (0 to 256) fresh bits as an unsigned number."""
        assert 0 <= bits <= _BLOCK_BITS
        import hashlib  # noqa: PLC0415  OpenSSL's start-up is a cost that only TRNG's callers should pay

        message = (self.seed & MASK64).to_bytes(8, "little") + self.position.to_bytes(8, "little")
        self.position += 1
        return int.from_bytes(hashlib.sha256(message).digest(), "little") >> (_BLOCK_BITS - bits)
