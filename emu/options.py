"""The command line as QEMU users type it: names with one dash or two, and a refusal by name for what is not offered.

argparse reads `-device` as `-d evice`; so every word is matched whole here first, and argparse only sees `--name=value`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from functools import partial
from typing import Final, NoReturn

from firmware.errors import UserError, nearest

# Options of QEMU's that state what we do anyway, with the values that do; None: a flag.
STATED: Final[dict[str, tuple[str, ...] | None]] = {
    "accel": ("tcg", "tcg,thread=single"),
    "display": ("none",),
    "monitor": ("none",),
    "net": ("none",),
    "nic": ("none",),
    "nodefaults": None,
    "nographic": None,
    "semihosting": None,
}

_of_any_width: Final = partial(argparse.HelpFormatter, width=80)


class Parser(argparse.ArgumentParser):
    """argparse that raises UserError instead of ending the process."""

    def __init__(self, *, prog: str, description: str | None = None) -> None:
        # Every option that is added asks for a formatter. To ask the terminal for its width takes 2 ms, with shutil.
        super().__init__(prog=prog, description=description, allow_abbrev=False, formatter_class=_of_any_width)

    def format_help(self) -> str:
        """Return the help, as wide as the terminal."""
        self.formatter_class = argparse.HelpFormatter
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def whole_words(arguments: Iterable[str], parser: argparse.ArgumentParser, what: str) -> list[str]:
    """Rewrite a command's options as --name=value; raise UserError for one that does not exist or lacks its value."""
    actions = {name: action for action in parser._actions for name in action.option_strings}
    known = {name.lstrip("-"): (name, 1 if action.nargs is None else action.nargs) for name, action in actions.items()}
    words, rewritten = list(arguments), []
    while words:
        word = words.pop(0)
        if not word.startswith("-") or word == "-":
            rewritten.append(word)
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if name in STATED:
            if STATED[name] is not None and not equals and not words:
                raise UserError(f"-{name} needs a value")
            _check_stated(name, value if equals else words.pop(0) if STATED[name] is not None else None)
            continue
        if name not in known or (len(word) - len(word.lstrip("-")) > 2):
            raise _not_offered(name, known, what)
        option, values = known[name]
        if values == 0:
            if equals:
                raise UserError(f"-{name} takes no value, not {value!r}")
            rewritten.append(option)
            continue
        if isinstance(values, int) and values > 1:
            taken, words = words[:values], words[values:]
            if equals or len(taken) < values or any(each.startswith("-") for each in taken):
                raise UserError(f"-{name} needs {values} values")
            rewritten += [option, *taken]
            continue
        if not equals:
            if not words:
                raise UserError(f"-{name} needs a value")
            value = words.pop(0)
        if value == "--":  # which argparse takes for the end of the options
            raise UserError(f"-{name} cannot be '--'")
        rewritten += [option + ("=" + value if option.startswith("--") else value)]
    return rewritten


def _check_stated(name: str, value: str | None) -> None:
    allowed = STATED[name]
    if allowed is None:
        if value is not None:
            raise UserError(f"-{name} takes no value, not {value!r}")
    elif value not in allowed:
        raise UserError(f"-{name} {value} is not offered; allowed: {', '.join(allowed)}")


def _not_offered(name: str, known: Iterable[str], what: str) -> UserError:
    near = nearest(name, [option for option in known if len(option) > 1])
    return UserError(f"option -{name} is not offered by {what}" + (f"; did you mean -{near}?" if near else ""))
