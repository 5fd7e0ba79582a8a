"""Charts of what surrounds the metrics: the data, the training, the index, the map of the items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import polars as pl

from recsys.evaluation.svg import Cloud, Figure, Line, Stack, bars, lines, points
from recsys.evaluation.svg.axis import Axis, dates, durations, linear, logarithmic

Profile = Mapping[str, Any]
MAP_POINTS: Final = 4000
GROUPS: Final = 5
"""Values of an attribute that have a colour of their own on the map; the rest share one."""


def data_figures(profile: Profile) -> list[Figure]:
    """Return volumes over time, lengths, gaps, regularity and the frequency of items."""
    drawn = [_volume(profile), _lengths(profile), _gaps(profile), _regularity(profile)]
    return [figure for figure in [*drawn, _frequency(profile)] if figure is not None]


def _volume(profile: Profile) -> Figure | None:
    volume = profile.get("volume")
    if not volume or not volume["edges"]:
        return None
    stacks = [Stack(name, counts) for name, counts in volume["counts"].items() if any(counts)]
    edges = volume["edges"]
    return bars("Events over time", stacks, "events", edges=edges, x=dates(edges))


def _lengths(profile: Profile) -> Figure | None:
    return _histogram(
        profile.get("lengths"), "Training events of a user or list", "users", "events"
    )


def _histogram(
    found: Mapping[str, Any] | None, title: str, what: str, axis: str, note: str = ""
) -> Figure | None:
    if not found or not found["edges"]:
        return None
    edges = found["edges"]
    stacks = [Stack(what, found["counts"])]
    return bars(title, stacks, what, edges=edges, x=logarithmic(edges, axis), note=note)


def _gaps(profile: Profile) -> Figure | None:
    gaps = profile.get("gaps")
    if not gaps or not gaps["edges"]:
        return None
    stacks = []
    for name, counts in gaps["counts"].items():
        total = sum(counts) + gaps["zero"][name]
        if total:
            stacks.append(Line(name, _middles(gaps["edges"], [c / total for c in counts])))
    highest = [y for s in stacks for _, y in s.points]
    x, y = durations(gaps["edges"], "time since the event before"), linear(highest, zero=True)
    zero = ", ".join(f"{name} {count:,}" for name, count in gaps["zero"].items() if count)
    title = "Gaps between events, share of each part"
    figure = lines(title, stacks, x, y, marks=False)
    return Figure(title, figure.svg, figure.legend, f"not shown, gap 0: {zero}" if zero else "")


def _middles(edges: Sequence[float], heights: Sequence[float]) -> list[tuple[float, float]]:
    pairs = zip(edges, edges[1:], heights, strict=False)
    return [((low * high) ** 0.5, height) for low, high, height in pairs]


def _regularity(profile: Profile) -> Figure | None:
    found = profile.get("regularity")
    if not found or not found["edges"]:
        return None
    note = f"{found['zero']:,} wholly even, {found['undefined']:,} with fewer than three events"
    edges = found["edges"]
    stacks = [Stack("users", found["counts"])]
    x = durations(edges, "standard deviation of a user's training gaps")
    title = "How even users are (left: uniform)"
    return bars(title, stacks, "users", edges=edges, x=x, note=note)


def _frequency(profile: Profile) -> Figure | None:
    found = profile.get("frequency")
    if not found or not found["rank"]:
        return None
    curve = Line("items", list(zip(found["rank"], found["events"], strict=True)))
    shares = ", ".join(f"top {name}: {share:.0%}" for name, share in found["top_shares"].items())
    x = logarithmic(found["rank"], "rank of the item")
    y = logarithmic(found["events"], "training events")
    figure = lines("The frequency tail", [curve], x, y, marks=False)
    note = f"share of the training events, {shares}; {found['cold']:,} items have none"
    return Figure(figure.title, figure.svg, (), note)


def training_figures(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> list[Figure]:
    """Return loss, validation and throughput over the epochs of every learned model."""
    figures = []
    for column, title in (
        ("loss", "Training loss"),
        ("ndcg@10", "Validation NDCG@10"),
        ("events_per_second", "Events per second"),
    ):
        curves = []
        for name, rows in histories.items():
            known = [(r["epoch"] + 1, r[column]) for r in rows if r.get(column) is not None]
            if known:
                curves.append(Line(name, known))
        if curves:
            xs = [x for c in curves for x, _ in c.points]
            ys = [y for c in curves for _, y in c.points]
            x, y = linear(xs, "epoch", form="{:g}".format), linear(ys, zero=column != "loss")
            figures.append(lines(title, curves, x, y))
    return figures


def retrieval_figures(name: str, rows: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """Return recall beside latency and beside memory of the kinds of index, the chosen one marked."""
    if not rows:
        return []
    k = rows[0]["k"]
    recalls = [row["recall"] for row in rows]
    lowest = min(recalls)
    y = linear([lowest, 1.0], f"recall@{k}")
    y = Axis(y.label, y.low, 1.0, tuple(t for t in y.ticks if t[0] <= 1.0))
    figures = []
    for column, title in (("p50_ms", "ms of one query (median)"), ("memory_mb", "memory, MB")):
        x = logarithmic([row[column] for row in rows], title)
        clouds = []
        for kind in dict.fromkeys(row["kind"] for row in rows if not row["chosen"]):
            mine = sorted((r for r in rows if r["kind"] == kind and not r["chosen"]), key=_width)
            clouds.append(
                Cloud(kind, [(r[column], r["recall"], _width_text(r)) for r in mine], True)
            )
        chosen = [row for row in rows if row["chosen"]]
        clouds.append(
            Cloud("chosen", [(r[column], r["recall"], f"chosen: {r['kind']}") for r in chosen])
        )
        heading = f"{name}: recall beside {title.split(',')[0].split(' of')[0]}"
        figures.append(points(heading, clouds, x, y))
    return figures


def _width(row: Mapping[str, Any]) -> int:
    return int(row["setting"].split()[-1]) if row["setting"] else 0


def _width_text(row: Mapping[str, Any]) -> str:
    return row["setting"].split()[-1] if row["setting"] else ""


def map_figure(name: str, places: pl.DataFrame, attribute: str | None) -> Figure:
    """Return the items in the plane, the most frequent ones if there are many, by an attribute.

    Args:
        name: of the model.
        places: columns `x`, `y`, `events`, `text` and the attribute's.
        attribute: the column that colours, if any.
    """
    shown = places.sort("events", descending=True, maintain_order=True).head(MAP_POINTS)
    clouds = []
    if attribute is None:
        clouds = [Cloud("items", list(shown.select("x", "y", "text").iter_rows()))]
    else:
        known = shown[attribute].drop_nulls().value_counts(sort=True)[attribute].head(GROUPS)
        for value in known.to_list():
            mine = shown.filter(pl.col(attribute) == value)
            clouds.append(Cloud(value, list(mine.select("x", "y", "text").iter_rows())))
        rest = shown.filter(~pl.col(attribute).is_in(known.to_list()).fill_null(False))
        clouds.append(Cloud("other", list(rest.select("x", "y", "text").iter_rows())))
    note = "" if len(shown) == len(places) else f"the {len(shown):,} most frequent items"
    x = _bare(places["x"].to_list())
    y = _bare(places["y"].to_list())
    return points(f"{name}: items near each other", clouds, x, y, labels=False, size=2, note=note)


def _bare(values: list[float]) -> Axis:
    """Return an axis without marks: the units of a map mean nothing."""
    axis = linear(values)
    return Axis("", axis.low, axis.high, ())
