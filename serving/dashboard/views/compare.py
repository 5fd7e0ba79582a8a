"""Compare: two to six runs on the same targets, from the curve to the single user won or lost."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from recsys.config import EvaluationConfig
from recsys.errors import ArtifactError
from recsys.evaluation.measured import RunChoice, rows_of
from recsys.evaluation.metrics import ACCURACY
from recsys.evaluation.names import label
from recsys.evaluation.paired import compared, names, win_rows
from serving.dashboard import figures
from serving.dashboard.address import pick_some
from serving.dashboard.scope import Scope, Setting, choose
from serving.dashboard.show import chart, missing, table
from serving.dashboard.show import figures as shown_figures
from serving.dashboard.sources import as_of, choices, part_rows

MOST_RUNS = 6
FIRST_SHOWN = 4


def draw(setting: Setting) -> None:
    """Draw the page."""
    import streamlit as st

    st.title("Compare")
    scope = choose(setting, accuracy=True)
    if scope is None:
        return
    runs = _runs(scope)
    if len(runs) < 2:
        missing(
            "Choose two to six runs", "They must have been measured on this data set and split."
        )
        return
    called = names(runs)
    paint = figures.colours(called)
    _curves(scope, runs, called, paint)
    _differences(scope, runs)
    _slices(scope, runs, called, paint)
    _costs(scope, runs, called, paint)


def _runs(scope: Scope) -> list[RunChoice]:
    """Show the choice of runs; at first those of the newest report."""
    every = {run.address: run for run in choices(scope.library, scope.dataset, scope.split)}
    newest = [a for a, run in every.items() if run.report == next(iter(every.values())).report]
    chosen = pick_some(
        "Runs (two to six)",
        "runs",
        list(every),
        newest[:FIRST_SHOWN],
        most=MOST_RUNS,
        show=lambda address: _title(every[address]),
    )
    return [every[address] for address in chosen]


def _title(run: RunChoice) -> str:
    return f"{run.model} · {run.report.id} · {as_of(run.report)}"


def _together(runs: Sequence[RunChoice], called: Sequence[str]) -> pl.DataFrame:
    """Return the metric rows of all runs, `series` telling them apart."""
    frames = [
        rows_of(run).with_columns(series=pl.lit(name))
        for run, name in zip(runs, called, strict=True)
    ]
    return pl.concat(frames)


def _curves(
    scope: Scope, runs: Sequence[RunChoice], called: Sequence[str], paint: dict[str, str]
) -> None:
    import streamlit as st

    st.subheader("Metric by cut-off")
    rows = _together(runs, called).filter(
        (pl.col("slice") == "all") & pl.col("k").is_not_null() & pl.col("value").is_not_null()
    )
    first = scope.metric if scope.metric != "r_precision" else "ndcg"
    second = "hr" if first != "hr" else "ndcg"
    for place, metric in zip(st.columns(2), (first, second), strict=True):
        mine = rows.filter(pl.col("metric") == metric)
        drawn = mine.select("series", "low", "high", "users", x="k", y="value")
        if len(drawn):
            ks = sorted(drawn["x"].unique().to_list())
            ticks = {"type": "log", "tickvals": ks, "ticktext": [str(k) for k in ks]}
            figure = figures.curves(drawn, "k", label(metric), paint, xaxis=ticks)
            with place:
                name = f"{label(metric)} by cut-off"
                chart(name, figure, drawn, alt=f"{name} with intervals, a run a line")
    columns = ["series", "metric", "k", "value", "low", "high", "users"]
    wide = rows.filter(pl.col("metric").is_in(ACCURACY)).select(columns).rename({"series": "run"})
    at_k = wide.filter(pl.col("k") == scope.k) if scope.k is not None else wide
    table("Figures at the chosen cut-off", at_k, columns=_exact("value", "low", "high"))


def _exact(*columns: str) -> dict[str, object]:
    return {name: shown_figures() for name in columns}


def _differences(scope: Scope, runs: Sequence[RunChoice]) -> None:
    import streamlit as st

    st.subheader(f"Paired differences, {scope.label}")
    try:
        found = compared(runs, scope.key, EvaluationConfig())
        won = win_rows(runs, scope.key)
    except ArtifactError as error:
        missing("These runs cannot be paired", str(error))
        return
    rows = pl.DataFrame(found).with_columns(pair=pl.format("{} - {}", "model_a", "model_b"))
    marks = rows.select(
        "low", "high", label="pair", series=pl.lit("difference"), value="difference"
    )
    left, right = st.columns(2)
    with left:
        figure = figures.intervals(marks, f"difference of {scope.label}", {})
        chart("Paired differences", figure, marks, alt="Differences by user with intervals")
    with right:
        parts = ("better", "equal", "worse")
        figure = figures.shares(won, "pair", parts)
        chart(
            "Users won and lost", figure, won, alt="Shares of users served better, equally, worse"
        )
    listed = rows.select("pair", "difference", "low", "high", "p", "p_holm", "users")
    table(
        "Differences with p-values",
        listed,
        columns=_exact("difference", "low", "high", "p", "p_holm"),
    )
    st.caption(
        "Difference of the means by user; paired bootstrap interval; two-sided sign-flip test, "
        f"corrected by Holm over the {len(rows)} pairs shown. Beyond 20,000 users the normal limits."
    )


def _slices(
    scope: Scope, runs: Sequence[RunChoice], called: Sequence[str], paint: dict[str, str]
) -> None:
    import streamlit as st

    st.subheader("For whom")
    rows = _together(runs, called).filter(
        (pl.col("metric") == scope.metric)
        & (pl.col("k").is_null() if scope.k is None else pl.col("k") == scope.k)
        & pl.col("value").is_not_null()
    )
    marks = rows.select(
        "series", "value", "low", "high", "users", label=pl.format("{} ({})", "slice", "users")
    )
    figure = figures.intervals(marks, scope.label, paint, zero=True)
    name = f"{scope.label} by part of the targets"
    chart(name, figure, marks, alt=f"{name}, a run a colour")


def _costs(
    scope: Scope, runs: Sequence[RunChoice], called: Sequence[str], paint: dict[str, str]
) -> None:
    import streamlit as st

    st.subheader("At what cost")
    rows = []
    for run, name in zip(runs, called, strict=True):
        found = part_rows(
            run.report, "costs.json", dataset=run.dataset, split=run.split, model=run.model
        )
        value = rows_of(run).filter(
            (pl.col("metric") == scope.metric)
            & (pl.col("k").is_null() if scope.k is None else pl.col("k") == scope.k)
            & (pl.col("slice") == "all")
        )["value"]
        if found and len(value):
            keys = ("train_seconds", "size_mb", "p50_ms", "p95_ms", "threads")
            rows.append({"run": name, scope.label: value[0], **{k: found[0].get(k) for k in keys}})
    if not rows:
        missing(
            "No costs were measured", "`recsys evaluate` measures them; these reports are older."
        )
        return
    frame = pl.DataFrame(rows)
    for place, (column, words) in zip(
        st.columns(2),
        (("p50_ms", "one list of 100 on the CPU, ms"), ("train_seconds", "training, seconds")),
        strict=True,
    ):
        drawn = frame.filter(pl.col(column) > 0).select(
            series="run", text="run", x=column, y=scope.label
        )
        if len(drawn):
            figure = figures.scatter(drawn, words, scope.label, paint, log_x=True)
            figure["layout"]["showlegend"] = False
            with place:
                name = f"Quality beside {words.split(',')[0]}"
                chart(name, figure, drawn, alt=f"{scope.label} over {words}")
    table("Costs", frame, columns={scope.label: shown_figures()})
