"""The report of an evaluation as one HTML file that opens anywhere and says what it stands on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from recsys.evaluation.compare import Comparison
from recsys.evaluation.evaluate import MetricRow
from recsys.evaluation.page import (
    Bar,
    Cell,
    chart,
    facts,
    folded,
    heading,
    page,
    paragraph,
    table,
)

LABELS: Final = {
    "hr": "HR",
    "recall": "Recall",
    "ndcg": "NDCG",
    "mrr": "MRR",
    "map": "MAP",
    "precision": "Precision",
    "r_precision": "R-precision",
    "coverage": "Coverage",
    "gini": "Gini",
    "novelty": "Novelty",
    "ild": "Intra-list distance",
}
LOWER_IS_BETTER: Final = ("gini",)
PREFERRED_K: Final = 10
COMPARED: Final = ("ndcg", "hr", "mrr")

NOTES: Final = """\
Every target is ranked against the whole catalogue, less what the exclusion rule forbids; items with \
equal scores share the mean of their ranks. Figures are means over each user's (list's) targets, then \
over users. HR: a relevant item is among the first k. Recall: found / relevant. Precision: found / k. \
NDCG: binary gains, log2 discount, ideal over min(k, relevant). MAP: over min(k, relevant). MRR: one \
over the first relevant rank, 0 beyond k. R-precision: found among the first R / R, with R relevant. \
Coverage: share of the catalogue in at least one list. Gini: inequality of how often items are listed \
(0 = even; lower spreads wider). Novelty: mean -log2 of the items' smoothed training share, in bits. \
Intra-list distance: mean cosine distance of the list's pairs. Intervals: percentile bootstrap over \
users; coverage and Gini: jackknife over groups of users. Comparisons: difference of means by user, \
paired bootstrap interval, two-sided sign-flip test, Holm-corrected over the pairs for each metric."""

Exam = tuple[str, str]
"""Data set and split."""


def write_report(
    path: Path,
    title: str,
    about: Mapping[str, str],
    rows: Sequence[MetricRow],
    comparisons: Sequence[Mapping[str, Any] | Comparison],
    leakage: Mapping[str, Mapping[str, Any]] | None = None,
    training: Sequence[Mapping[str, str]] = (),
) -> None:
    """Write the report of all data sets and splits in `rows` to `path`.

    Args:
        path: the HTML file.
        title: its heading.
        about: what the figures stand on, shown as it is: date, source, split, exclusion, ...
        rows: metric rows of all models.
        comparisons: rows of `compare_models`; a `dataset` key tells folds apart where there is one.
        leakage: name of a fold -> its leakage table, nested mappings are flattened.
        training: a row for every learned model, heading -> text, all with the same headings.
    """
    parts = [heading(title, 1), facts(about.items())]
    for exam in dict.fromkeys((row["dataset"], row["split"]) for row in rows):
        mine = [row for row in rows if (row["dataset"], row["split"]) == exam]
        compared = [
            row for row in comparisons if (row.get("dataset", exam[0]), row["split"]) == exam
        ]
        parts += _exam_parts(exam, mine, compared)
    if training:
        parts += [heading("Training"), _training_table(training)]
    for name, counts in (leakage or {}).items():
        cells = [[Cell(key), Cell(_plain(value))] for key, value in _flatten(counts)]
        parts += [
            heading(f"Leakage: {name}"),
            table("What the held-out part shares with training", ["", "value"], cells),
        ]
    parts += [heading("How to read this"), paragraph(NOTES)]
    path.write_text(page(title, parts), encoding="utf-8")


def _exam_parts(
    exam: Exam, rows: Sequence[MetricRow], comparisons: Sequence[Mapping[str, Any]]
) -> list[str]:
    whole = {(row["model"], row["metric"], row["k"]): row for row in rows if row["slice"] == "all"}
    models = list(dict.fromkeys(row["model"] for row in rows))
    ks = sorted({row["k"] for row in rows if row["k"] is not None})
    k = min(ks, key=lambda value: (abs(value - PREFERRED_K), value))
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    headline = [*_measured(metrics, [k], whole), *_measured(metrics, [None], whole)]
    parts = [heading(f"{exam[0]}: {exam[1]}")]
    parts.append(_model_table(f"At k = {k}", models, headline, whole))
    parts += [_bars(metric, k, models, whole) for metric in ("ndcg", "hr")]
    everything = [
        _model_table(_label(metric), models, _measured([metric], [*ks, None], whole), whole)
        for metric in metrics
    ]
    parts.append(folded("All cut-offs", "".join(everything)))
    if comparisons:
        chosen = [row for row in comparisons if row["metric"] in COMPARED and row["k"] == k]
        parts += [heading("Which model is better", 3), _comparison_table(chosen)]
        parts.append(folded("All metrics and cut-offs", _comparison_table(comparisons)))
    parts += [heading("For whom", 3), _slice_table("ndcg", k, models, rows)]
    parts.append(folded("The same by hit rate", _slice_table("hr", k, models, rows)))
    return parts


def _measured(
    metrics: Sequence[str],
    cuts: Sequence[int | None],
    whole: Mapping[tuple[str, str, int | None], MetricRow],
) -> list[tuple[str, int | None]]:
    """Return the metrics and cut-offs that exist; None is a metric's figure without a cut-off."""
    known = {(metric, k) for _, metric, k in whole}
    return [(metric, k) for metric in metrics for k in cuts if (metric, k) in known]


