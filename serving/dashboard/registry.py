"""What MLflow has: registered bundles with their aliases, and the record of a run. Reading only.

MLflow takes seconds to import, so a thread of its own does that and the page that asks first is told
to ask again. A local database is opened in SQLite's read-only mode: nothing is made, nothing migrated.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlparse

from recsys.evaluation.reports import read_json
from recsys.published import REGISTRY

SQLITE: Final = "sqlite:///"
FRESH_SECONDS: Final = 15.0
CANDIDATE: Final = "candidate"
CHAMPION: Final = "champion"
SINCE: Final = "champion_since"
"""Tag of a version: when `recsys promote` made it the champion."""


@dataclass(frozen=True)
class Version:
    """One registered bundle.

    Attributes:
        model: its name in the registry, which is the experiment's.
        version: its number.
        aliases: what it is called at present.
        created: seconds since 1970.
        tags: as registered; `bundle` is its directory.
        run_id: of the training, or None.
        source: where the registry keeps it.
    """

    model: str
    version: str
    aliases: tuple[str, ...]
    created: float
    tags: dict[str, str]
    run_id: str | None
    source: str

    @property
    def bundle(self) -> Path | None:
        """The directory of the bundle, if it lies on this machine."""
        named = [self.tags.get("bundle", "")]
        address = urlparse(self.source)
        if address.scheme in ("", "file"):
            named.append(unquote(address.path))
        for path in map(Path, filter(None, named)):
            if (path / "manifest.json").is_file():
                return path
        return None

    @property
    def info(self) -> dict[str, Any]:
        """The facts that travel in the bundle: experiment, model, run, metrics; empty if it is gone."""
        manifest = None if self.bundle is None else read_json(self.bundle / "manifest.json")
        found = manifest.get("info") if isinstance(manifest, dict) else None
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class Registry:
    """All versions, newest first, or why there are none to show."""

    uri: str
    versions: tuple[Version, ...] = ()
    problem: str | None = None

    def named(self, model: str, alias: str) -> Version | None:
        """Return the version of a model that an alias names."""
        return next((v for v in self.versions if v.model == model and alias in v.aliases), None)


@dataclass(frozen=True)
class Record:
    """What MLflow keeps of one run, or why it cannot be had."""

    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    problem: str | None = None


def tracking_uri(output: Path, uri: str | None = None) -> str:
    """Return where runs are recorded: as given, MLFLOW_TRACKING_URI, or the output's own database."""
    local = f"{SQLITE}{output.absolute() / REGISTRY}"
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or local


def read_registry(uri: str) -> Registry:
    """Return the registered bundles; any failure becomes a problem in words."""
    if (absent := _absent(uri)) is not None:
        return Registry(uri, problem=absent)
    try:
        client = _client(uri)
        versions = [
            _version(client, model, found)
            for model in client.search_registered_models()
            for found in client.search_model_versions(f"name = '{model.name}'")
        ]
    # MLflow passes on whatever its store raises: HTTP, SQL, a missing driver.
    except Exception as error:
        return Registry(uri, problem=_words(uri, error))
    versions.sort(key=lambda v: (-v.created, v.model, v.version))
    return Registry(uri, tuple(versions))


def _version(client: Any, model: Any, found: Any) -> Version:
    aliases = tuple(
        sorted(a for a, number in model.aliases.items() if str(number) == str(found.version))
    )
    return Version(
        model=str(model.name),
        version=str(found.version),
        aliases=aliases,
        created=found.creation_timestamp / 1000,
        tags=dict(found.tags),
        run_id=found.run_id,
        source=str(found.source),
    )


def read_record(uri: str, run_id: str) -> Record:
    """Return the parameters, tags and last metrics of one run."""
    if (absent := _absent(uri)) is not None:
        return Record(problem=absent)
    try:
        run = _client(uri).get_run(run_id)
    except Exception as error:
        return Record(problem=_words(uri, error))
    return Record(dict(run.data.params), dict(run.data.tags), dict(run.data.metrics))


def _absent(uri: str) -> str | None:
    """Return why a local database has nothing, before anything would make it."""
    path = Path(uri.removeprefix(SQLITE))
    if uri.startswith(SQLITE) and (not path.is_file() or not path.stat().st_size):
        return f"No tracking store at {path}: nothing was recorded there yet (`recsys run` does)."
    return None


def _client(uri: str) -> Any:
    import logging

    from mlflow.tracking import MlflowClient

    logging.getLogger("alembic").setLevel(logging.WARNING)
    if uri.startswith(SQLITE):
        # The driver is named because MLflow makes the parent folder of what follows a plain
        # `sqlite:///`: here a folder `file:` where the dashboard was started.
        uri = f"sqlite+pysqlite:///file:{uri.removeprefix(SQLITE)}?mode=ro&uri=true"
    return MlflowClient(uri, uri)


def _words(uri: str, error: Exception) -> str:
    return f"{uri} does not answer ({type(error).__name__}: {' '.join(str(error).split())[:200]})"


class Reader:
    """Reads in a thread of its own and remembers what it read for a quarter of a minute."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[Any, ...], tuple[float, Any]] = {}
        self._asked: set[tuple[Any, ...]] = set()

    def ask(self, read: Callable[..., Any], *arguments: str) -> Any | None:
        """Return what `read(*arguments)` last returned; None while it is read for the first time.

        What is older than a quarter of a minute is shown once more and read again meanwhile. `read`
        must not raise.
        """
        key = (read.__name__, *arguments)
        with self._lock:
            at, value = self._known.get(key, (-FRESH_SECONDS, None))
            if time.monotonic() - at > FRESH_SECONDS and key not in self._asked:
                self._asked.add(key)
                threading.Thread(
                    target=self._read, args=(key, read, arguments), daemon=True
                ).start()
            return value

    def _read(
        self, key: tuple[Any, ...], read: Callable[..., Any], arguments: tuple[str, ...]
    ) -> None:
        value = read(*arguments)
        with self._lock:
            self._known[key] = (time.monotonic(), value)
            self._asked.discard(key)


READER: Final = Reader()
"""The one of this process: sessions share what it knows."""
