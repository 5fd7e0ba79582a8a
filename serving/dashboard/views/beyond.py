"""Beyond accuracy: how much of the catalogue is shown, how new, how varied, how biased to the popular."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import polars as pl

from recsys.evaluation.names import label, nearest_k
from recsys.evaluation.reports import EXPOSURE, FRONTIER, Report
from serving.dashboard import figures
from serving.dashboard.scope import Scope, Setting, choose
from serving.dashboard.show import chart, missing, table
from serving.dashboard.sources import ks_of, part, part_rows

BEYOND: Final = ("coverage", "ild", "novelty", "gini")
WORDS: Final = {
    "coverage": "share of the catalogue in at least one list; higher shows more of it",
    "ild": "mean cosine distance of a list's pairs; higher is more varied",
    "novelty": "bits of surprise an item carries; higher is less popular",
    "gini": "inequality of how often items are listed; lower spreads wider",
}
TAKEN: Final = "what was taken"


def draw(setting: Setting) -> None:
    """Draw the page."""
    import streamlit as st

    st.title("Beyond accuracy")
    scope = choose(setting)
    if scope is None:
        return
    report = scope.library.of_dataset(scope.dataset)[0]
    rows = scope.rows.filter(
        (pl.col("report") == report.id)
        & (pl.col("dataset") == scope.dataset)
        & (pl.col("split") == scope.split)
        & (pl.col("slice") == "all")
    )
    k = scope.k if scope.k is not None else nearest_k(ks_of(rows["k"].to_list()))
    models = rows["model"].unique(maintain_order=True).to_list()
    paint = figures.colours(models)
    _figures(rows, k, paint)
    _tradeoffs(rows, k, paint)
    _frontier(report, scope, k)
    _bias(report, scope, k, models, paint)


def _figures(rows: pl.DataFrame, k: int, paint: dict[str, str]) -> None:
    import streamlit as st

    known = [metric for metric in BEYOND if metric in rows["metric"].unique().to_list()]
    if not known:
        missing(
            "No figures beyond accuracy", "`recsys evaluate` writes them; this report has none."
        )
        return
    places = st.columns(2)
    for i, metric in enumerate(known):
        mine = rows.filter((pl.col("metric") == metric) & (pl.col("k") == k))
        marks = mine.select("value", "low", "high", "users", label="model", series="model")
        if not len(marks):
            continue
        with places[i % 2]:
            figure = figures.intervals(marks, label(metric, k), paint, zero=False, apart=False)
            figure["layout"]["showlegend"] = False
            alt = f"{label(metric, k)} of every model"
            chart(label(metric, k), figure, marks, alt=alt, words=WORDS[metric])
    absent = [label(metric) for metric in BEYOND if metric not in known]
    if absent:
        st.caption(f"Not measured: {', '.join(absent)} (no model of the report has item vectors).")


def _tradeoffs(rows: pl.DataFrame, k: int, paint: dict[str, str]) -> None:
    import streamlit as st

    st.subheader(f"{label('ndcg', k)} beside it")
    at_k = rows.filter(pl.col("k") == k)
    accuracy = at_k.filter(pl.col("metric") == "ndcg").select("model", y="value")
    places, drawn = st.columns(2), 0
    for metric in ("coverage", "ild"):
        other = at_k.filter(pl.col("metric") == metric).select("model", x="value")
        frame = accuracy.join(other, on="model", maintain_order="left").drop_nulls()
        if not len(frame):
            continue
        frame = frame.select("x", "y", series="model", text="model")
        figure = figures.scatter(frame, label(metric, k), label("ndcg", k), paint)
        figure["layout"]["showlegend"] = False
        name = f"{label('ndcg', k)} over {label(metric, k).lower()}"
        with places[drawn]:
            chart(name, figure, frame, alt=name)
        drawn += 1


def _frontier(report: Report, scope: Scope, k: int) -> None:
    """Show accuracy against diversity over the strength of re-ranking, where that was swept."""
    import streamlit as st

    st.subheader("Accuracy-diversity frontier")
    rows = frontier_rows(part(report, FRONTIER), scope.dataset, scope.split)
    if not rows:
        missing(
            "No frontier was measured",
            f"A report with {FRONTIER} has one: the accuracy and diversity of lists that were re-ranked "
            "with growing weight on diversity.",
        )
        return
    frame = pl.DataFrame(rows, infer_schema_length=None)
    numbers = [n for n, kind in frame.schema.items() if kind.is_numeric() and n != "k"]
    accuracy = next((n for n in numbers if n.startswith(("ndcg", "recall", "hr"))), None)
    variety = next((n for n in numbers if n.startswith(("ild", "diversity", "coverage"))), None)
    if accuracy is not None and variety is not None:
        series = "model" if "model" in frame.columns else None
        knob = next((n for n in numbers if n not in (accuracy, variety)), None)
        drawn = frame.select(
            x=variety,
            y=accuracy,
            series=pl.lit("lists") if series is None else pl.col(series),
            text=pl.lit("") if knob is None else pl.format(f"{knob} {{}}", knob),
        ).sort("series", "x")
        names = drawn["series"].unique(maintain_order=True).to_list()
        paint = figures.colours(names)
        figure = figures.scatter(drawn, variety, accuracy, paint, joined=names, labelled=False)
        chart("Frontier", figure, drawn, alt=f"{accuracy} over {variety}")
    table("Frontier rows", frame)


def frontier_rows(found: Any, dataset: str, split: str) -> list[dict[str, Any]]:
    """Return the rows of a frontier file that belong to a data set and split; none of another shape.

    It is a list of rows, or a mapping with the rows under `rows` or `points`; a row without data set or
    split belongs to all.
    """
    if isinstance(found, dict):
        found = found.get("rows", found.get("points"))
    if not isinstance(found, Sequence) or isinstance(found, str):
        return []
    rows = [row for row in found if isinstance(row, dict)]
    here = {"dataset": dataset, "split": split}
    return [
        {k: v for k, v in row.items() if not isinstance(v, dict | list)}
        for row in rows
        if all(row.get(name, value) == value for name, value in here.items())
    ]


def _bias(report: Report, scope: Scope, k: int, models: list[str], paint: dict[str, str]) -> None:
    import streamlit as st

    st.subheader(f"Popularity bias of the first {k} places")
    rows = part_rows(report, EXPOSURE, dataset=scope.dataset, split=scope.split)
    rows = [row for row in rows if row.get("k") == k]
    if not rows:
        missing(
            "Popularity bias was not measured", "`recsys evaluate` writes it; this report is older."
        )
        return
    frame = pl.DataFrame(rows)
    groups = frame["group"].unique(maintain_order=True).to_list()
    first = frame.filter(pl.col("model") == models[0])
    series = {TAKEN: first["target_share"].to_list()}
    for model in models:
        series[model] = frame.filter(pl.col("model") == model)["list_share"].to_list()
    figure = figures.columns(
        series,
        groups,
        title_x="items by frequency, each group a tenth of the training events; cold: none",
        title_y="share",
        paint={TAKEN: "#9aa7b6", **paint},
        stacked=False,
        axes={"type": "category"},
    )
    figure["layout"]["yaxis"]["tickformat"] = ".0%"
    name = "Popularity bias"
    chart(name, figure, frame, alt="Shares of list places by group of items, beside what was taken")
    st.caption(
        "Group 1 has the few most frequent items. Lists without bias would give each group what was taken."
    )
