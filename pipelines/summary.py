"""What a run ends with: the models in a table, the tests between them, where everything is."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipelines.training_facts import shown_name, training_facts
from recsys.config import ExperimentConfig
from recsys.manifest import read_manifest

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from pipelines.promote import Promotion

TABLE_WIDTH: Final = 132
COLUMNS: Final = (("HR", 10), ("NDCG", 10), ("MRR", None), ("coverage", 10))
"""Metric and cut-off of each column; names are compared without case."""

TESTED: Final = ("NDCG", 10)
"""Whose paired tests are shown."""

Row = dict[str, Any]


def print_summary(config: ExperimentConfig, report: Path, bundle: Path, console: Console) -> None:
    """Print a table for every dataset and split that is asked for, the trainings, then the paths."""
    rows: list[Row] = json.loads((report / "metrics.json").read_text(encoding="utf-8"))
    comparisons: list[Row] = json.loads((report / "comparisons.json").read_text(encoding="utf-8"))
    for dataset in _distinct(row["dataset"] for row in rows):
        for split in config.evaluation.splits:
            here = [row for row in rows if (row["dataset"], row["split"]) == (dataset, split)]
            console.print()
            # Figures cut in two are unreadable: a narrow or piped console gets long lines instead.
            table = model_table(config, here, f"{dataset}, {split}")
            console.width = max(console.width, TABLE_WIDTH)
            console.print(table)
            for line in comparison_lines(comparisons, dataset, split):
                console.print(line, highlight=False, markup=False)
    if trainings := training_facts(_manifests(config, report)):
        console.print()
        console.print(training_table(trainings))
    console.print()
    for label, path in (("report", report / "report.html"), ("bundle", bundle)):
        console.print(f"{label}  {shown(path)}", highlight=False, markup=False, soft_wrap=True)
    command = f"serve   {own_command()} serve {shown(bundle.parent)}"
    console.print(command, highlight=False, markup=False, soft_wrap=True)


def model_table(config: ExperimentConfig, rows: list[Row], title: str) -> Table:
    """Return the table of one split: a model a row, every figure with its interval."""
    from rich.table import Table

    level = f"{100 * config.evaluation.level:g} %"
    table = Table(
        title=f"{title} (with {level} intervals)", title_justify="left", box=None, pad_edge=False
    )
    table.add_column("model")
    for metric, k in COLUMNS:
        table.add_column(metric if k is None else f"{metric}@{k}", no_wrap=True)
    table.add_column("users", justify="right")
    for model in config.models:
        found = {
            (row["metric"].lower(), row["k"]): row
            for row in rows
            if row["model"] == model and row["slice"] == "all"
        }
        cells = [figure(found.get((metric.lower(), k))) for metric, k in COLUMNS]
        users = found[COLUMNS[0][0].lower(), COLUMNS[0][1]]["users"] if found else 0
        table.add_row(model, *cells, f"{users:,}")
    return table


def training_table(rows: list[dict[str, str]]) -> Table:
    """Return a table of what the learned models' trainings took."""
    from rich.table import Table

    table = Table(title="training", title_justify="left", box=None, pad_edge=False)
    for heading in rows[0]:
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row.values())
    return table


def _manifests(config: ExperimentConfig, report: Path) -> dict[str, dict[str, Any]]:
    """Return the manifests of the runs that a report measured, by the name to show."""
    runs: dict[str, str] = read_manifest(report)["runs"]
    return {
        shown_name(title): read_manifest(config.workspace / "runs" / directory)
        for title, directory in runs.items()
    }


def figure(row: Row | None) -> str:
    """Return `value [low, high]`; a dash for what was not measured, no interval where none exists."""
    if row is None or row["value"] is None:
        return "-"
    value = f"{row['value']:.4f}"
    if row["low"] is None or row["high"] is None:
        return value
    return f"{value} [{row['low']:.4f}, {row['high']:.4f}]"


def comparison_lines(comparisons: list[Row], dataset: str, split: str) -> list[str]:
    """Return a line for every paired test of the split on the tested metric."""
    return [
        f"{row['model_a']} - {row['model_b']}: {TESTED[0]}@{TESTED[1]} {row['difference']:+.4f} "
        f"[{row['low']:+.4f}, {row['high']:+.4f}], p = {row['p_holm']:.4f}"
        for row in comparisons
        if (row["dataset"], row["split"], row["k"]) == (dataset, split, TESTED[1])
        and row["metric"].lower() == TESTED[0].lower()
    ]


def print_promotion(outcome: Promotion, console: Console) -> None:
    """Print what was compared and what became of it."""
    from rich.table import Table

    if outcome.guards:
        table = Table(box=None, pad_edge=False)
        headings = (
            "metric",
            "candidate",
            "champion",
            "difference",
            "lower limit",
            "allowed",
            "users",
            "",
        )
        for heading in headings:
            table.add_column(heading, justify="left" if heading in ("metric", "") else "right")
        for guard in outcome.guards:
            figures = (guard.candidate, guard.champion)
            signed = (guard.difference, guard.low, guard.allowed)
            table.add_row(
                guard.metric,
                *(f"{value:.4f}" for value in figures),
                *(f"{value:+.4f}" for value in signed),
                f"{guard.users:,}",
                "not worse" if guard.passed else "may be worse",
            )
        console.print(table)
    before = "no champion before" if outcome.champion is None else f"before: {outcome.champion}"
    if outcome.promoted:
        verdict = f"version {outcome.candidate} is now the champion ({before})"
    elif outcome.guards:
        verdict = f"refused: version {outcome.champion} stays the champion"
    else:
        verdict = f"version {outcome.candidate} is the champion already"
    console.print(f"{outcome.model}: {verdict}", highlight=False, markup=False, soft_wrap=True)


def own_command() -> str:
    """Return how the reader can call this program: by name, or by its path in the environment."""
    if shutil.which("recsys"):
        return "recsys"
    return shown(Path(sys.executable).absolute().with_name("recsys"))


def shown(path: Path) -> str:
    """Return a path relative to the current directory where it lies below it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
