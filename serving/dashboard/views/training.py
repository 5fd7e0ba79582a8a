"""Training: the curves of the runs, what they took, and what MLflow recorded of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import polars as pl

from recsys.evaluation.measured import RunChoice
from recsys.evaluation.names import label
from serving.dashboard import figures
from serving.dashboard.address import pick
from serving.dashboard.registry import READER, Record, read_record
from serving.dashboard.scope import Scope, Setting, choose
from serving.dashboard.show import chart, missing, table
from serving.dashboard.sources import choices, epochs, run_manifest

CURVES: Final = (
    ("loss", "Training loss", "loss"),
    ("ndcg@10", "Validation NDCG@10", "NDCG@10"),
    ("events_per_second", "Throughput", "training events per second"),
    ("memory_mb", "Memory of the training process", "MB"),
    ("cpu_share", "Processor", "cores in use"),
    ("gpu_memory_mb", "Memory of the GPU", "MB"),
)


def draw(setting: Setting) -> None:
    """Draw the page."""
    import streamlit as st

    st.title("Training")
    scope = choose(setting)
    if scope is None:
        return
    runs = {run.address: run for run in choices(scope.library, scope.dataset, scope.split)}
    newest = next(iter(runs.values())).report
    shown = [run for run in runs.values() if run.report == newest]
    _curves(shown)
    _facts(shown)
    _record(setting, scope, runs)


def _curves(runs: list[RunChoice]) -> None:
    import streamlit as st

    found = {run.model: rows for run in runs if (rows := epochs(run.directory))}
    if not found:
        missing(
            "No training curves",
            "None of these models is trained by gradient, or their run directories are gone.",
        )
        return
    paint = figures.colours([run.model for run in runs])
    places = st.columns(2)
    drawn = 0
    for column, title, unit in CURVES:
        frame = _frame(found, column)
        if not len(frame):
            continue
        figure = figures.curves(frame, "epoch", unit, paint)
        if column == "loss":
            figure["layout"]["yaxis"].pop("rangemode")
        with places[drawn % 2]:
            chart(title, figure, frame, alt=f"{title} over the epochs")
        drawn += 1


def _frame(found: dict[str, list[dict[str, Any]]], column: str) -> pl.DataFrame:
    rows = [
        {"series": model, "x": int(row["epoch"]) + 1, "y": float(row[column])}
        for model, rows in found.items()
        for row in rows
        if row.get(column) is not None
    ]
    return pl.DataFrame(rows, schema={"series": pl.String, "x": pl.Int64, "y": pl.Float64})


def _facts(runs: list[RunChoice]) -> None:
    import streamlit as st

    st.subheader("What the runs took")
    rows = []
    for run in runs:
        manifest = run_manifest(run.directory)
        numbers = {
            k: v for k, v in manifest.get("metrics", {}).items() if isinstance(v, int | float)
        }
        where = None if run.directory is None else run.directory.name
        rows.append(
            {
                "model": run.model,
                "run": where or "its directory is gone",
                "epochs": manifest.get("epochs"),
                **{name: float(value) for name, value in numbers.items()},
                "seed": manifest.get("seed"),
                "code": manifest.get("code_version"),
            }
        )
    table("Runs", pl.DataFrame(rows, infer_schema_length=None))


def _record(setting: Setting, scope: Scope, runs: dict[str, RunChoice]) -> None:
    """Show what MLflow has of one run; it may take seconds to answer."""
    import streamlit as st

    st.subheader("As recorded in MLflow")
    address = pick(
        "Run", "run", list(runs), show=lambda a: f"{runs[a].model} · {runs[a].report.id}"
    )
    run = runs[address]
    run_id = run_manifest(run.directory).get("mlflow_run")
    if not run_id:
        missing(
            "This run was not recorded", "It was fitted while tracking was off or not reachable."
        )
        return
    known = READER.ask(read_record, setting.tracking, str(run_id))

    @st.fragment(run_every=None if known is not None else 0.7)
    def record() -> None:
        found = READER.ask(read_record, setting.tracking, str(run_id))
        if found is None:
            st.caption("asking MLflow ...")
            return
        if known is None:
            st.rerun()
        _show_record(found, str(run_id), run.directory)

    record()


def _show_record(found: Record, run_id: str, directory: Path | None) -> None:
    import streamlit as st

    if found.problem is not None:
        missing("MLflow does not have it", found.problem)
        return
    st.caption(f"run {run_id}" + ("" if directory is None else f" · {directory}"))
    left, right = st.columns(2)
    with left:
        rows = sorted(found.params.items())
        table("Parameters", _pairs(rows), height=320)
    with right:
        tags = sorted((k, v) for k, v in found.tags.items() if not k.startswith("mlflow."))
        table("Hashes and tags", _pairs(tags), height=320)
    metrics = [(_metric_name(name), value) for name, value in sorted(found.metrics.items())]
    schema = {"metric": pl.String, "value": pl.Float64}
    table("Metrics", pl.DataFrame(metrics, schema=schema, orient="row"), height=320)


def _pairs(rows: list[tuple[str, str]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"name": pl.String, "value": pl.String}, orient="row")


def _metric_name(name: str) -> str:
    """Return a metric as the other pages call it: `test/ndcg_at_10` is test NDCG@10."""
    split, _, metric = name.rpartition("/")
    word, _, k = metric.partition("_at_")
    if k.isdigit():
        return f"{split} {label(word, int(k))}".strip()
    return name
