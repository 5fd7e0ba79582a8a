"""What every test may use: a tiny event log with a structure to learn, and a quiet environment."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from hypothesis import settings

from pipelines.environment import set_environment
from recsys.data.sequences import SequenceStore, Split, Targets

# Before torch, Ray or MLflow is imported: one thread each (so that sums are the same everywhere and
# parallel test processes do not fight), no usage reports, no tracking server of the user's.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("MLFLOW_TRACKING_URI", None)
set_environment()

# A busy machine must not fail a test: how long an example takes is no property of the code.
settings.register_profile("recsys", deadline=None)
settings.load_profile("recsys")

SEED = 20_240_229
USERS, ITEMS, LENGTH = 40, 24, 12
FIRST_TIME = 1_700_000_000
HOUR = 3600


@pytest.hookimpl
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with a reason that is printed, what this machine cannot run.

    Warnings are errors; but Ray deprecates its own parts as it imports them, and leaves processes
    behind for the collector, which is not ours to mend.
    """
    reasons = {
        "data": None if _data_dir() else "RECSYS_DATA_DIR names no folder with the data sets",
        "ray": None if find_spec("ray") else "ray is not installed (the extra 'cluster')",
        "browser": None if which("chromium") else "the command chromium is not installed",
        "redis": None if which("redis-server") else "the command redis-server is not installed",
    }
    for item in items:
        for marker, reason in reasons.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))
        if item.get_closest_marker("ray"):
            for category in ("DeprecationWarning", "FutureWarning", "ResourceWarning"):
                item.add_marker(pytest.mark.filterwarnings(f"ignore::{category}"))


def _data_dir() -> Path | None:
    named = os.environ.get("RECSYS_DATA_DIR")
    return Path(named) if named and Path(named).is_dir() else None


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with the public data sets; only for tests marked `data`."""
    folder = _data_dir()
    assert folder is not None, "mark the test with pytest.mark.data"
    return folder


def ring_walks() -> list[list[int]]:
    """Return each user's items: steps along a ring of all items, one in seven a random jump.

    So the next item is learnable from the last one, and popularity says next to nothing.
    """
    rng = np.random.default_rng(SEED)
    walks = []
    for _ in range(USERS):
        walk = [int(rng.integers(ITEMS))]
        for _ in range(int(rng.integers(LENGTH // 2, LENGTH * 2)) - 1):
            jump = rng.random() < 1 / 7
            walk.append(int(rng.integers(ITEMS)) if jump else (walk[-1] + 1) % ITEMS)
        walks.append(walk)
    return walks


@pytest.fixture(scope="session")
def tiny_events() -> pl.DataFrame:
    """About 460 events with columns user_id, item_id, timestamp (seconds), in order of time.

    Users begin at different times, so that a global-time split has users without a past.
    """
    rows = [
        (f"u{user:02d}", f"i{item:02d}", FIRST_TIME + (5 * user + step) * HOUR + user)
        for user, walk in enumerate(ring_walks())
        for step, item in enumerate(walk)
    ]
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").sort(
        "timestamp", maintain_order=True
    )


@pytest.fixture(scope="session")
def tiny_items() -> pl.DataFrame:
    """A record of every item, with columns item_id, title, category; one item has no events."""
    ids = [f"i{item:02d}" for item in range(ITEMS + 1)]
    return pl.DataFrame(
        {
            "item_id": ids,
            "title": [f"Title of {name}" for name in ids],
            "category": ["even" if item % 2 == 0 else "odd" for item in range(ITEMS + 1)],
        }
    )


@dataclass(frozen=True)
class TinyFiles:
    """Where the tiny log lies."""

    events: Path
    items: Path


@pytest.fixture(scope="session")
def tiny_files(
    tiny_events: pl.DataFrame, tiny_items: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> TinyFiles:
    """The tiny log as CSV files, written once."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_events.write_csv(folder / "events.csv")
    tiny_items.write_csv(folder / "items.csv")
    return TinyFiles(folder / "events.csv", folder / "items.csv")


@pytest.fixture(scope="session")
def tiny_store() -> SequenceStore:
    """The tiny log as packed sequences: item index = number in the id + 1, n_items = 25."""
    walks = ring_walks()
    times = [
        FIRST_TIME + (5 * u + s) * HOUR + u for u, w in enumerate(walks) for s in range(len(w))
    ]
    return SequenceStore(
        items=np.array([item + 1 for walk in walks for item in walk], dtype=np.int32),
        offsets=np.concatenate([[0], np.cumsum([len(walk) for walk in walks])]).astype(np.int64),
        n_items=ITEMS + 1,
        timestamps=np.array(times, dtype=np.int64),
    )


@pytest.fixture(scope="session")
def tiny_split(tiny_store: SequenceStore) -> Split:
    """Leave-one-out: each user's last event tests, the one before validates."""
    users = np.arange(tiny_store.n_users, dtype=np.int32)
    end = tiny_store.offsets[1:]
    return Split(
        train_end=end - 2,
        validation=Targets(users, end - 2, end - 1),
        test=Targets(users, end - 1, end),
        refit_end=end - 1,
    )


WriteConfig = Callable[..., Path]


@pytest.fixture
def write_config(tiny_files: TinyFiles, tmp_path: Path) -> WriteConfig:
    """A function that writes the YAML of an experiment on the tiny log and returns its path.

    Keyword arguments replace whole sections. Results go below the test's own directory.
    """

    def write(**sections: Any) -> Path:
        raw: dict[str, Any] = {
            "name": "tiny",
            "seed": 1,
            "output": str(tmp_path / "out"),
            "data": {"events": [str(tiny_files.events)], "items": [str(tiny_files.items)]},
            "split": {"kind": "leave_one_out"},
            "models": {
                "pop": {"kind": "pop"},
                "markov": {"kind": "markov"},
                "sasrec": {
                    "kind": "sasrec",
                    "width": 16,
                    "heads": 1,
                    "blocks": 1,
                    "max_length": 10,
                    "training": {"epochs": 2, "batch_size": 16, "warmup_steps": 0},
                },
            },
            "evaluation": {"bootstrap": 100, "permutations": 200, "baseline": "pop"},
            "ray": {"workers": 1, "partitions": 1, "object_store_mb": 80},
            **sections,
        }
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
        return path

    return write
