"""Retrieval: what each kind of index finds and costs on a model's own vectors, as measured by a stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import polars as pl

from recsys.evaluation.reports import read_json
from serving.dashboard import figures
from serving.dashboard.address import pick
from serving.dashboard.indexes import TRADEOFF, indexed, kinds
from serving.dashboard.scope import Setting, choose
from serving.dashboard.show import chart, missing, table

CHOSEN: Final = "chosen"
WORDS: Final = {
    "p50_ms": "milliseconds of one query (median)",
    "memory_mb": "memory of vectors and structure, MB",
}
PAINT: Final = {
    **figures.colours(["exact", "flat", "hnsw", "ivf_flat", "ivf_pq", "pq_scan"]),
    CHOSEN: "#c0392b",
}


def draw(setting: Setting) -> None:
    """Draw the page."""
    import streamlit as st

    st.title("Retrieval")
    scope = choose(setting)
    if scope is None:
        return
    directories = indexed(scope.library, scope.dataset, scope.split)
    if not directories:
        missing(
            "No model of this data set is indexed",
            "Only models with item vectors have an index; `recsys index` builds it.",
        )
        return
    model = pick("Model", "model", list(directories))
    _one_index(directories[model])


def _one_index(directory: Path) -> None:
    import streamlit as st

    manifest = read_json(directory / "manifest.json") or {}
    rows = kinds(directory)
    cards = st.columns(4)
    recall = manifest.get("recall") or {}
    cards[0].metric("chosen index", str(manifest.get("kind", "unknown")))
    value = f"{recall['recall']:.4f}" if "recall" in recall else "not measured"
    cards[1].metric(f"its recall@{recall.get('k', '-')}", value)
    cards[2].metric("items", f"{manifest.get('items', 0):,}")
    cards[3].metric("width of a vector", str(manifest.get("width", "-")))
    if not rows:
        missing(
            "The kinds of index were not measured",
            f"{directory / TRADEOFF} is missing: the index was built by older code, FAISS is not "
            "installed, or the catalogue is large; `index.tradeoff=on` with `recsys index` measures.",
        )
        return
    frame = pl.DataFrame(rows)
    for place, column in zip(st.columns(2), WORDS, strict=True):
        drawn = _points(frame, column)
        joined = [name for name in drawn["series"].unique().to_list() if name != CHOSEN]
        k = rows[0]["k"]
        figure = figures.scatter(
            drawn, WORDS[column], f"recall@{k}", PAINT, joined=joined, log_x=column == "p50_ms"
        )
        _mark(figure)
        with place:
            name = f"Recall beside {WORDS[column].split(' of ')[0]}"
            chart(
                name, figure, drawn, alt=f"recall@{k} over {WORDS[column]}, a kind of index a line"
            )
    table("Kinds of index", frame)
    first = rows[0]
    st.caption(
        f"{first['queries']:,} queries of validation histories, k = {first['k']}, {first['threads']} "
        "thread(s); latency of single queries, throughput of all together. Scores are always exact "
        "inner products: an index only proposes candidates. Numbers at the points: ef_search of HNSW, "
        "cells visited of IVF."
    )


def _points(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    kind = pl.when("chosen").then(pl.lit(CHOSEN)).otherwise("kind")
    width = pl.col("setting").str.extract(r"(\d+)$").fill_null("")
    text = pl.when("chosen").then(pl.format("{} {}", "kind", "setting")).otherwise(width)
    return frame.select(x=column, y="recall", series=kind, text=text.str.strip_chars()).sort(
        "series", "y", maintain_order=True
    )


def _mark(figure: figures.Figure) -> None:
    """Make the chosen point a star in front of the others."""
    traces: list[dict[str, Any]] = figure["data"]
    traces.sort(key=lambda trace: trace["name"] == CHOSEN)
    for trace in traces:
        if trace["name"] == CHOSEN:
            trace["marker"] |= {"symbol": "star", "size": 18}
            trace["textposition"] = "bottom center"
