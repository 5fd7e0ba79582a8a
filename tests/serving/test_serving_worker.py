from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from serving.worker import QueueFullError, Worker


def test_waiting_requests_share_a_call() -> None:
    sizes: list[int] = []
    begin = threading.Event()

    def double(requests: Sequence[int]) -> list[int]:
        sizes.append(len(requests))
        begin.wait(5)
        return [2 * r for r in requests]

    async def run() -> list[int]:
        worker: Worker[int, int] = Worker(double, batch=4)
        worker.start()
        first = asyncio.create_task(worker.ask(0))
        while not sizes:
            await asyncio.sleep(0.001)
        rest = [asyncio.create_task(worker.ask(i)) for i in range(1, 7)]
        await asyncio.sleep(0)
        begin.set()
        answers = await asyncio.gather(first, *rest)
        worker.stop()
        assert not worker.alive
        return answers

    assert asyncio.run(run()) == [0, 2, 4, 6, 8, 10, 12]
    assert sizes == [1, 4, 2]


def test_one_bad_request_does_not_spoil_the_others(caplog: pytest.LogCaptureFixture) -> None:
    held = threading.Event()

    def invert(requests: Sequence[int]) -> list[float]:
        held.wait(5)
        return [1 / r for r in requests]

    async def run() -> list[float | BaseException]:
        worker: Worker[int, float] = Worker(invert, batch=8)
        tasks = [asyncio.create_task(worker.ask(r)) for r in (1, 0, 2, 4)]
        await asyncio.sleep(0)
        held.set()
        worker.start()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        worker.stop()
        return answers

    answers = asyncio.run(run())
    assert isinstance(answers[1], ZeroDivisionError)
    assert [a for a in answers if isinstance(a, float)] == [1.0, 0.5, 0.25]
    assert "its requests run alone" in caplog.text


def test_a_full_queue_refuses() -> None:
    async def run() -> None:
        worker: Worker[int, int] = Worker(list, waiting=2)
        tasks = [asyncio.create_task(worker.ask(r)) for r in (1, 2)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError):
            await worker.ask(3)
        worker.start()
        assert await asyncio.gather(*tasks) == [1, 2]
        worker.stop()

    asyncio.run(run())


def test_stop_answers_what_waits() -> None:
    async def run() -> list[int]:
        worker: Worker[int, int] = Worker(list, batch=2)
        tasks = [asyncio.create_task(worker.ask(r)) for r in range(5)]
        await asyncio.sleep(0)
        worker.start()
        worker.stop()
        return await asyncio.gather(*tasks)

    assert asyncio.run(run()) == [0, 1, 2, 3, 4]


def test_requests_that_were_given_up_are_not_computed() -> None:
    seen: list[int] = []

    def note(requests: Sequence[int]) -> list[int]:
        seen.extend(requests)
        return list(requests)

    async def run() -> None:
        worker: Worker[int, int] = Worker(note)
        tasks = [asyncio.create_task(worker.ask(r)) for r in (1, 2)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.sleep(0)
        worker.start()
        assert await tasks[1] == 2
        worker.stop()

    asyncio.run(run())
    assert seen == [2]
