"""The fuzzer over a Dask cluster: the same as over this computer's processes, also where a worker is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any, Final

import pytest

from emu.fuzz.campaign import Campaign, Progress
from emu.fuzz.workers import Workers, cluster, processes
from firmware.errors import UserError
from guests.gallery import gallery
from tests.fuzzed import ANY_HOST, campaign_of, guest_of

distributed = pytest.importorskip("distributed")

# What a cluster leaves to be collected when it is closed is not ours.
pytestmark = pytest.mark.filterwarnings("ignore")

_GUEST: Final = gallery()["G31"]
_RUNS: Final = 1_500


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Any]:
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1") as two:
        yield two


def told(progress: Progress) -> tuple[object, ...]:
    return progress.reference, progress.executions, progress.blocks, progress.corpus, progress.found


def fuzzed(workers: Workers, kill: int | None = None) -> Progress:
    campaign = Campaign(guest_of(_GUEST.elf, _GUEST.machine), ANY_HOST, workers, runs=_RUNS, batch=64)
    for _ in campaign.run():
        if kill is not None:
            os.kill(kill, signal.SIGKILL)
            kill = None
    workers.close()
    return campaign.progress


def files() -> dict[str, bytes]:
    content = _GUEST.elf.read_bytes()
    return {digest: content for _, digest in guest_of(_GUEST.elf, "").files}


@pytest.fixture(scope="module")
def here() -> Progress:
    return campaign_of(_GUEST.elf, _GUEST.machine, _RUNS, batch=64).progress


def test_two_workers_of_a_cluster_find_what_one_process_finds(two_workers: Any, here: Progress) -> None:
    assert told(fuzzed(Workers(cluster(two_workers.scheduler_address), files()))) == told(here)


def test_a_worker_that_is_killed_in_the_middle_changes_nothing(two_workers: Any, here: Progress) -> None:
    with distributed.Client(two_workers.scheduler_address) as client:
        pid = min(client.run(os.getpid).values())

    assert told(fuzzed(Workers(cluster(two_workers.scheduler_address), files()), kill=pid)) == told(here)


def test_two_processes_find_what_one_does(here: Progress) -> None:
    assert told(fuzzed(Workers(processes(2), files()))) == told(here)


def test_a_scheduler_that_does_not_answer_is_refused_by_its_address() -> None:
    with pytest.raises(UserError, match=r"--scheduler tcp://127\.0\.0\.1:1: "):
        cluster("tcp://127.0.0.1:1")


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="--scheduler nowhere: "):
        cluster("nowhere")
