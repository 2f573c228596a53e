"""Names and words of a guest's, or of a file's, as a terminal may see them."""

from __future__ import annotations


def printable(name: bytes) -> str:
    """Spell a name for a terminal: whatever is not plain text is escaped."""
    text = name.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else ascii(text)[1:-1]


def printable_text(text: str) -> str:
    """Return a text that does nothing to a terminal: a guest's symbols, and a file's words, are anybody's."""
    return text if text.isprintable() else "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
