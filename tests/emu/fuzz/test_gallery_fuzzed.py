"""The fuzzer on the gallery, from plain firmware and without hints: it finds every planted mistake, and none where it is mended."""

from __future__ import annotations

from typing import Final

import pytest

from emu.fuzz.guest import Store, digest_of
from emu.fuzz.worlds import Worlds
from guests.gallery import GalleryGuest, gallery
from tests.fuzzed import campaign_of, spares

# About a second of one core: what is plain, what is one fault away, and a few mutations.
_RUNS: Final = 700
_GUESTS: Final = tuple(gallery().values())
_MISTAKEN: Final = tuple(guest for guest in _GUESTS if guest.has_twin)


def test_all_but_two_of_the_gallery_make_a_mistake() -> None:
    assert [guest.name for guest in _GUESTS if not guest.has_twin] == ["G09", "G29"]


@pytest.mark.parametrize("guest", _MISTAKEN, ids=lambda guest: guest.name)
def test_a_planted_mistake_is_found_by_a_case_that_its_mended_twin_gets_through(guest: GalleryGuest) -> None:
    assert guest.twin is not None
    campaign = campaign_of(guest.elf, guest.machine, _RUNS)
    twin, store = guest.twin.read_bytes(), Store()
    store.add(twin)
    mended = campaign.guest._replace(files=(("kernel", digest_of(twin)),))
    worlds = Worlds(mended, campaign.progress.reference, store.paths, careful=False)

    assert [found for found in campaign.progress.found.values() if spares(found, worlds)]


@pytest.mark.parametrize("guest", _MISTAKEN, ids=lambda guest: guest.name)
def test_nothing_is_found_on_a_mended_twin_under_correct_firmware(guest: GalleryGuest) -> None:
    assert guest.twin is not None
    found = campaign_of(guest.twin, guest.machine, _RUNS).progress.found.values()

    assert [(each.suspect, str(each.case)) for each in found if each.is_legal] == []


@pytest.mark.parametrize("guest", [guest for guest in _GUESTS if not guest.has_twin], ids=lambda guest: guest.name)
def test_nothing_is_found_under_correct_firmware_where_there_is_no_mistake(guest: GalleryGuest) -> None:
    found = campaign_of(guest.elf, guest.machine, _RUNS).progress.found.values()

    assert [(each.suspect, str(each.case)) for each in found if each.is_legal] == []
