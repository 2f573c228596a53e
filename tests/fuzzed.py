"""A whole campaign of the fuzzer's in this process, for tests and benchmarks."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, Final

from emu.fuzz.campaign import Campaign
from emu.fuzz.guest import Guest, digest_of
from emu.fuzz.job import Found
from emu.fuzz.mutate import Choice
from emu.fuzz.workers import Source, Workers
from emu.fuzz.worlds import Worlds
from emu.hosts import versions_of
from firmware.hosts import HOSTS

MOST_INSTRUCTIONS: Final = 20_000_000
MOST_CALLS: Final = 20_000
ANY_HOST: Final = Choice(tuple((name, versions_of(host)) for name, host in HOSTS.items()))


class Here(Executor):
    """An executor that does what it is given at once."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args, **options))
        except Exception as error:
            future.set_exception(error)
        return future


def guest_of(image: Path, machine: str, *, until: str | None = None) -> Guest:
    """Return an image on a machine as the fuzzer takes it."""
    return Guest(tuple(shlex.split(machine)), None, (("kernel", digest_of(image.read_bytes())),), until, MOST_INSTRUCTIONS, MOST_CALLS)


def campaign_of(image: Path, machine: str, runs: int, *, seed: int = 0, batch: int = 256) -> Campaign:
    """Fuzz an image on all hosts, so many cases; return the campaign at its end."""
    content = image.read_bytes()
    workers = Workers(Source(Here, Executor.shutdown, 1), {digest_of(content): content})
    campaign = Campaign(guest_of(image, machine), ANY_HOST, workers, seed=seed, batch=batch, runs=runs)
    for _ in campaign.run():
        pass
    return campaign


def spares(found: Found, worlds: Worlds) -> bool:
    """Say whether another guest, on the firmware of a finding, has nothing of the kind wrong with it."""
    execution = worlds.run(found.case)
    return execution is not None and not any(suspect.oracle == found.suspect.oracle for suspect in worlds.suspects(found.case, execution))
