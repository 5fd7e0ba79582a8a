"""What the index stage left: kinds of index, the map of the items, the vectors themselves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.data.sequences import Int64
from recsys.evaluation.reports import read_json
from recsys.schema import SplitName
from serving.dashboard.sources import Library, choices

Float32 = npt.NDArray[np.float32]
TRADEOFF: Final = "tradeoff.json"
MAP: Final = "map.parquet"
VECTORS: Final = "vectors.npy"
QUERIES: Final = "queries.npy"


def indexed(library: Library, dataset: str, split: SplitName) -> dict[str, Path]:
    """Return the index directory of every model of a data set that has one, newest report first."""
    found: dict[str, Path] = {}
    for run in choices(library, dataset, split):
        directory = run.report.workspace / "index" / run.directory.name if run.directory else None
        if directory is not None and (directory / "manifest.json").is_file():
            found.setdefault(run.model, directory)
    return found


def kinds(directory: Path) -> list[dict[str, Any]]:
    """Return the measured kinds of index, none where they were not measured."""
    rows = read_json(directory / TRADEOFF)
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def read_map(directory: Path) -> pl.DataFrame | None:
    """Return where the index stage put items and histories, None where it did not."""
    path = directory / MAP
    if not path.is_file():
        return None
    try:
        return pl.read_parquet(path)
    except pl.exceptions.PolarsError:
        return None


@dataclass(frozen=True)
class Vectors:
    """The vectors of a model.

    Attributes:
        items: float32 [n_items + 1, D].
        norms: float32 [n_items + 1], never zero.
        queries: float32 [Q, D], the histories on the map.
    """

    items: Float32
    norms: Float32
    queries: Float32

    def like_item(self, item: int, n: int) -> tuple[Int64, Float32]:
        """Return the `n` items most like one by cosine, without it, and how alike they are."""
        likeness = (self.items @ self.items[item]) / (self.norms * self.norms[item])
        likeness[[0, item]] = -np.inf
        return _best(likeness, n)

    def after_history(self, row: int, n: int) -> tuple[Int64, Float32]:
        """Return the `n` items that a history scores highest, and the scores; nothing is excluded."""
        scores = self.items @ self.queries[row]
        scores[0] = -np.inf
        return _best(scores, n)


def _best(values: Float32, n: int) -> tuple[Int64, Float32]:
    order = np.argsort(-values, kind="stable")[:n]
    order = order[np.isfinite(values[order])]
    return order.astype(np.int64), values[order]


def open_vectors(directory: Path) -> Vectors | None:
    """Return a model's vectors, None where the index is of older code."""
    paths = [directory / name for name in (VECTORS, QUERIES)]
    if not all(path.is_file() for path in paths):
        return None
    return _vectors(directory, paths[0].stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _vectors(directory: Path, stamp: int) -> Vectors:
    items = np.load(directory / VECTORS)
    norms = np.maximum(np.linalg.norm(items, axis=1), 1e-12).astype(np.float32)
    return Vectors(items, norms, np.load(directory / QUERIES))