def _model_table(
    caption: str,
    models: Sequence[str],
    columns: Sequence[tuple[str, int | None]],
    whole: Mapping[tuple[str, str, int | None], MetricRow],
) -> str:
    body = []
    for model in models:
        cells = [Cell(model)]
        for metric, k in columns:
            rivals = [whole[m, metric, k] for m in models if (m, metric, k) in whole]
            row = whole.get((model, metric, k))
            cells.append(Cell("") if row is None else _figure(row, _is_best(row, rivals)))
        users = [whole[model, *column]["users"] for column in columns if (model, *column) in whole]
        body.append([*cells, Cell(str(max(users, default=0)))])
    header = ["model", *(_label(metric, k) for metric, k in columns), "users"]
    return table(f"{caption}; below each value its interval; the best is marked", header, body)


def _is_best(row: MetricRow, rivals: Sequence[MetricRow]) -> bool:
    known = [rival["value"] for rival in rivals if rival["value"] is not None]
    if row["value"] is None or len(known) < 2:
        return False
    return row["value"] == (min(known) if row["metric"] in LOWER_IS_BETTER else max(known))


def _bars(
    metric: str,
    k: int,
    models: Sequence[str],
    whole: Mapping[tuple[str, str, int | None], MetricRow],
) -> str:
    rows = [whole[model, metric, k] for model in models if (model, metric, k) in whole]
    bars = [
        Bar(row["model"], row["value"], row["low"], row["high"])
        for row in rows
        if row["value"] is not None
    ]
    return chart(_label(metric, k), bars) if bars else ""


def _slice_table(metric: str, k: int, models: Sequence[str], rows: Sequence[MetricRow]) -> str:
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
    caption = f"{_label(metric, k)} by part of the targets"
    return table(caption, ["slice", "users", *models], body)


def _comparison_table(comparisons: Iterable[Mapping[str, Any]]) -> str:
    body = [
        [
            Cell(f"{row['model_a']} - {row['model_b']}"),
            Cell(_label(row["metric"], row["k"])),
            Cell(f"{row['difference']:+.4f}", f"{row['low']:+.4f} to {row['high']:+.4f}"),
            Cell(_p(row["p"])),
            Cell(_p(row["p_holm"]), kind="best" if row["p_holm"] < 0.05 else ""),
            Cell(str(row["users"])),
        ]
        for row in comparisons
    ]
    header = ["models", "metric", "difference", "p", "p corrected", "users"]
    return table("Differences by user; marked where the corrected p is below .05", header, body)


def _training_table(rows: Sequence[Mapping[str, str]]) -> str:
    body = [[Cell(text) for text in row.values()] for row in rows]
    return table("Learned models; padding: places of a batch without an event", [*rows[0]], body)


def _figure(row: MetricRow, best: bool) -> Cell:
    interval = ""
    if row["low"] is not None and row["high"] is not None:
        interval = f"{_number(row['low'])} to {_number(row['high'])}"
    return Cell(_number(row["value"]), interval, "best" if best else "")


def _number(value: float | None) -> str:
    if value is None:
        return "n/a"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def _p(value: float) -> str:
    return f"{value:.4f}" if value >= 0.0001 else f"{value:.1e}"


def _label(metric: str, k: int | None = None) -> str:
    name = LABELS.get(metric, metric)
    return name if k is None else f"{name}@{k}"


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _flatten(counts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, value in counts.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            flat += _flatten(value, f"{name}: ")
        else:
            flat.append((name, value))
    return flat
