"""User features from the feature store within a time limit, and what happens when they do not come.

The store is opened once and read from one thread. A read that takes too long, or fails, is counted and
answered by nothing, which lets the caller go by the bundle; after it the store is left alone for a
moment if that happens several times in a row, so that one that is down costs few requests their patience.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

from features.user_rows import UserRow

log = logging.getLogger(__name__)

PAUSE: Final = 1.0
"""Seconds that a store is left alone after it failed so many times in a row:"""
IN_A_ROW: Final = 3
TIMEOUT, ERROR, PAUSED, MISSING = "timeout", "error", "paused", "missing"
Count = Callable[[str], None]


class Source(Protocol):
    """What is read from: `features.store.FeatureStore`."""

    def user(self, user_id: str) -> UserRow | None:
        """Return a user's row, None if there is none."""

    def close(self) -> None:
        """Give the connection back."""


class FeatureReader:
    """The open store, read by one thread.

    Args:
        open_store: opens it; called in the thread that will read, at `start` and after failures.
        timeout: seconds that a request waits.
        count: told why a read gave nothing: `timeout`, `error`, `paused` or `missing`.
    """

    def __init__(
        self, open_store: Callable[[], Source], timeout: float, count: Count | None = None
    ) -> None:
        self._open = open_store
        self._timeout = timeout
        self._count = count or (lambda why: None)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="features")
        self._store: Source | None = None
        self._again = 0.0
        self._failures = 0

    def start(self) -> None:
        """Open the store and read once, so that the first request finds it warm."""
        self._thread.submit(self._read, "").result()

    async def user(self, user: str) -> UserRow | None:
        """Return a user's row; None if there is none, or if it did not come in time."""
        if time.monotonic() < self._again:
            self._count(PAUSED)
            return None
        reading = asyncio.get_running_loop().run_in_executor(self._thread, self._read, user)
        try:
            row = await asyncio.wait_for(reading, self._timeout)
        except TimeoutError:
            self._fail(TIMEOUT, "TimeoutError")
            return None
        except (
            Exception
        ) as error:  # whatever its client libraries raise: the caller has a fall-back
            self._fail(ERROR, type(error).__name__)
            return None
        self._failures = 0
        if row is None:
            self._count(MISSING)
        return row

    def stop(self) -> None:
        """Give the connection back, if the store lets us."""
        if self._store is not None:
            self._thread.submit(self._store.close)
        self._thread.shutdown(wait=True, cancel_futures=False)

    def _read(self, user: str) -> UserRow | None:
        if self._store is None:
            self._store = self._open()
        return self._store.user(user)

    def _fail(self, why: str, error: str) -> None:
        self._failures += 1
        if self._failures >= IN_A_ROW:
            self._again = time.monotonic() + PAUSE
        self._count(why)
        log.warning("the feature store did not answer", extra={"why": why, "error": error})
