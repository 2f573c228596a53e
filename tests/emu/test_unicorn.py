"""Unicorn's C interface, held against its own Python binding."""

from __future__ import annotations

import pytest
import unicorn as binding
from unicorn import arm64_const, unicorn_const

from emu import unicorn

NUMBERS = {name: value for name, value in vars(unicorn).items() if name.startswith("UC_")}


@pytest.mark.parametrize("name", NUMBERS)
def test_the_binding_has_the_same_number(name: str) -> None:
    assert NUMBERS[name] in (getattr(unicorn_const, name, None), getattr(arm64_const, name, None))


def test_the_binding_has_the_same_library() -> None:
    assert unicorn.library._name == binding.unicorn_py3.unicorn.uclib._name


def test_where_the_library_is_not_in_the_package_the_binding_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unicorn, "find_spec", lambda _name: None)

    assert unicorn._library() == unicorn.library._name
