"""The report of an evaluation as one HTML file that opens anywhere and says what it stands on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from recsys.evaluation.background import Background
from recsys.evaluation.data_charts import (
    data_figures,
    map_figure,
    retrieval_figures,
    training_figures,
)
from recsys.evaluation.metric_charts import (
    beyond,
    by_slice,
    cost,
    curves,
    exposed,
    paired,
    standing,
    won,
)
from recsys.evaluation.names import label, nearest_k
from recsys.evaluation.order_page import order_parts
from recsys.evaluation.page import Cell, facts, folded, heading, page, paragraph, table
from recsys.evaluation.report_tables import (
    comparison_table,
    cost_table,
    drift_table,
    example_table,
    flatten,
    measured,
    model_table,
    plain,
    slice_table,
    training_table,
)
from recsys.evaluation.svg import Figure, drawing

if TYPE_CHECKING:
    from recsys.evaluation.compare import Comparison
    from recsys.evaluation.evaluate import MetricRow

COMPARED: Final = ("ndcg", "hr", "mrr")
CHARTED: Final = "ndcg"

NOTES: Final = """\
Every target is ranked against the whole catalogue, less what the exclusion rule forbids; items with \
equal scores share the mean of their ranks. Figures are means over each user's (list's) targets, then \
over users. HR: a relevant item is among the first k. Recall: found / relevant. Precision: found / k. \
NDCG: binary gains, log2 discount, ideal over min(k, relevant). MAP: over min(k, relevant). MRR: one \
over the first relevant rank, 0 beyond k. R-precision: found among the first R / R, with R relevant. \
Next-item HR: the very next item of the list is among the first k. Recall of the next k: found among \
the first k, of the next k. Clicks: tens of items looked through before the first hit, 51 beyond 500. \
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
    background: Background | None = None,
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
        background: what is drawn around the metrics.
    """
    background = background or Background()
    parts = [heading(title, 1), facts(about.items())]
    for exam in dict.fromkeys((row["dataset"], row["split"]) for row in rows):
        mine = [row for row in rows if (row["dataset"], row["split"]) == exam]
        compared = [
            row for row in comparisons if (row.get("dataset", exam[0]), row["split"]) == exam
        ]
        parts += _exam_parts(exam, mine, compared, background)
    if background.order is not None:
        parts += [heading("Does order matter?"), *order_parts(background.order)]
    if training or background.histories:
        parts += [heading("Training"), *([training_table(training)] if training else [])]
        parts.append(drawing(training_figures(background.histories)))
    parts += _background_parts(background)
    for name, counts in (leakage or {}).items():
        cells = [[Cell(key), Cell(plain(value))] for key, value in flatten(counts)]
        parts += [
            heading(f"Leakage: {name}"),
            table("What the held-out part shares with training", ["", "value"], cells),
        ]
    parts += [heading("How to read this"), paragraph(NOTES)]
    path.write_text(page(title, parts), encoding="utf-8")


def _exam_parts(
    exam: Exam,
    rows: Sequence[MetricRow],
    comparisons: Sequence[Mapping[str, Any]],
    background: Background,
) -> list[str]:
    whole = {(row["model"], row["metric"], row["k"]): row for row in rows if row["slice"] == "all"}
    models = list(dict.fromkeys(row["model"] for row in rows))
    ks = sorted({row["k"] for row in rows if row["k"] is not None})
    k = nearest_k(ks)
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    headline = [*measured(metrics, [k], whole), *measured(metrics, [None], whole)]
    everything = [
        model_table(label(metric), models, measured([metric], [*ks, None], whole), whole)
        for metric in metrics
    ]
    parts = [
        heading(f"{exam[0]}: {exam[1]}"),
        model_table(f"At k = {k}", models, headline, whole),
        drawing([*_some(*(standing(rows, metric, k) for metric in ("ndcg", "hr"))), *curves(rows)]),
        folded("All cut-offs", "".join(everything)),
    ]
    if comparisons:
        chosen = [row for row in comparisons if row["metric"] in COMPARED and row["k"] == k]
        drawn = [paired(comparisons, CHARTED, k), won(_of(background.wins, exam), CHARTED, k)]
        parts += [heading("Which model is better", 3), drawing(_some(*drawn))]
        parts.append(comparison_table(chosen))
        parts.append(folded("All metrics and cut-offs", comparison_table(comparisons)))
    parts += [heading("For whom", 3), drawing(_some(by_slice(rows, CHARTED, k)))]
    parts.append(slice_table(CHARTED, k, models, rows))
    parts.append(folded("The same by hit rate", slice_table("hr", k, models, rows)))
    return parts + _beside_parts(exam, rows, background, k)


def _beside_parts(
    exam: Exam, rows: Sequence[MetricRow], background: Background, k: int
) -> list[str]:
    """Return what belongs to an exam beside its accuracy: cost, bias, users looked at."""
    parts = []
    if costs := _of(background.costs, exam):
        parts += [heading("At what cost", 3), drawing(cost(rows, costs, CHARTED, k))]
        parts.append(cost_table(costs))
    figures = [*beyond(rows, k), *_some(exposed(_of(background.exposure, exam), k))]
    if figures:
        parts += [heading("Beyond accuracy", 3), drawing(figures)]
    if examples := background.examples.get(exam):
        parts.append(heading("Looked inside", 3))
        parts += [folded(example.title, example_table(example)) for example in examples]
    return parts


def _background_parts(background: Background) -> list[str]:
    """Return what belongs to the whole report: search, map, data."""
    parts = []
    if background.retrieval:
        drawn = [
            f for name, rows in background.retrieval.items() for f in retrieval_figures(name, rows)
        ]
        parts += [heading("Retrieval"), drawing(drawn)]
    if background.maps:
        maps = [map_figure(name, m.places, m.attribute) for name, m in background.maps.items()]
        parts += [heading("Embedding map"), drawing(maps)]
    for name, found in background.profiles.items():
        parts += [
            heading(f"Data: {name}"),
            drawing(data_figures(found)),
            drift_table(found["drift"]),
        ]
    return parts


def _of(rows: Sequence[Mapping[str, Any]], exam: Exam) -> list[Mapping[str, Any]]:
    return [row for row in rows if (row["dataset"], row["split"]) == exam]


def _some(*figures: Figure | None) -> list[Figure]:
    return [figure for figure in figures if figure is not None]
