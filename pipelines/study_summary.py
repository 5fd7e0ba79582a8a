"""What the cells of a study say together: its summary, its page and the table that is printed."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.study_cells import Cell, Study, rows_of, write_json

if TYPE_CHECKING:
    from rich.table import Table

    from recsys.evaluation.study import Scored

SUMMARY, PAGE = "summary.json", "study.html"
Cells = dict[tuple[str, str], dict[int, Cell]]
"""The trained cell of a set and a model, by seed."""


def write_summary(study: Study, done: Mapping[Cell, Path]) -> None:
    """Make `summary.json` and the page of the cells that are done, given with their files."""
    from recsys.evaluation.study import Scored, over_seeds
    from recsys.evaluation.study_page import write_study_page

    config = study.config
    found = {cell: Scored.load(rows_of(file)) for cell, file in done.items()}
    if not config.slices:
        found = {cell: one.whole() for cell, one in found.items()}
    cells: Cells = defaultdict(dict)
    for cell in study.compared():
        if (trained := study.trained_for(cell)) in found:
            cells[cell.set, cell.model][cell.seed] = trained
    means = []
    for (name, model), by_seed in cells.items():
        known = {seed: _means_of(done[cell]) for seed, cell in by_seed.items()}
        means.append({"set": name, "model": model, **over_seeds(known)})
    for (_, model), by_seed in cells.items():
        if model in config.once:  # its one run stands for every seed of what it is compared with
            by_seed |= dict.fromkeys(config.seeds, by_seed[config.seeds[0]])
    models = [model for model in (*config.models, *config.once) if model != config.baseline]
    by_set, pooled = _compared(config.baseline, models, cells, found)
    summary: dict[str, Any] = {
        "name": config.name,
        "baseline": config.baseline,
        "metric": f"NDCG@{config.k}",
        "sets": list(config.sets),
        "over_seeds": means,
        "by_set": by_set,
        "pooled": pooled,
        "against": {
            whole: _against(whole, others, cells, found) for whole, others in config.against.items()
        },
        "aliases": study.aliases(),
        "missing": [c.name for c in study.compared() if study.trained_for(c) not in found],
        "cells_left": len(study.cells()) - len(done),
    }
    write_json(study.directory / SUMMARY, summary)
    write_study_page(study.directory / PAGE, summary)


def _against(
    whole: str, models: Sequence[str], cells: Cells, found: Mapping[Cell, Scored]
) -> dict[str, Any]:
    """Return a further comparison; its tests, of all models on all sets, are one family."""
    from recsys.evaluation.study import correct

    by_set, pooled = _compared(whole, models, cells, found)
    correct([row for rows in by_set.values() for row in rows])
    return {"by_set": by_set, "pooled": pooled}


def _compared(
    whole: str, models: Sequence[str], cells: Cells, found: Mapping[Cell, Scored]
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, dict[str, Any]]]:
    """Return the rows of the models against one, by set, and the pooled effect of each.

    Over the seeds that both have; where both are one run there is nothing to compare.
    """
    from recsys.evaluation.study import compare_with

    by_set, pooled = {}, {}
    for model in models:
        pairs, seeds = {}, {}
        for name in dict.fromkeys(name for name, _ in cells):
            mine, base = cells.get((name, model), {}), cells.get((name, whole), {})
            if both := [s for s in sorted(mine.keys() & base.keys()) if mine[s] != base[s]]:
                pairs[name] = [(found[mine[s]], found[base[s]]) for s in both]
                seeds[name] = both
        if pairs:
            rows, pooled[model] = compare_with(pairs)
            by_set[model] = [{**row, "seeds": seeds[row["set"]]} for row in rows]
    return by_set, pooled


def _means_of(file: Path) -> dict[str, float]:
    """Return the figures of a cell. Not its seconds: they are of what else the machine did then."""
    cell = json.loads(file.read_text(encoding="utf-8"))
    return {name: values[0] for name, values in cell["metrics"].items()}


def study_tables(summary: dict[str, Any]) -> list[Table]:
    """Return every comparison, and the pooled one of each model: with the baseline, and the further ones."""
    tables = [_table(summary["metric"], summary["baseline"], summary)]
    return tables + [_table(summary["metric"], w, found) for w, found in summary["against"].items()]


def _table(metric: str, whole: str, found: dict[str, Any]) -> Table:
    from rich.table import Table

    from recsys.evaluation.names import p_text

    title = f"{metric} against {whole}, by user (with 95 % intervals)"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in ("model", "set", "model's", f"{whole}'s", "gain", "p", "p, Holm", "seeds"):
        table.add_column(heading, no_wrap=True)
    for model, rows in found["by_set"].items():
        for row in rows:
            values = (f"{row[name]:.4f}" for name in ("value", "baseline"))
            p = (p_text(row[name]) for name in ("p", "p_holm"))
            seeds = ", ".join(map(str, row["seeds"]))
            table.add_row(model, row["set"], *values, _gain(row), *p, seeds)
        pooled = found["pooled"][model]
        table.add_row(model, f"all {len(pooled['sets'])}", "", "", _gain(pooled), "", "", "")
    return table


def _gain(row: dict[str, Any]) -> str:
    if row["gain"] is None:
        return "the baseline is 0"
    return f"{row['gain']:+.1%} [{row['low']:+.1%}, {row['high']:+.1%}]"
