"""What the pages show, as frames: plain functions over an output directory, without any web library.

Files are read once for each state they are in (path, time and size), so a page that is drawn again
costs no reading, and a report that was written meanwhile is seen at once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import polars as pl

from recsys.evaluation.measured import RunChoice, measured_runs
from recsys.evaluation.names import LOWER_IS_BETTER
from recsys.evaluation.reports import (
    METRIC_SCHEMA,
    METRICS,
    Report,
    find_reports,
    read_json,
    read_table,
)
from recsys.schema import SplitName

MEASURED: Final[dict[str, Any]] = {
    **METRIC_SCHEMA,
    "report": pl.String,
    "run": pl.String,
    "as_of": pl.String,
    "source": pl.String,
}
"""Columns of `measured`: the metric rows, and where each comes from."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """Something that cannot be shown, and why."""

    where: str
    why: str


@dataclass(frozen=True)
class Library:
    """All reports below an output directory at one moment.

    Attributes:
        output: the directory.
        reports: whole ones, the newest first.
        problems: the others, and files of whole ones that cannot be read.
    """

    output: Path
    reports: tuple[Report, ...]
    problems: tuple[Problem, ...]

    def report(self, name: str) -> Report | None:
        """Return the report of an id."""
        return next((report for report in self.reports if report.id == name), None)

    def of_dataset(self, dataset: str) -> list[Report]:
        """Return the reports that measured a data set, the newest first."""
        return [r for r in self.reports if dataset in datasets_of(r)]


def open_library(output: Path) -> Library:
    """Look what there is; a broken report becomes a problem in words."""
    whole: list[Report] = []
    problems: list[Problem] = []
    for report in find_reports(output):
        problem = report.problem or read_table(report, METRICS).problem
        if problem is None:
            whole.append(report)
        else:
            problems.append(Problem(_short(output, report.path), problem))
    problems += _without_report(output, {report.workspace for report in whole})
    return Library(output, tuple(whole), tuple(problems))


def _without_report(output: Path, measured: set[Path]) -> list[Problem]:
    """Return the experiments that have runs but no report that can be shown."""
    folders = sorted(path.parent.absolute() for path in output.glob("*/runs"))
    advice = "has runs but no report; `recsys evaluate` with its configuration writes one"
    return [Problem(_short(output, f), advice) for f in folders if f not in measured]


def _short(output: Path, path: Path) -> str:
    base = output.absolute()
    return str(path.relative_to(base) if path.is_relative_to(base) else path)


def measured(library: Library) -> pl.DataFrame:
    """Return every metric row of every whole report, with its source; see `MEASURED`."""
    return _measured(library)


@lru_cache(maxsize=4)
def _measured(library: Library) -> pl.DataFrame:
    frames = [_with_source(library, report) for report in library.reports]
    return pl.concat(frames) if frames else pl.DataFrame(schema=MEASURED)


def _with_source(library: Library, report: Report) -> pl.DataFrame:
    rows = read_table(report, METRICS).rows
    exams = rows.select("dataset", "split", "model").unique(maintain_order=True)
    runs = [
        None if (run := report.run_directory(dataset, model, split)) is None else run.name
        for dataset, split, model in exams.iter_rows()
    ]
    named = exams.with_columns(
        pl.Series("run", runs, dtype=pl.String),
        report=pl.lit(report.id),
        as_of=pl.lit(as_of(report)),
        source=pl.lit(_short(library.output, report.path / METRICS)),
    )
    joined = rows.join(named, on=["dataset", "split", "model"], how="left", maintain_order="left")
    return joined.select(list(MEASURED))


def as_of(report: Report) -> str:
    """Return when a report was made, to the minute, in UTC."""
    made = report.about.get("made")
    if made:
        return made.replace("+00:00", "").replace("T", " ")
    from datetime import UTC, datetime

    return datetime.fromtimestamp(report.modified / 1e9, UTC).strftime("%Y-%m-%d %H:%M")


def datasets_of(report: Report) -> list[str]:
    """Return the data sets (folds) that a report measured."""
    return read_table(report, METRICS).rows["dataset"].unique(maintain_order=True).to_list()


def standings(
    rows: pl.DataFrame, split: str, metric: str, k: int | None, *, older: bool = False
) -> pl.DataFrame:
    """Return one line for every data set and model: the metric, its interval, its rank.

    Of several reports of a data set the newest counts, unless `older` asks for all; a run that
    several measured is shown once for each. Rank 1 is the best value of a data set (the lowest where
    lower is better); equal values share a rank.
    """
    mine = rows.filter(
        (pl.col("split") == split)
        & (pl.col("metric") == metric)
        & (pl.col("k").is_null() if k is None else pl.col("k") == k)
        & (pl.col("slice") == "all")
    )
    if not older:
        mine = mine.unique(["dataset", "model"], keep="first", maintain_order=True)
    lower = metric in LOWER_IS_BETTER
    ranked = mine.with_columns(
        rank=pl.col("value").rank("min", descending=not lower).over("dataset").cast(pl.Int64)
    )
    columns = ["dataset", "rank", "model", "value", "low", "high", "users", "split", "as_of"]
    return ranked.sort(["dataset", "rank"], nulls_last=True, maintain_order=True).select(
        *columns, "report", "run", "source"
    )


def part(report: Report, name: str) -> Any | None:
    """Return one of a report's other JSON files, None where it has none that can be read."""
    path = report.path / name
    try:
        stat = path.stat()
    except OSError:
        return None
    return _part(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=256)
def _part(path: Path, stamp: int, size: int) -> Any | None:
    return read_json(path)


def part_rows(report: Report, name: str, **where: str) -> list[Row]:
    """Return the rows of a JSON file that have the given values."""
    rows = part(report, name)
    if not isinstance(rows, list):
        return []
    return [r for r in rows if isinstance(r, dict) and all(r.get(k) == v for k, v in where.items())]


def run_manifest(directory: Path | None) -> Row:
    """Return the manifest of a run's directory, empty where it is gone."""
    if directory is None:
        return {}
    found = read_json(directory / "manifest.json")
    return found if isinstance(found, dict) else {}


def epochs(directory: Path | None) -> list[Row]:
    """Return a run's epochs; none for a model that is counted."""
    found = None if directory is None else read_json(directory / "history.json")
    rows = found.get("epochs") if isinstance(found, dict) else None
    return rows if isinstance(rows, list) else []


def frame_csv(frame: pl.DataFrame) -> str:
    """Return a frame as CSV with every digit; lists become JSON."""
    nested = [name for name, kind in frame.schema.items() if kind == pl.List]
    plain = frame.with_columns(
        pl.col(name).map_elements(lambda v: json.dumps(v.to_list()), return_dtype=pl.String)
        for name in nested
    )
    return plain.write_csv()


def choices(library: Library, dataset: str, split: SplitName) -> list[RunChoice]:
    """Return all runs that were measured on a data set and split, newest report first."""
    return measured_runs(library.of_dataset(dataset), dataset, split)


def ks_of(rows: Sequence[int | None] | pl.Series) -> list[int]:
    """Return the cut-offs that occur, ascending."""
    return sorted({int(k) for k in rows if k is not None})
