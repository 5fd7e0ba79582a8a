"""The log of what clients tell the endpoint: events, new items, removed items, deleted users.

One SQLite file. What is in it is on the disk before a client is answered, counts once however often it is
sent, survives restarts and model changes, and is seen at once by every process that has the file open.
Events are numbered in the order in which they were written; readers go by that number.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from features.user_rows import LiveEvent
from recsys.growth import NewItem

FILE: Final = "ledger.sqlite"
PUSHED: Final = "pushed"
PATIENCE: Final = 10.0
"""Seconds that a writer waits for another process to finish."""

TABLES: Final = """
CREATE TABLE IF NOT EXISTS events (
  number INTEGER PRIMARY KEY AUTOINCREMENT, user TEXT NOT NULL, item TEXT NOT NULL,
  time INTEGER NOT NULL, key TEXT NOT NULL, request TEXT, UNIQUE (user, key));
CREATE INDEX IF NOT EXISTS events_of ON events (user, number);
CREATE TABLE IF NOT EXISTS items (
  number INTEGER PRIMARY KEY AUTOINCREMENT, item TEXT NOT NULL UNIQUE, content TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS removed (item TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS deleted (user TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""


@dataclass(frozen=True)
class Happening:
    """One event as a client sends it.

    Attributes:
        user: external user id.
        item: external item id.
        time: seconds since 1970.
        event_id: the client's own name of the event, by which repeats are known; without one, repeats
            are known by user, item and time.
        request: id of the answer in which the item was shown, if any.
    """

    user: str
    item: str
    time: int
    event_id: str | None = None
    request: str | None = None

    @property
    def key(self) -> str:
        """What is equal for the same event of one user."""
        return f"t:{self.time}:{self.item}" if self.event_id is None else f"e:{self.event_id}"


@dataclass(frozen=True)
class Living:
    """What clients changed in the catalogue.

    Attributes:
        version: grows with every change.
        added: new items, in the order in which they came.
        removed: ids that are never recommended.
    """

    version: int = 0
    added: tuple[NewItem, ...] = ()
    removed: frozenset[str] = field(default_factory=frozenset)


class Ledger:
    """The open log. Safe to use from several threads: each has a connection of its own."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._file = directory / FILE
        self._own = threading.local()
        self._open: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        with self._writing() as connection:
            for statement in TABLES.split(";\n"):
                connection.execute(statement)

    def append(self, happenings: Sequence[Happening]) -> int:
        """Write events, all or none; return how many were new."""
        rows = [(h.user, h.item, h.time, h.key, h.request) for h in happenings]
        with self._writing() as connection:
            before = connection.total_changes
            connection.executemany(
                "INSERT OR IGNORE INTO events (user, item, time, key, request) VALUES (?, ?, ?, ?, ?)",
                rows,
            )
            return connection.total_changes - before

    def events_of(self, user: str) -> list[LiveEvent]:
        """Return all events of a user, in the order of their numbers."""
        found = self._reading().execute(
            "SELECT item, time, number FROM events WHERE user = ? ORDER BY number", (user,)
        )
        return [LiveEvent(*row) for row in found]

    def not_pushed(self, most: int) -> tuple[int, list[str]]:
        """Return the newest number among the next `most` events not pushed yet, and their users."""
        found = self._reading().execute(
            "SELECT number, user FROM events WHERE number > ? ORDER BY number LIMIT ?",
            (self._counter(PUSHED), most),
        )
        rows = found.fetchall()
        return (rows[-1][0] if rows else 0), list(dict.fromkeys(user for _, user in rows))

    def pushed(self, number: int) -> None:
        """Remember that the feature store has all events up to this number."""
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO counters VALUES (?, ?) ON CONFLICT (name) DO UPDATE "
                "SET value = max(value, excluded.value)",
                (PUSHED, number),
            )

    def waiting(self) -> int:
        """Return how many events the feature store does not have yet."""
        found = self._reading().execute(
            "SELECT count(*) FROM events WHERE number > ?", (self._counter(PUSHED),)
        )
        return int(found.fetchone()[0])

    def export(self, block: int = 50_000) -> Iterator[list[tuple[str, str, int, str | None]]]:
        """Yield `(user, item, time, request)` of all events in blocks, in order of their numbers."""
        last = 0
        while True:
            found = self._reading().execute(
                "SELECT number, user, item, time, request FROM events WHERE number > ? "
                "ORDER BY number LIMIT ?",
                (last, block),
            )
            rows = found.fetchall()
            if not rows:
                return
            last = rows[-1][0]
            yield [row[1:] for row in rows]

    def delete_user(self, user: str) -> None:
        """Delete all events of a user, and remember that nothing older counts any more."""
        with self._writing() as connection:
            connection.execute("DELETE FROM events WHERE user = ?", (user,))
            connection.execute("INSERT OR IGNORE INTO deleted VALUES (?)", (user,))

    def is_deleted(self, user: str) -> bool:
        """Tell whether a user was deleted: what the bundle knows of it is not used."""
        found = self._reading().execute("SELECT 1 FROM deleted WHERE user = ?", (user,))
        return found.fetchone() is not None

    def add_item(self, item: NewItem) -> None:
        """Write a new item, or what is new about it; it is no longer removed."""
        content = json.dumps(asdict(item))
        with self._writing() as connection:
            connection.execute("DELETE FROM removed WHERE item = ?", (item.item_id,))
            connection.execute(
                "INSERT INTO items (item, content) VALUES (?, ?) ON CONFLICT (item) DO UPDATE "
                "SET content = excluded.content",
                (item.item_id, content),
            )
            _count(connection, "living")

    def remove_item(self, item_id: str) -> None:
        """Remember that an item is never to be recommended."""
        with self._writing() as connection:
            connection.execute("INSERT OR IGNORE INTO removed VALUES (?)", (item_id,))
            _count(connection, "living")

    def living(self) -> Living:
        """Return what clients changed in the catalogue so far."""
        connection = self._reading()
        version = self.living_version()  # first: what is written meanwhile is read again
        rows = connection.execute("SELECT content FROM items ORDER BY number").fetchall()
        added = tuple(NewItem(**_plain(json.loads(content))) for (content,) in rows)
        removed = frozenset(row[0] for row in connection.execute("SELECT item FROM removed"))
        return Living(version, added, removed)

    def living_version(self) -> int:
        """Return the number of changes of the catalogue."""
        return self._counter("living")

    def close(self) -> None:
        """Close all connections, those of other threads included."""
        with self._lock:
            for connection in self._open:
                connection.close()
            self._open.clear()
        self._own = threading.local()

    def _counter(self, name: str) -> int:
        found = self._reading().execute("SELECT value FROM counters WHERE name = ?", (name,))
        row = found.fetchone()
        return 0 if row is None else int(row[0])

    def _reading(self) -> sqlite3.Connection:
        """Return this thread's connection."""
        connection: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if connection is None:
            connection = sqlite3.connect(
                self._file, timeout=PATIENCE, isolation_level=None, check_same_thread=False
            )
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")  # on the disk before the client is told
            self._own.connection = connection
            with self._lock:
                self._open.append(connection)
        return connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Yield this thread's connection inside a transaction, which is whole or does not happen."""
        connection = self._reading()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


def _count(connection: sqlite3.Connection, name: str) -> None:
    connection.execute(
        "INSERT INTO counters VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1",
        (name,),
    )


def _plain(content: dict[str, Any]) -> dict[str, Any]:
    """Return what JSON made lists of as the tuples they were."""
    return {key: tuple(v) if isinstance(v, list) else v for key, v in content.items()}
