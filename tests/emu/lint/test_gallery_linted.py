"""The linter and the gallery: each rule fires on its guest and not on the mended twin, and ordinary guests break none."""

from __future__ import annotations

from typing import Final

import pytest

from emu.lint.rules import RULES, Rule
from guests import catalogue, elf_path
from guests.gallery import GalleryGuest, gallery, located
from tests.emu.lint.linting import ids, lint_by, lint_guest

_RULES: Final = {rule.id: rule for rule in RULES}
_BROKEN_GUESTS: Final = [guest for guest in gallery().values() if guest.name != "G09"]
_MENDED: Final = [guest for guest in gallery().values() if guest.has_twin]
# What shows these is firmware that no standard allows, or a Trusted OS.
_WITH_BROKEN_FIRMWARE_ALONE: Final = {"major-pinned", "version-zero", "features-ne-minus-one", "migrate-type-ignored", "on-pending"}
# Guests whose lesson is the mistake.
_LESSONS: Final = {
    "hardcoded-0.2": {"version-exact-compare", "ids-not-from-node"},
    "version-unsigned": {"ids-not-from-node"},
    "wrong-conduit": {"conduit-hardcoded"},
    "smc32-cpu-on": {"cpu-on-32-with-64bit-entry"},
}


def _rule_of(guest: GalleryGuest) -> Rule:
    return _RULES[guest.rule.partition(" ")[0]]


@pytest.mark.parametrize("guest", _BROKEN_GUESTS, ids=lambda guest: guest.name)
def test_a_rule_fires_on_its_guest_and_no_other_does(guest: GalleryGuest) -> None:
    found = ids(lint_guest(guest.elf, guest.machine))

    rule = _rule_of(guest)
    assert found == (set() if rule.id in _WITH_BROKEN_FIRMWARE_ALONE else {rule.id})
    assert ids(lint_by(rule, guest.elf, guest.machine)) == {rule.id}


@pytest.mark.parametrize("guest", _MENDED, ids=lambda guest: guest.name)
def test_no_rule_fires_on_a_mended_twin(guest: GalleryGuest) -> None:
    assert guest.twin is not None

    assert lint_guest(guest.twin, guest.machine) == []
    assert lint_by(_rule_of(guest), guest.twin, guest.machine) == []


@pytest.mark.parametrize("guest", _MENDED, ids=lambda guest: guest.name)
def test_a_rule_fires_on_the_firmware_that_its_row_names_and_not_on_the_twin(guest: GalleryGuest) -> None:
    assert guest.twin is not None
    for exposed in guest.exposed:
        firmware = f"{guest.machine} {located(exposed.firmware)}"
        firmware = firmware if "-host" in firmware else f"{firmware} -host spec"

        assert ids(lint_by(_rule_of(guest), guest.elf, firmware)) == {_rule_of(guest).id}, exposed.firmware
        assert lint_by(_rule_of(guest), guest.twin, firmware) == [], exposed.firmware


def test_what_is_no_mistake_breaks_no_rule() -> None:
    guest = gallery()["G09"]

    assert lint_guest(guest.elf, guest.machine) == []


@pytest.mark.parametrize("name", catalogue())
def test_an_ordinary_guest_breaks_the_rules_of_its_lesson_alone(name: str) -> None:
    guest = catalogue()[name]

    # They wait 100 ms, as many instructions, for what does not come.
    found = lint_guest(elf_path(name), f"-smp {guest.smp_option}", limit="200000000")

    assert ids(found) == _LESSONS.get(name, set())


def test_the_gallery_s_rules_are_the_linter_s() -> None:
    assert {_rule_of(guest).id for guest in _BROKEN_GUESTS} <= set(_RULES)
