"""The tables of a report page: figures with intervals, comparisons, slices, costs, leakage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recsys.evaluation.names import LOWER_IS_BETTER, label, number, p_text
from recsys.evaluation.page import Cell, table

if TYPE_CHECKING:
    from recsys.evaluation.background import Example
    from recsys.evaluation.evaluate import MetricRow


def measured(
    metrics: Sequence[str],
    cuts: Sequence[int | None],
    whole: Mapping[tuple[str, str, int | None], MetricRow],
) -> list[tuple[str, int | None]]:
    """Return the metrics and cut-offs that exist; None is a metric's figure without a cut-off."""
    known = {(metric, k) for _, metric, k in whole}
    return [(metric, k) for metric in metrics for k in cuts if (metric, k) in known]


def model_table(
    caption: str,
    models: Sequence[str],
    columns: Sequence[tuple[str, int | None]],
    whole: Mapping[tuple[str, str, int | None], MetricRow],
) -> str:
    """Return a model a row, a metric a column; below each value its interval, the best marked."""
    body = []
    for model in models:
        cells = [Cell(model)]
        for metric, k in columns:
            rivals = [whole[m, metric, k] for m in models if (m, metric, k) in whole]
            row = whole.get((model, metric, k))
            cells.append(Cell("") if row is None else _figure(row, _is_best(row, rivals)))
        users = [whole[model, *column]["users"] for column in columns if (model, *column) in whole]
        body.append([*cells, Cell(str(max(users, default=0)))])
    header = ["model", *(label(metric, k) for metric, k in columns), "users"]
    return table(f"{caption}; below each value its interval; the best is marked", header, body)


def _is_best(row: MetricRow, rivals: Sequence[MetricRow]) -> bool:
    known = [rival["value"] for rival in rivals if rival["value"] is not None]
    if row["value"] is None or len(known) < 2:
        return False
    return row["value"] == (min(known) if row["metric"] in LOWER_IS_BETTER else max(known))


def slice_table(metric: str, k: int, models: Sequence[str], rows: Sequence[MetricRow]) -> str:
    """Return one metric by slice, a model a column."""
    mine = {
        (row["slice"], row["model"]): row
        for row in rows
        if row["metric"] == metric and row["k"] == k
    }
    body = []
    for name in dict.fromkeys(part for part, _ in mine):
        rivals = [mine[name, model] for model in models if (name, model) in mine]
        cells = [_figure(row, _is_best(row, rivals)) for row in rivals]
        body.append([Cell(name), Cell(str(rivals[0]["users"])), *cells])
    caption = f"{label(metric, k)} by part of the targets"
    return table(caption, ["slice", "users", *models], body)


def comparison_table(comparisons: Iterable[Mapping[str, Any]]) -> str:
    """Return the paired differences with their p-values."""
    body = [
        [
            Cell(f"{row['model_a']} - {row['model_b']}"),
            Cell(label(row["metric"], row["k"])),
            Cell(f"{row['difference']:+.4f}", f"{row['low']:+.4f} to {row['high']:+.4f}"),
            Cell(p_text(row["p"])),
            Cell(p_text(row["p_holm"]), kind="best" if row["p_holm"] < 0.05 else ""),
            Cell(str(row["users"])),
        ]
        for row in comparisons
    ]
    header = ["models", "metric", "difference", "p", "p corrected", "users"]
    return table("Differences by user; marked where the corrected p is below .05", header, body)


def training_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return what the learned models' trainings took."""
    body = [[Cell(text) for text in row.values()] for row in rows]
    return table("Learned models; padding: places of a batch without an event", [*rows[0]], body)


def _figure(row: MetricRow, best: bool) -> Cell:
    interval = ""
    if row["low"] is not None and row["high"] is not None:
        interval = f"{number(row['low'])} to {number(row['high'])}"
    return Cell(number(row["value"]), interval, "best" if best else "")


def plain(value: Any) -> str:
    """Return a value as text, a float in four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def flatten(counts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return the leaves of nested mappings as `(words, value)`, in order."""
    flat: list[tuple[str, Any]] = []
    for key, value in counts.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            flat += flatten(value, f"{name}: ")
        else:
            flat.append((name, value))
    return flat


def cost_table(costs: Sequence[Mapping[str, Any]]) -> str:
    """Return what every model costs: training, size, one list."""
    body = [
        [
            Cell(row["model"]),
            Cell(_amount(row["train_seconds"], "s")),
            Cell(_amount(row["size_mb"], "MB")),
            Cell(_amount(row["p50_ms"], "ms")),
            Cell(_amount(row["p95_ms"], "ms")),
        ]
        for row in costs
    ]
    threads = ", ".join(sorted({f"{row['threads']}" for row in costs}))
    caption = f"Cost; a list of 100 on the CPU by exact search, one at a time, threads: {threads}"
    return table(caption, ["model", "training", "weights", "list, median", "list, p95"], body)


def _amount(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:,.3g} {unit}"


def drift_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the sizes of training, validation and test, and how far their items are from training's."""
    header = [*rows[0]] if rows else ["part"]
    body = [
        [Cell("-" if row[name] is None else _counted(row[name])) for name in header] for row in rows
    ]
    caption = "Drift; divergence: Jensen-Shannon of the items' shares against training, 0 to 1 bit"
    return table(caption, [name.replace("_", " ") for name in header], body)


def _counted(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else plain(value)


def example_table(example: Example) -> str:
    """Return one user's history, held-out items and every model's list, side by side."""
    models = list(example.lists)
    length = max(
        [len(example.history), *(len(found) for found in example.lists.values())], default=0
    )
    body = []
    for i in range(length):
        past = example.history[i] if i < len(example.history) else ""
        cells = [Cell(str(i + 1)), Cell(past, kind="word")]
        for model in models:
            text, hit = example.lists[model][i] if i < len(example.lists[model]) else ("", False)
            cells.append(Cell(text, kind="word best" if hit else "word"))
        body.append(cells)
    header = ["", "history, newest last", *(f"{m} (rank {example.ranks[m]})" for m in models)]
    caption = f"{example.title}; held out: {', '.join(example.held_out)}"
    return table(caption, header, body)
