"""The feature store: Feast with DuckDB over Parquet offline and SQLite or Redis online.

Feast's default offline store is not used: it drops rows that share entity and time without a word.
Counts are compared after every read from the offline side all the same.

Reading one row takes a fraction of a millisecond, writing one several, writing hundreds together not
much more. So a server keeps one store open to read from and another to write with, in a thread of its
own: with SQLite they are two connections, and a reader never sees half a row.
"""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing, redirect_stdout
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any, Final, Literal

import polars as pl

from features.definitions import (
    COLUMNS,
    EVENT_TIME,
    FREQUENCY,
    HISTORY,
    ITEMS_FILE,
    PUSH,
    USERS_FILE,
    definitions,
)
from features.user_rows import APPLIED, UserRow
from recsys.errors import ArtifactError, DataError, MissingExtraError
from recsys.schema import ITEM, USER

SETTINGS, OFFLINE, DATABASE = "store.json", "offline", "online.db"
BEGINNING: Final = datetime(1971, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class StoreSettings:
    """Where a feature store is and what it keeps.

    Attributes:
        directory: holds the settings, the registry, the offline files and the SQLite database.
        project: namespace of the rows; several can share one Redis.
        online: which online store.
        redis: `host:port`, and options like `db=1` after commas.
        recent_events: newest events kept of a user.
        timeout: seconds after which Redis counts as unreachable.
    """

    directory: Path
    project: str
    online: Literal["sqlite", "redis"] = "sqlite"
    redis: str = "127.0.0.1:6379"
    recent_events: int = 100
    timeout: float = 0.25

    def save(self) -> None:
        """Write the settings into the directory."""
        self.directory.mkdir(parents=True, exist_ok=True)
        content = {key: value for key, value in asdict(self).items() if key != "directory"}
        text = json.dumps(content, indent=2) + "\n"
        (self.directory / SETTINGS).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> StoreSettings:
        """Read the settings of a directory; `ArtifactError` if it holds no feature store."""
        file = directory / SETTINGS
        if not file.is_file():
            raise ArtifactError(
                f"{directory} holds no feature store ({SETTINGS} is missing); publish with "
                "feast.enabled=true"
            )
        try:
            return cls(directory=directory, **json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ArtifactError(f"{file} is no readable settings file; publish again") from error


def write_offline(
    directory: Path, users: pl.DataFrame, frequency: pl.DataFrame, at: datetime
) -> None:
    """Write the offline files of a feature store's directory, each whole or not at all.

    Args:
        directory: the store's.
        users: as of `features.user_rows.published_rows`.
        frequency: `item_id, events, users`.
        at: when these features were true.
    """
    offline = directory / OFFLINE
    offline.mkdir(parents=True, exist_ok=True)
    time = pl.lit(at).cast(pl.Datetime("us", "UTC")).alias(EVENT_TIME)
    for table, file in ((users, USERS_FILE), (frequency, ITEMS_FILE)):
        aside = offline / f".{file}"
        table.with_columns(time).write_parquet(aside)
        aside.replace(offline / file)


class FeatureStore:
    """One open store. Not to be shared by threads; every thread opens its own.

    Raises:
        MissingExtraError: Feast is not installed.
    """

    def __init__(self, settings: StoreSettings) -> None:
        try:
            import feast
        except ImportError as error:
            raise MissingExtraError("feast", "features") from error
        self.settings = settings
        self._store = feast.FeatureStore(config=_config(settings))
        self._features = [f"{HISTORY}:{column}" for column in COLUMNS[HISTORY]]

    def materialise(self, at: datetime) -> None:
        """Register the definitions and renew the online rows from the offline files.

        `at` is when those files were true; with Redis, rows that were pushed later stay.
        """
        offline = self.settings.directory / OFFLINE
        with redirect_stdout(StringIO()):  # Feast prints its progress
            self._store.apply(definitions(offline.absolute()))
            if self.settings.online == "sqlite":
                _let_readers_read(self.settings.directory / DATABASE)
            self._store.materialize(BEGINNING, at + timedelta(seconds=1))

    def user(self, user_id: str) -> UserRow | None:
        """Return a user's row as it is online, None if there is none."""
        found = self._read(self._features, {USER: user_id})
        return None if found[APPLIED] is None else UserRow.of_values(found)

    def online(self, view: str, key: str) -> dict[str, Any]:
        """Return one view's features of a user or an item as they are online, None for unknown."""
        join = ITEM if view == FREQUENCY else USER
        return self._read([f"{view}:{column}" for column in COLUMNS[view]], {join: key})

    def push(self, rows: Mapping[str, UserRow]) -> None:
        """Write the rows of users, all views of each; the newest write counts."""
        if not rows:
            return
        now = datetime.now(UTC)
        values = [{USER: user, **row.values(), EVENT_TIME: now} for user, row in rows.items()]
        self._store.push(PUSH, _frame(values))

    def delete(self, user_ids: Sequence[str]) -> None:
        """Leave nothing of these users online: their rows become empty."""
        self.push({user: UserRow() for user in user_ids})

    def historical(self, view: str, asked: pl.DataFrame) -> pl.DataFrame:
        """Return the offline features of `asked`, one row for every row asked, in its order.

        Args:
            view: name of a view.
            asked: the view's id column and `event_timestamp`; repeats are allowed.

        Raises:
            DataError: the store gave another number of rows than were asked.
        """
        numbered = asked.with_row_index("asked")
        names = [f"{view}:{column}" for column in COLUMNS[view]]
        frame = _frame(numbered.to_dicts())
        job = self._store.get_historical_features(entity_df=frame, features=names)
        found = pl.from_arrow(job.to_arrow())
        if not isinstance(found, pl.DataFrame) or found.height != asked.height:
            raise DataError(
                f"the offline store gave {found.shape[0]} rows of {view} for {asked.height} asked"
            )
        return found.sort("asked").drop("asked")

    def close(self) -> None:
        """Give the connections back."""
        asyncio.run(self._store.close())

    def _read(self, features: list[str], key: dict[str, str]) -> dict[str, Any]:
        answer = self._store.get_online_features(features=features, entity_rows=[key]).to_dict()
        return {name: values[0] for name, values in answer.items()}


def _config(settings: StoreSettings) -> Any:
    from feast import RepoConfig

    online: dict[str, Any] = {"type": "sqlite", "path": str(settings.directory / DATABASE)}
    if settings.online == "redis":
        limits = f"socket_timeout={settings.timeout},socket_connect_timeout={settings.timeout}"
        online = {"type": "redis", "connection_string": f"{settings.redis},{limits}"}
    return RepoConfig(
        project=re.sub(r"\W", "_", settings.project),
        provider="local",
        registry={"path": str(settings.directory / "registry.db"), "cache_ttl_seconds": 0},
        online_store=online,
        offline_store={"type": "duckdb"},
        entity_key_serialization_version=3,
    )


def _let_readers_read(database: Path) -> None:
    """Switch an SQLite file to a log of its own, with which readers do not wait for a writer."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


def _frame(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Return rows as the pandas frame that Feast takes."""
    return pl.DataFrame(list(rows), infer_schema_length=None).to_pandas()
