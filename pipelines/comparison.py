"""Runs compared on the terminal: the same figures as the dashboard's page, from the same files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from recsys.config import EvaluationConfig
from recsys.errors import ArtifactError, ConfigError
from recsys.evaluation.measured import RunChoice, measured_runs, rows_of
from recsys.evaluation.metrics import BY_TARGET, Key
from recsys.evaluation.names import label, number, p_text
from recsys.evaluation.paired import compared, names, win_rows
from recsys.evaluation.reports import METRICS, find_reports, read_table
from recsys.schema import SplitName

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SHOWN: tuple[str, ...] = ("ndcg", "hr", "mrr", "coverage")
OTHERS_AT = 10
"""Cut-off of the other columns, where the asked metric has none."""
MOST_RUNS = 6


def find_runs(output: Path, wanted: Sequence[str], split: SplitName) -> list[RunChoice]:
    """Return the newest measurements of the runs that are named and have one data set in common.

    A run is named by its directory (`sasrec-870f8ddd`, or a path that ends so) or by the report and the
    model (`fc540165/sasrec`), as the dashboard's addresses do.

    Raises:
        ArtifactError: a run was not measured on the split, or they have no data set in common.
    """
    reports = [report for report in find_reports(output) if report.problem is None]
    datasets = dict.fromkeys(
        name for report in reports for name in read_table(report, METRICS).rows["dataset"].unique()
    )
    every = [c for dataset in datasets for c in measured_runs(reports, dataset, split)]
    found = []
    for name in wanted:
        mine = [choice for choice in every if _is_called(choice, name)]
        if not mine:
            known = ", ".join(dict.fromkeys(choice.address for choice in every)) or "none"
            raise ArtifactError(
                f"no report below {output} measured the run {name!r} on {split}; measured are: {known}"
            )
        found.append({choice.dataset: choice for choice in reversed(mine)})
    common = [dataset for dataset in datasets if all(dataset in mine for mine in found)]
    if not common:
        raise ArtifactError(f"{', '.join(wanted)} were measured on different data sets")
    return [mine[common[0]] for mine in found]


def _is_called(choice: RunChoice, name: str) -> bool:
    directory = None if choice.directory is None else choice.directory.name
    return name == choice.address or (directory is not None and Path(name).name == directory)


def print_comparison(
    output: Path, wanted: Sequence[str], split: SplitName, metric: str, console: Console
) -> None:
    """Print the figures of two to six runs, their paired differences, and who wins for how many users.

    Raises:
        ConfigError: fewer than two or more than six runs, or an unknown metric.
        ArtifactError: see `find_runs`; or they were evaluated on different targets.
    """
    if not 2 <= len(set(wanted)) <= MOST_RUNS:
        raise ConfigError(f"name two to {MOST_RUNS} different runs, not {len(set(wanted))}")
    runs = find_runs(output, wanted, split)
    key = metric_key(metric)
    _check_metric(runs[0], key, metric)
    console.print(metric_table(runs, key))
    console.print()
    console.print(pair_table(runs, key))


def _check_metric(run: RunChoice, key: Key, asked: str) -> None:
    """Refuse a metric that no user has by itself, or that was not measured at this cut-off."""
    if key[0] not in BY_TARGET:
        raise ConfigError(
            f"{asked} is not measured for every user, so it cannot be paired; use one of "
            f"{', '.join(BY_TARGET)}"
        )
    if not _at(run, key):
        found = rows_of(run).filter((pl.col("metric") == key[0]) & (pl.col("slice") == "all"))
        known = [key[0] if k is None else f"{key[0]}@{k}" for k in found["k"].to_list()]
        raise ConfigError(
            f"{asked} was not measured; there is {', '.join(known) or 'no such metric'}"
        )


def metric_key(text: str) -> Key:
    """Return a metric and its cut-off: `ndcg@10`, or `mrr` without one."""
    name, _, k = text.lower().partition("@")
    if k and not k.isdigit():
        raise ConfigError(f"{text!r} is no metric; write it like ndcg@10")
    return name, int(k) if k else None


def metric_table(runs: Sequence[RunChoice], key: Key) -> Table:
    """Return every run's figures with their intervals: the asked one first."""
    from rich.table import Table

    title = f"{runs[0].dataset}, {runs[0].split}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    cut = key[1] or OTHERS_AT
    keys = [key, *((name, cut) for name in SHOWN if name != key[0])]
    keys = [k for k in keys if any(len(_at(run, k)) for run in runs)]
    for heading in ("run", *(label(*k) for k in keys), "users"):
        table.add_column(heading, no_wrap=True)
    for run, name in zip(runs, names(runs), strict=True):
        rows = [_at(run, k) for k in keys]
        users = rows[0][0]["users"] if rows and rows[0] else 0
        table.add_row(name, *(_figure(row) for row in rows), f"{users:,}")
    return table


def _at(run: RunChoice, key: Key) -> list[dict[str, Any]]:
    """Return the row of one metric over all targets, as a list that is empty without one."""
    rows = rows_of(run).rows(named=True)
    return [r for r in rows if (r["metric"], r["k"], r["slice"]) == (*key, "all")]


def _figure(rows: list[dict[str, Any]]) -> str:
    if not rows or rows[0]["value"] is None:
        return "-"
    row = rows[0]
    if row["low"] is None:
        return number(row["value"])
    return f"{number(row['value'])} [{number(row['low'])}, {number(row['high'])}]"


def pair_table(runs: Sequence[RunChoice], key: Key) -> Table:
    """Return every pair's difference with its interval, p-values and wins."""
    from rich.table import Table

    title = f"differences of {label(*key)} by user, p corrected over the pairs"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in ("pair", "difference", "p", "p corrected", "better", "equal", "worse"):
        table.add_column(heading, no_wrap=True, justify="left" if heading == "pair" else "right")
    won = win_rows(runs, key).rows(named=True)
    for row, users in zip(compared(runs, key, EvaluationConfig()), won, strict=True):
        table.add_row(
            users["pair"],
            f"{row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]",
            p_text(row["p"]),
            p_text(row["p_holm"]),
            *(f"{users[name]:,}" for name in ("better", "equal", "worse")),
        )
    return table
