"""What the cells of a study say together: its summary, its page and the table that is printed."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.study_cells import Cell, Study, write_json

if TYPE_CHECKING:
    from rich.table import Table

SUMMARY, PAGE = "summary.json", "study.html"


def write_summary(study: Study) -> dict[str, Any]:
    """Make `summary.json` and the page of all cells that are done; return the summary."""
    from recsys.evaluation.study import Scored, compare_with, over_seeds
    from recsys.evaluation.study_page import write_study_page

    config = study.config
    cells: dict[tuple[str, str], dict[int, Cell]] = defaultdict(dict)
    found = {cell: Scored.load(study.rows(cell)) for cell in study.done()}
    for cell in study.asked():
        if (trained := study.trained(cell)) in found:
            cells[cell.set, cell.model][cell.seed] = trained
    if not config.slices:
        found = {cell: one.whole() for cell, one in found.items()}
    means = []
    for (name, model), by_seed in cells.items():
        known = {seed: _means_of(study.file(cell)) for seed, cell in by_seed.items()}
        means.append({"set": name, "model": model, **over_seeds(known)})
    by_set, pooled = {}, {}
    for model in dict.fromkeys(model for _, model in cells if model != config.baseline):
        pairs, seeds = {}, {}
        for name in study.experiments:
            mine, base = cells.get((name, model), {}), cells.get((name, config.baseline), {})
            if both := sorted(mine.keys() & base.keys()):
                pairs[name] = [(found[mine[s]], found[base[s]]) for s in both]
                seeds[name] = both
        if pairs:
            rows, pooled[model] = compare_with(pairs)
            by_set[model] = [{**row, "seeds": seeds[row["set"]]} for row in rows]
    summary: dict[str, Any] = {
        "name": config.name,
        "baseline": config.baseline,
        "metric": f"NDCG@{config.k}",
        "sets": list(config.sets),
        "over_seeds": means,
        "by_set": by_set,
        "pooled": pooled,
        "same": study.same(),
        "missing": [cell.name for cell in study.asked() if study.trained(cell) not in found],
    }
    write_json(study.directory / SUMMARY, summary)
    write_study_page(study.directory / PAGE, summary)
    return summary


def _means_of(file: Path) -> dict[str, float]:
    cell = json.loads(file.read_text(encoding="utf-8"))
    seconds = cell["training"].get("train_seconds")
    found = {name: values[0] for name, values in cell["metrics"].items()}
    return found if seconds is None else {**found, "train_seconds": seconds}


def study_table(summary: dict[str, Any]) -> Table:
    """Return every comparison with the baseline, and the pooled one of each model."""
    from rich.table import Table

    from recsys.evaluation.names import p_text

    title = f"{summary['metric']} against {summary['baseline']}, by user (with 95 % intervals)"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in ("model", "set", "model's", "baseline's", "gain", "p", "p, Holm", "seeds"):
        table.add_column(heading, no_wrap=True)
    for model, rows in summary["by_set"].items():
        for row in rows:
            values = (f"{row[name]:.4f}" for name in ("value", "baseline"))
            p = (p_text(row[name]) for name in ("p", "p_holm"))
            seeds = ", ".join(map(str, row["seeds"]))
            table.add_row(model, row["set"], *values, _gain(row), *p, seeds)
        pooled = summary["pooled"][model]
        table.add_row(model, f"all {len(pooled['sets'])}", "", "", _gain(pooled), "", "", "")
    return table


def _gain(row: dict[str, Any]) -> str:
    if row["gain"] is None:
        return "the baseline is 0"
    return f"{row['gain']:+.1%} [{row['low']:+.1%}, {row['high']:+.1%}]"
