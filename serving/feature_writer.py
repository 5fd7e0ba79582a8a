"""Live events on their way from the ledger into the feature store, beside the requests.

One thread of one process (a lock file says which) takes the users of events that are not in the store
yet, adds all of their events to their rows and writes the rows together, which costs little more than
one. The ledger then remembers how far it came. A row knows which events are in it, so a writer that
died in between does no harm: nothing is lost, and nothing counts twice.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

from features.user_rows import UserRow
from serving.ledger import Ledger

log = logging.getLogger(__name__)

LOCK: Final = "feature-writer.lock"
MOST: Final = 500
"""Events looked at in one turn."""
SLOWEST: Final = 5.0
"""Longest pause after failures, in seconds; it doubles from the usual one."""


class Target(Protocol):
    """What is written to: `features.store.FeatureStore`."""

    def user(self, user_id: str) -> UserRow | None:
        """Return a user's row, None if there is none."""

    def push(self, rows: Mapping[str, UserRow]) -> None:
        """Write rows."""

    def delete(self, user_ids: list[str]) -> None:
        """Empty the rows of users."""

    def close(self) -> None:
        """Give the connection back."""


class FeatureWriter:
    """The thread that writes.

    Args:
        ledger: where the events are.
        open_store: opens the store; called in the writer's thread.
        directory: of the ledger, where the lock is.
        is_published: tells whether a user has a row as published. If that is not there (the store was
            emptied), it is not made up from live events alone.
        keep: newest events kept of a user.
        pause: seconds between two looks at the ledger.
        failed: told the name of an error that stopped a turn.
    """

    def __init__(
        self,
        ledger: Ledger,
        open_store: Callable[[], Target],
        directory: Path,
        *,
        is_published: Callable[[str], bool],
        keep: int,
        pause: float = 0.05,
        failed: Callable[[str], None] | None = None,
    ) -> None:
        self._ledger, self._open, self._directory = ledger, open_store, directory
        self._is_published, self._keep, self._pause = is_published, keep, pause
        self._failed = failed or (lambda name: None)
        self._store: Target | None = None
        self._emptied: list[str] = []
        self._news = threading.Event()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="feature-writer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Say that there are new events."""
        self._news.set()

    def delete(self, user: str) -> None:
        """Empty a user's row in the next turn."""
        self._emptied.append(user)
        self._news.set()

    def stop(self) -> None:
        """Write what is there, if the store takes it, and end the thread."""
        self._ending = True
        self._news.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        from filelock import FileLock, Timeout

        lock, pause = FileLock(self._directory / LOCK), self._pause
        while not self._ending:
            try:
                with lock.acquire(timeout=1):
                    pause = self._turns(pause)
            except Timeout:  # another process writes; this one stands by
                continue
        if self._store is not None:
            self._store.close()

    def _turns(self, pause: float) -> float:
        """Write until the end is asked for, holding the lock."""
        while True:
            last = self._ending
            try:
                while self.turn():
                    pass
                pause = self._pause
            except Exception as error:  # the store is down or slow: what is not written waits
                name = type(error).__name__
                self._failed(name)
                log.warning("live events could not be pushed", extra={"error": name})
                self._store, pause = None, min(2 * pause, SLOWEST)
            if last:
                return pause
            self._news.wait(1.0 if pause == self._pause else pause)
            self._news.clear()

    def turn(self) -> bool:
        """Write the rows of one portion of events; tell whether there were any."""
        emptied = list(self._emptied)
        number, users = self._ledger.not_pushed(MOST)
        if not users and not emptied:
            return False
        if self._store is None:
            self._store = self._open()
        if emptied:
            self._store.delete(emptied)
            del self._emptied[: len(emptied)]
        rows = {}
        for user in users:
            row = self._store.user(user)
            deleted = self._ledger.is_deleted(user)
            if row is None and self._is_published(user) and not deleted:
                continue
            rows[user] = (row or UserRow()).after(self._ledger.events_of(user), self._keep)
        self._store.push(rows)
        if number:
            self._ledger.pushed(number)
        return True
