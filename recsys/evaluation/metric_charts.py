"""Charts of what was measured: how good, how different, for whom, at what cost, beyond accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from recsys.evaluation.names import label
from recsys.evaluation.svg import (
    Cloud,
    Dot,
    Figure,
    Line,
    Shares,
    Stack,
    bars,
    dots,
    lines,
    points,
    shares,
)
from recsys.evaluation.svg.axis import linear, logarithmic

Row = Mapping[str, Any]
CURVES: Final = ("ndcg", "hr", "recall", "mrr")
BEYOND: Final = ("coverage", "ild", "novelty", "gini")
SLICE_ORDER: Final = ("all", "history", "item", "user", "gaps")


def curves(rows: Sequence[Row]) -> list[Figure]:
    """Return a chart of each accuracy metric over its cut-offs, a model a line, intervals as bands."""
    figures = []
    for metric in CURVES:
        mine = [r for r in _whole(rows) if r["metric"] == metric and r["k"] is not None]
        series = []
        for model in _models(mine):
            own = sorted((r for r in mine if r["model"] == model), key=lambda r: int(r["k"]))
            band = [(r["low"], r["high"]) for r in own if r["low"] is not None]
            places = [(float(r["k"]), r["value"]) for r in own]
            series.append(Line(model, places, band if len(band) == len(own) else None))
        ks = sorted({float(r["k"]) for r in mine})
        if len(ks) < 2:
            continue
        x = logarithmic(ks, "k")
        x = type(x)("k", x.low, x.high, tuple((k, f"{k:g}") for k in ks), log=True)
        reach = [b for s in series for pair in (s.band or s.points) for b in pair[-2:]]
        values = [v for s in series for _, v in s.points]
        reach = [b for b in reach if b <= max(values) * 2]
        figures.append(
            lines(
                f"{label(metric)}@k", series, x, linear([*values, *reach], label(metric), zero=True)
            )
        )
    return figures


def standing(rows: Sequence[Row], metric: str, k: int | None) -> Figure | None:
    """Return every model's value of one metric with its interval."""
    mine = [r for r in _whole(rows) if (r["metric"], r["k"]) == (metric, k)]
    if not mine:
        return None
    marks = [Dot(r["model"], "all", r["value"], r["low"], r["high"]) for r in mine]
    return dots(f"{label(metric, k)} with intervals", marks, label(metric, k), zero=True)


def paired(comparisons: Iterable[Row], metric: str, k: int | None) -> Figure | None:
    """Return the paired differences of one metric, with intervals, around zero."""
    mine = [r for r in comparisons if (r["metric"], r["k"]) == (metric, k)]
    if not mine:
        return None
    marks = [
        Dot(f"{r['model_a']} - {r['model_b']}", "all", r["difference"], r["low"], r["high"])
        for r in mine
    ]
    title = f"Differences of {label(metric, k)} by user"
    return dots(title, marks, f"difference of {label(metric, k)}", zero=True)


def won(wins: Iterable[Row], metric: str, k: int | None) -> Figure | None:
    """Return the shares of users that the first model of each pair serves better, equally, worse."""
    mine = [r for r in wins if (r["metric"], r["k"]) == (metric, k)]
    if not mine:
        return None
    names = ("better", "worse", "equal")
    rows = []
    for row in mine:
        total = max(1, sum(row[name] for name in names))
        parts = [row[name] / total for name in names]
        rows.append(Shares(f"{row['model_a']} - {row['model_b']}", parts))
    return shares(f"Users won and lost, {label(metric, k)}", rows, names, "share of users")


def by_slice(rows: Sequence[Row], metric: str, k: int | None) -> Figure | None:
    """Return one metric in every slice of the targets, a model a colour."""
    mine = [r for r in rows if (r["metric"], r["k"]) == (metric, k) and r["value"] is not None]
    if not mine:
        return None
    order = sorted(mine, key=lambda r: SLICE_ORDER.index(r["slice"].split()[0]))
    marks = [
        Dot(f"{r['slice']} ({r['users']:,})", r["model"], r["value"], r["low"], r["high"])
        for r in order
    ]
    return dots(f"{label(metric, k)} by part of the targets (users)", marks, label(metric, k))


def cost(rows: Sequence[Row], costs: Sequence[Row], metric: str, k: int | None) -> list[Figure]:
    """Return quality over the latency of one list and over the time of training."""
    quality = {r["model"]: r["value"] for r in _whole(rows) if (r["metric"], r["k"]) == (metric, k)}
    figures = []
    for column, title in (
        ("p50_ms", "one list of 100 on the CPU, ms (median)"),
        ("train_seconds", "training, seconds"),
    ):
        known = [c for c in costs if c.get(column) and c["model"] in quality]
        if not known:
            continue
        clouds = [Cloud("", [(c[column], quality[c["model"]], c["model"]) for c in known])]
        values = [y for _, y, _ in clouds[0].points]
        x = logarithmic([c[column] for c in known], title)
        y = linear(values, label(metric, k), zero=True)
        figures.append(points(f"Quality beside cost: {title.split(',')[0]}", clouds, x, y))
    return figures


def beyond(rows: Sequence[Row], k: int) -> list[Figure]:
    """Return accuracy (NDCG@k) over each figure beyond accuracy at the same k."""
    whole = {(r["model"], r["metric"]): r["value"] for r in _whole(rows) if r["k"] == k}
    figures = []
    for metric in BEYOND:
        known = [
            (whole[m, metric], whole[m, "ndcg"], m)
            for m in _models(rows)
            if (m, metric) in whole and (m, "ndcg") in whole
        ]
        if known:
            x = linear([a for a, _, _ in known], label(metric, k))
            y = linear([b for _, b, _ in known], label("ndcg", k), zero=True)
            title = f"{label('ndcg', k)} beside {label(metric, k).lower()}"
            figures.append(points(title, [Cloud("", known)], x, y))
    return figures


def exposed(exposure: Sequence[Row], k: int) -> Figure | None:
    """Return how the list places spread over items from the most frequent to the cold."""
    mine = [r for r in exposure if r["k"] == k]
    if not mine:
        return None
    groups = list(dict.fromkeys(r["group"] for r in mine))
    first = mine[0]["model"]
    held = {r["group"]: r["target_share"] for r in mine if r["model"] == first}
    stacks = [Stack("what was taken", [held[g] for g in groups])]
    for model in _models(mine):
        shares = {r["group"]: r["list_share"] for r in mine if r["model"] == model}
        stacks.append(Stack(model, [shares[g] for g in groups]))
    return bars(
        f"Popularity bias of the first {k} places",
        stacks,
        "share",
        names=groups,
        axis="items by frequency: each group has a tenth of the training events",
        stacked=False,
    )


def _whole(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row["slice"] == "all" and row["value"] is not None]


def _models(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(row["model"] for row in rows))
