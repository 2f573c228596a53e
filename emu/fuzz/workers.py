"""Jobs over any executor: in order, a few at a time, and done although workers die.

1. Who uses this sees results in the jobs' order, whatever order they came in: how many workers there are changes nothing.
2. A job whose worker died is done again. One that kills a worker while it is alone is done with a fork for each of its runs: then the
   run that the engine aborts at is a finding, and all others are what they are.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from typing import Final, NamedTuple

from emu.fuzz.job import Job, Lacks, Result, work
from firmware.errors import UserError


class Source(NamedTuple):
    """Where workers come from.

    opened  opens an executor over them
    ended   is told that no more is wanted of it
    width   how many jobs it is given at once
    died    what its futures raise when a worker has died
    """

    opened: Callable[[], Executor]
    ended: Callable[[Executor], object]
    width: int
    died: tuple[type[BaseException], ...] = (BrokenExecutor,)


class Workers:
    """The workers of a source; they are opened again where one of them breaks all.

    files  the guest's files, by digest
    """

    def __init__(self, source: Source, files: Mapping[str, bytes]) -> None:
        self._source = source
        self._files = files
        self._executor = source.opened()

    def results(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Result]]:
        """Do jobs and yield each with its result; jobs are taken from the iterable when there is room for them."""
        coming = iter(jobs)
        waiting: deque[tuple[Job, Future[Result | Lacks]]] = deque()
        while True:
            while len(waiting) < self._source.width and (job := next(coming, None)) is not None:
                waiting.append((job, self._submitted(job)))
            if not waiting:
                return
            job, future = waiting[0]
            try:
                result = self._complete(job, future.result())
            except self._source.died:
                unfinished = [job for job, _ in waiting]
                waiting.clear()
                yield from self._alone(unfinished)
            else:
                waiting.popleft()
                yield job, result

    def close(self) -> None:
        """Let the workers go; jobs that are not begun are not done."""
        self._source.ended(self._executor)

    def _submitted(self, job: Job) -> Future[Result | Lacks]:
        # An executor that has broken since takes nothing: to whoever asks for the result that is no other death.
        try:
            return self._executor.submit(work, job)
        except self._source.died as error:
            future: Future[Result | Lacks] = Future()
            future.set_exception(error)
            return future

    def _complete(self, job: Job, result: Result | Lacks) -> Result:
        while isinstance(result, Lacks):
            sent = job._replace(files=tuple(self._files[digest] for digest in result.digests))
            result = self._submitted(sent).result()
        return result

    def _alone(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Result]]:
        """Do jobs one by one, since one of them has broken the executor, or somebody has."""
        self._reopen()
        for job in jobs:
            for attempt in (job, job._replace(careful=True)):
                try:
                    result = self._complete(attempt, self._submitted(attempt).result())
                except self._source.died:
                    self._reopen()
                else:
                    yield job, result
                    break
            else:
                raise UserError("the workers die, whatever they are given to do")

    def _reopen(self) -> None:
        self._source.ended(self._executor)
        self._executor = self._source.opened()


def processes(count: int) -> Source:
    """Return so many processes of this computer."""
    return Source(
        lambda: ProcessPoolExecutor(count, initializer=_depend_on_the_campaign),
        _end,
        count,
    )


def _end(executor: Executor) -> None:
    # Whoever ends a campaign does not wait for jobs of which nobody takes the results.
    assert isinstance(executor, ProcessPoolExecutor)
    for process in list((executor._processes or {}).values()):
        process.kill()
    executor.shutdown(wait=True, cancel_futures=True)


def _depend_on_the_campaign() -> None:
    silence = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(silence, number)  # the engine's own words where it aborts; what a job raises comes back as its result
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the campaign ends, and with it its workers
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # also where it is killed: nobody would ever give them a job again


_PR_SET_PDEATHSIG: Final = 1


_EXTRA: Final = "pip install 'psci-emu[cluster]'"


def cluster(address: str) -> Source:
    """Return the workers of a Dask cluster; raise UserError where nobody answers, or dask.distributed is not installed."""
    try:
        from distributed import Client  # noqa: PLC0415  an extra
        from distributed.scheduler import KilledWorker  # noqa: PLC0415
    except ImportError:
        raise UserError(f"--scheduler needs dask.distributed: {_EXTRA}") from None
    clients: list[Client] = []

    def opened() -> Executor:
        try:
            client = Client(address, timeout=_PATIENCE, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"--scheduler {address}: {str(error).splitlines()[0] if str(error) else 'nobody answers'}") from None
        clients.append(client)
        executor: Executor = client.get_executor(pure=False)
        return executor

    def ended(executor: Executor) -> None:
        executor.shutdown(wait=False)
        clients.pop().close()

    first = opened()
    count = len(clients[0].scheduler_info(n_workers=-1)["workers"])
    ended(first)
    if not count:
        raise UserError(f"--scheduler {address}: it has no workers; start some: dask worker {address}")
    return Source(opened, ended, count, (BrokenExecutor, KilledWorker))


_PATIENCE: Final = "10s"
