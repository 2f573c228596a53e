"""A user's TOML file, read as hostile input: bounded, and every key and value that is not known is refused by name."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from emu.loader import read_file
from emu.memory import MiB
from firmware.errors import InputError, UserError, nearest

_LIMIT_BYTES: Final = 1 * MiB

Value = TypeVar("Value")


def read_table(path: Path) -> dict[str, Any]:
    """Return a TOML file's top table; raise InputError for a file that is none."""
    content = read_file(path, _LIMIT_BYTES).content
    try:
        return tomllib.loads(content.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not TOML: {str(error).splitlines()[0]}") from None


def check_keys(path: Path, table: Mapping[str, Any], known: Mapping[str, object]) -> None:
    """Refuse a key that means nothing, with the nearest that does."""
    for key in table:
        if key not in known:
            near = nearest(key, known)
            raise InputError(f"{path}: unknown key {key!r}; " + (f"did you mean {near}?" if near else f"known: {', '.join(known)}"))


def convert(path: Path, key: str, convert_one: Callable[[Any], Value], value: Any) -> Value:
    """Convert a value; whatever that refuses is said with the file's name and the key's."""
    try:
        return convert_one(value)
    except UserError as error:
        raise InputError(f"{path}: {key}: {error}") from None


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise UserError(f"{value!r} is not a string")
    return value


def choice(known: Mapping[str, Value]) -> Callable[[Any], Value]:
    """Return what converts one of some words."""

    def convert_one(value: Any) -> Value:
        if not isinstance(value, str) or value not in known:
            raise UserError(f"{value!r} is not one of {', '.join(known)}")
        return known[value]

    return convert_one


def listed(convert_one: Callable[[Any], Value]) -> Callable[[Any], tuple[Value, ...]]:
    """Return what converts a list."""

    def convert_all(value: Any) -> tuple[Value, ...]:
        if not isinstance(value, list):
            raise UserError(f"{value!r} is not a list")
        return tuple(convert_one(each) for each in value)

    return convert_all
