"""Overview: how every model stands on every data set, and what is in production."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl

from recsys.config import EvaluationConfig
from recsys.errors import ArtifactError
from recsys.evaluation.measured import RunChoice, judges, rows_of
from recsys.evaluation.names import number, p_text
from recsys.evaluation.paired import compared
from serving.dashboard.address import switch
from serving.dashboard.figures import colours, intervals
from serving.dashboard.registry import (
    CANDIDATE,
    CHAMPION,
    READER,
    SINCE,
    Registry,
    Version,
    read_registry,
)
from serving.dashboard.scope import Scope, Setting, choose
from serving.dashboard.show import chart, figures, missing, table
from serving.dashboard.sources import choices, standings


def draw(setting: Setting) -> None:
    """Draw the page."""
    import streamlit as st

    st.title("Overview")
    scope = choose(setting, dataset=False)
    if scope is None:
        return
    n = len(scope.library.reports)
    st.caption(f"{n:,} {'report' if n == 1 else 'reports'} below {scope.library.output}")
    _production(setting, scope)
    _standings(scope)


def _standings(scope: Scope) -> None:
    import streamlit as st

    left, right = st.columns([3, 1], vertical_alignment="bottom")
    left.subheader(f"{scope.label}, {scope.split}")
    older = switch("older reports too", "older", place=right)
    rows = standings(scope.rows, scope.split, scope.metric, scope.k, older=older)
    if not len(rows):
        missing(f"No {scope.label} on {scope.split}", "Choose another metric, cut-off or split.")
        return
    newest = standings(scope.rows, scope.split, scope.metric, scope.k)
    drawn = newest.filter(pl.col("value").is_not_null()).head(60)
    marks = drawn.select(
        label=pl.format("{} · {}", "dataset", "model"),
        series="dataset",
        value="value",
        low="low",
        high="high",
    )
    paint = colours(marks["series"].unique(maintain_order=True).to_list())
    figure = intervals(marks, scope.label, paint, apart=False)
    chart(
        "Standings", figure, marks, alt=f"{scope.label} of every data set and model with intervals"
    )
    exact = {name: figures() for name in ("value", "low", "high")}
    table("Every data set and model", rows, columns=exact)


def _production(setting: Setting, scope: Scope) -> None:
    """Show what the registry calls champion and candidate; MLflow may take seconds to answer."""
    import streamlit as st

    known = READER.ask(read_registry, setting.tracking)

    @st.fragment(run_every=None if known is not None else 0.7)
    def production() -> None:
        registry = READER.ask(read_registry, setting.tracking)
        if registry is None:
            st.caption("In production: asking the registry ...")
            return
        if known is None:
            st.rerun()
        _registry(registry, scope)

    production()


def _registry(registry: Registry, scope: Scope) -> None:
    import streamlit as st

    st.subheader("In production")
    if registry.problem is not None:
        missing("The registry has nothing to show", registry.problem)
        return
    models = list(dict.fromkeys(version.model for version in registry.versions))
    if not models:
        missing(
            "No bundle is registered", "`recsys run` ends by registering the best model's bundle."
        )
        return
    for at in range(0, min(len(models), 12), 2):
        for place, model in zip(st.columns(2), models[at : at + 2], strict=False):
            with place.container(border=True):
                _model(registry, model, scope)


def _model(registry: Registry, model: str, scope: Scope) -> None:
    import streamlit as st

    champion, candidate = registry.named(model, CHAMPION), registry.named(model, CANDIDATE)
    st.markdown(f"**{model}**")
    left, right = st.columns(2)
    with left:
        _version("champion", champion, model, scope)
        if champion is None:
            st.caption(
                f"`recsys promote` with the configuration of {model} makes the candidate the first."
            )
    with right:
        if candidate is not None and champion is not None and candidate.version == champion.version:
            st.metric("candidate", "the champion")
        else:
            _version("candidate", candidate, model, scope)
    if champion is not None and candidate is not None and champion.version != candidate.version:
        st.markdown(_difference(champion, candidate, model, scope))


def _version(alias: str, version: Version | None, model: str, scope: Scope) -> None:
    import streamlit as st

    if version is None:
        st.metric(alias, "none")
        return
    run = run_of(version, model, scope)
    value = None if run is None else _value(run, scope)
    name = str(version.info.get("model", f"version {version.version}"))
    st.metric(f"{alias}: {name}", "not measured" if value is None else number(value))
    when = version.tags.get(SINCE) if alias == CHAMPION else None
    since = when or datetime.fromtimestamp(version.created, UTC).strftime("%Y-%m-%d %H:%M")
    when = since[:16].replace("T", " ")
    st.caption(f"{scope.label}, {scope.split} · version {version.version} · since {when}")


def run_of(version: Version, model: str, scope: Scope) -> RunChoice | None:
    """Return the newest measurement that judges a registered bundle."""
    for report in scope.library.reports:
        if report.experiment == model:
            for dataset in dict.fromkeys((model, *scope.rows["dataset"].unique().to_list())):
                for choice in choices(scope.library, dataset, scope.split):
                    if judges(choice, version.info):
                        return choice
            return None
    return None


def _value(run: RunChoice, scope: Scope) -> float | None:
    rows = rows_of(run).filter(
        (pl.col("metric") == scope.metric)
        & (pl.col("k").is_null() if scope.k is None else pl.col("k") == scope.k)
        & (pl.col("slice") == "all")
    )
    return rows["value"].item() if len(rows) == 1 else None


def _difference(champion: Version, candidate: Version, model: str, scope: Scope) -> str:
    """Return in words whether the candidate differs from the champion."""
    pair = run_of(candidate, model, scope), run_of(champion, model, scope)
    if pair[0] is None or pair[1] is None:
        return "One of the two was not measured here, so they cannot be compared."
    try:
        [found] = compared([pair[0], pair[1]], scope.key, EvaluationConfig())
    except (ArtifactError, ValueError) as error:
        return f"They cannot be compared: {error}"
    sure = found["p_holm"] < 0.05
    verdict = "no difference shown"
    if sure:
        verdict = "candidate better" if found["difference"] > 0 else "candidate worse"
    return (
        f"candidate - champion: **{found['difference']:+.4f}** [{found['low']:+.4f}, "
        f"{found['high']:+.4f}], p = {p_text(found['p'])}, {found['users']:,} users: **{verdict}**"
    )
