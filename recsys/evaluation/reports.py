"""The reports below an output directory, found and read without stopping at a broken one.

A report that is half written, damaged or from other code is part of what a reader has to know, so it
is returned with its problem in words; nothing here raises for the content of a file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import polars as pl

from recsys.errors import RecsysError
from recsys.evaluation.targets_file import targets_path
from recsys.manifest import MANIFEST, read_manifest
from recsys.schema import SplitName

METRICS: Final = "metrics.json"
COMPARISONS: Final = "comparisons.json"
EXPOSURE: Final = "exposure.json"
PROFILE: Final = "profile.json"
FRONTIER: Final = "frontier.json"

METRIC_SCHEMA: Final[dict[str, Any]] = {
    "dataset": pl.String,
    "split": pl.String,
    "model": pl.String,
    "metric": pl.String,
    "k": pl.Int64,
    "slice": pl.String,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "users": pl.Int64,
}
COMPARISON_SCHEMA: Final[dict[str, Any]] = {
    "dataset": pl.String,
    "split": pl.String,
    "metric": pl.String,
    "k": pl.Int64,
    "model_a": pl.String,
    "model_b": pl.String,
    "difference": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "p": pl.Float64,
    "p_holm": pl.Float64,
    "users": pl.Int64,
}
EXPOSURE_SCHEMA: Final[dict[str, Any]] = {
    "dataset": pl.String,
    "split": pl.String,
    "model": pl.String,
    "k": pl.Int64,
    "group": pl.String,
    "items": pl.Int64,
    "training_share": pl.Float64,
    "target_share": pl.Float64,
    "list_share": pl.Float64,
}
SCHEMAS: Final = {
    METRICS: METRIC_SCHEMA,
    COMPARISONS: COMPARISON_SCHEMA,
    EXPOSURE: EXPOSURE_SCHEMA,
}


@dataclass(frozen=True)
class Report:
    """A directory below `reports/`.

    Attributes:
        path: the directory.
        experiment: the name of the workspace it lies in.
        manifest: its manifest, empty where there is none that can be read.
        problem: why it cannot be used, in words; None for a whole report.
        modified: nanoseconds, when it was finished.
    """

    path: Path
    experiment: str
    manifest: dict[str, Any] = field(default_factory=dict, compare=False)
    problem: str | None = None
    modified: int = 0

    @property
    def id(self) -> str:
        """The name of the directory: the start of the hash of all that made the report."""
        return self.path.name

    @property
    def workspace(self) -> Path:
        """The directory of the experiment's stages."""
        return self.path.parent.parent

    @property
    def about(self) -> dict[str, str]:
        """What the figures stand on; empty in a report of older code."""
        found: dict[str, str] = self.manifest.get("about", {})
        return found

    def fold_directory(self, dataset: str) -> Path:
        """Return where the rows per target of a data set are: folds do not share a directory."""
        fold = dataset.removeprefix(f"{self.experiment}/")
        return self.path if fold == dataset else self.path / fold

    def targets(self, dataset: str, model: str, split: SplitName) -> Path:
        """Return the file of a model's rows per target."""
        return targets_path(self.fold_directory(dataset), model, split)

    def run_directory(self, dataset: str, model: str, split: SplitName = "test") -> Path | None:
        """Return the directory of the run that was measured, None where the manifest names none.

        What was refitted is tested; validation figures are those of the first fit.
        """
        fold = dataset.removeprefix(f"{self.experiment}/")
        fold = "main" if fold == dataset else fold
        runs: dict[str, str] = self.manifest.get("runs", {})
        first = runs.get(f"{fold}/{model}")
        name = runs.get(f"{fold}/{model}/refit", first) if split == "test" else first
        return None if name is None else self.workspace / "runs" / name


def find_reports(output: Path) -> list[Report]:
    """Return all reports below an output directory (or one experiment's), the newest first."""
    found = [_open(path) for path in _directories(output)]
    return sorted(found, key=lambda report: (-report.modified, report.path.as_posix()))


def _directories(output: Path) -> Iterator[Path]:
    for pattern in ("reports/*", "*/reports/*"):
        for path in output.glob(pattern):
            if path.is_dir() and not path.name.startswith("."):
                yield path.absolute()


def _open(path: Path) -> Report:
    experiment = path.parent.parent.name
    file = path / MANIFEST
    try:
        stamp = file.stat().st_mtime_ns
    except OSError:
        return Report(path, experiment, problem=f"{MANIFEST} is missing: the stage did not finish")
    return _open_at(path, experiment, stamp)


@lru_cache(maxsize=4096)
def _open_at(path: Path, experiment: str, stamp: int) -> Report:
    """Read a manifest once for each time it was written."""
    try:
        manifest = read_manifest(path)
    except (RecsysError, OSError, UnicodeDecodeError) as error:
        return Report(path, experiment, problem=str(error), modified=stamp)
    if not isinstance(manifest.get("runs"), dict):
        problem = f"{path / MANIFEST} names no runs, so this is no report of an evaluation"
        return Report(path, experiment, manifest, problem, stamp)
    return Report(path, experiment, manifest, None, stamp)


@dataclass(frozen=True)
class Table:
    """Rows of one file, or no rows and the reason."""

    rows: pl.DataFrame
    problem: str | None = None


def read_table(report: Report, name: str) -> Table:
    """Return the rows of one of a report's JSON files; of a broken one none, with the reason."""
    path, schema = report.path / name, SCHEMAS[name]
    try:
        stat = path.stat()
    except OSError:
        return Table(
            pl.DataFrame(schema=schema), f"{path} is missing; `recsys evaluate` writes it anew"
        )
    return _read_table(path, name, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=2048)
def _read_table(path: Path, name: str, stamp: int, size: int) -> Table:
    """Read a table once for each state of the file."""
    schema = SCHEMAS[name]
    try:
        rows = json.loads(path.read_bytes())
        if not isinstance(rows, list):
            raise TypeError("it holds no list of rows")
        frame = pl.DataFrame(rows, schema=schema, orient="row", strict=False)
    except (OSError, ValueError, TypeError, pl.exceptions.PolarsError) as error:
        reason = " ".join(str(error).split())[:200]
        problem = f"{path} cannot be read ({reason}); delete {path.parent} and evaluate again"
        return Table(pl.DataFrame(schema=schema), problem)
    return Table(frame)


def read_json(path: Path) -> Any | None:
    """Return the content of a JSON file, None where it is missing or damaged."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
