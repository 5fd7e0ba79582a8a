"""Runs as reports measured them: one model, one data set, one split; its rows and its values by user."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl

from recsys.evaluation.by_user import UserRanks, UserValues, read_user_ranks
from recsys.evaluation.metrics import Key
from recsys.evaluation.reports import COMPARISONS, METRICS, Report, read_table
from recsys.schema import SplitName


@dataclass(frozen=True)
class RunChoice:
    """One model measured in one report, on one data set and split."""

    report: Report
    dataset: str
    split: SplitName
    model: str

    @property
    def address(self) -> str:
        """How a run is named in an address: the report's id and the model."""
        return f"{self.report.id}/{self.model}"

    @property
    def targets(self) -> Path:
        """Its rows per target."""
        return self.report.targets(self.dataset, self.model, self.split)

    @property
    def directory(self) -> Path | None:
        """The directory of the trained run."""
        return self.report.run_directory(self.dataset, self.model, self.split)


def measured_runs(reports: Iterable[Report], dataset: str, split: SplitName) -> list[RunChoice]:
    """Return all runs that were measured on a data set and split, in the order of the reports."""
    return [
        RunChoice(report, dataset, split, model)
        for report in reports
        for model in read_table(report, METRICS)
        .rows.filter((pl.col("dataset") == dataset) & (pl.col("split") == split))["model"]
        .unique(maintain_order=True)
        .to_list()
    ]


def rows_of(choice: RunChoice) -> pl.DataFrame:
    """Return the metric rows of one run."""
    rows = read_table(choice.report, METRICS).rows
    return rows.filter(
        (pl.col("dataset") == choice.dataset)
        & (pl.col("split") == choice.split)
        & (pl.col("model") == choice.model)
    )


def values_of(choice: RunChoice, key: Key) -> UserValues:
    """Return a run's metric by user; `ArtifactError` says what is missing."""
    path = choice.targets
    stamp = path.stat().st_mtime_ns if path.is_file() else 0
    found = _values(path, stamp, key)
    return replace(found, targets=f"{found.targets} {rule_of(choice.report)}")


def judges(choice: RunChoice, info: Mapping[str, Any]) -> bool:
    """Return whether a measurement is of a bundle's run, by the rule of exclusion the bundle answers by.

    Args:
        choice: the measurement.
        info: the facts in the bundle's manifest.
    """
    exclude = _settings(choice.report).get("exclude", "seen")
    directory = choice.directory
    return (
        directory is not None
        and directory.name == info.get("run")
        and exclude == info.get("exclude", "seen")
    )


def rule_of(report: Report) -> str:
    """Return by what rule a report's lists left items out, as text; empty in a report of older code.

    Figures by different rules answer different questions, even where the targets are the same.
    """
    made = _settings(report)
    return f"exclude {made.get('exclude')}, repeats {made.get('repeats')}" if made else ""


def _settings(report: Report) -> dict[str, Any]:
    """Return how a report was evaluated; empty in a report of older code."""
    made = report.manifest.get("evaluation")
    return made if isinstance(made, dict) else {}


@lru_cache(maxsize=24)
def _values(path: Path, stamp: int, key: Key) -> UserValues:
    return _ranks(path, stamp).values(key)


@lru_cache(maxsize=8)
def _ranks(path: Path, stamp: int) -> UserRanks:
    """Read a file once for all its metrics: about 24 bytes a target stay in memory."""
    return read_user_ranks(path)


def stored_comparisons(report: Report) -> pl.DataFrame:
    """Return the paired tests that a report holds."""
    return read_table(report, COMPARISONS).rows
