"""Names and words of a guest's, or of a file's, as a terminal may see them."""

from __future__ import annotations


def printable(name: bytes) -> str:
    """Spell a name for a terminal: whatever is not plain text is escaped."""
    text = name.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else ascii(text)[1:-1]
