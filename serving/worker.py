"""One thread that answers all requests, several at a time.

Thread policy: one model thread with one compute thread each for torch and FAISS, beside the event loop
that speaks HTTP. Many threads with many compute threads each are what makes concurrent CPU serving
collapse; here requests that wait while the model works are answered by its next call together, so the
load that memory traffic causes falls as the queue grows. The queue is bounded: beyond it a request is
refused at once, which a client can act upon, instead of waiting beyond use.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch

log = logging.getLogger(__name__)

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")


class QueueFullError(Exception):
    """Too many requests wait already."""


@dataclass
class _Job(Generic[Asked, Answered]):
    request: Asked
    future: asyncio.Future[Answered]
    loop: asyncio.AbstractEventLoop
    queued: float = field(default_factory=time.perf_counter)


class Worker(Generic[Asked, Answered]):
    """A thread that calls `answer` with up to `batch` waiting requests.

    Args:
        answer: takes requests, returns as many answers in order. If it fails for a batch, each request
            is tried alone, so that one cannot spoil the others.
        batch: most requests in one call.
        waiting: most requests in the queue.
        threads: compute threads of torch (and FAISS) in this process.
        observe: told the size of every batch and how long its requests waited.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Asked]], Sequence[Answered]],
        *,
        batch: int = 16,
        waiting: int = 256,
        threads: int = 1,
        observe: Callable[[int, list[float]], None] | None = None,
    ) -> None:
        self._answer = answer
        self._batch = batch
        self._threads = threads
        self._observe = observe or (lambda size, waits: None)
        self._queue: queue.Queue[_Job[Asked, Answered] | None] = queue.Queue(waiting)
        self._thread = threading.Thread(target=self._run, name="recommender", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Answer what is in the queue, then end the thread."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether requests are being answered."""
        return self._thread.is_alive()

    async def ask(self, request: Asked) -> Answered:
        """Return the answer to one request; `QueueFullError` if too many wait."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answered] = loop.create_future()
        try:
            self._queue.put_nowait(_Job(request, future, loop))
        except queue.Full:
            raise QueueFullError from None
        return await future

    def _run(self) -> None:
        torch.set_num_threads(self._threads)
        if (faiss := sys.modules.get("faiss")) is not None:
            faiss.omp_set_num_threads(self._threads)
        while (job := self._queue.get()) is not None:
            jobs, last = [job], False
            while len(jobs) < self._batch and not self._queue.empty():
                more = self._queue.get_nowait()
                if more is None:
                    last = True
                    break
                jobs.append(more)
            self._answer_all(jobs)
            if last:
                return

    def _answer_all(self, jobs: list[_Job[Asked, Answered]]) -> None:
        jobs = [job for job in jobs if not job.future.cancelled()]
        if not jobs:
            return
        now = time.perf_counter()
        self._observe(len(jobs), [now - job.queued for job in jobs])
        try:
            answers = self._answer([job.request for job in jobs])
        except Exception as error:
            if len(jobs) == 1:
                _deliver(jobs[0], _fail, error)
                return
            about = {"requests": len(jobs), "error": type(error).__name__}
            log.warning("a batch failed; its requests run alone", extra=about)
            for job in jobs:
                self._answer_all([job])
            return
        for job, answer in zip(jobs, answers, strict=True):
            _deliver(job, _succeed, answer)


def _deliver(job: _Job[Asked, Answered], settle: Callable[..., None], value: object) -> None:
    try:
        job.loop.call_soon_threadsafe(settle, job.future, value)
    except RuntimeError:  # the event loop is gone, and with it whoever asked
        log.info("an answer came after the server had stopped")


def _succeed(future: asyncio.Future[Answered], value: Answered) -> None:
    if not future.done():
        future.set_result(value)


def _fail(future: asyncio.Future[Answered], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
