"""Columns: histograms with bins of any width, shares of groups, stacked or side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from recsys.evaluation.svg.axis import Axis, linear, short
from recsys.evaluation.svg.frame import Figure, Frame, colour, told


@dataclass(frozen=True)
class Stack:
    """One series: a height for every bin."""

    name: str
    heights: Sequence[float]


def bars(
    title: str,
    series: Sequence[Stack],
    label: str,
    *,
    edges: Sequence[float] | None = None,
    x: Axis | None = None,
    names: Sequence[str] | None = None,
    axis: str = "",
    stacked: bool = True,
    note: str = "",
) -> Figure:
    """Draw columns over bins `edges` of the axis `x`, or over the groups `names`.

    Args:
        title: of the chart.
        series: the heights.
        label: what a height is.
        edges: one more than there are heights; needs `x`.
        x: the axis of the edges.
        names: of groups, instead of edges.
        axis: what the groups are.
        stacked: series on top of each other, else side by side.
        note: a line below.
    """
    n = len(series[0].heights) if series else 0
    totals = [sum(s.heights[i] for s in series) for i in range(n)] if stacked else []
    reach = totals or [h for s in series for h in s.heights]
    if names is not None:
        edges = list(range(n + 1))
        x = Axis(axis, 0, max(n, 1), ())
    assert edges is not None and x is not None
    frame = Frame(x, linear(reach, label, zero=True))
    shapes = [_column(frame, series, edges, i, stacked, names) for i in range(n)]
    if names is not None:
        shapes += [_name(frame, i, name) for i, name in enumerate(names)]
    return Figure(title, frame.svg(title, shapes), tuple(s.name for s in series), note)


def _column(
    frame: Frame,
    series: Sequence[Stack],
    edges: Sequence[float],
    i: int,
    stacked: bool,
    names: Sequence[str] | None,
) -> str:
    left, right = frame.at_x(edges[i]), frame.at_x(edges[i + 1])
    pad = (right - left) * (0.12 if names is not None else 0.03)
    left, right = left + pad, right - pad
    where = names[i] if names is not None else f"{short(edges[i])} to {short(edges[i + 1])}"
    parts, foot = [], 0.0
    each = (right - left) / max(1, 1 if stacked else len(series))
    for rank, one in enumerate(series):
        height = one.heights[i]
        top, low = frame.at_y(foot + height), frame.at_y(foot)
        if height:
            at = left if stacked else left + each * rank
            text = f"{where}, {one.name}: {height:,.4g}"
            parts.append(
                f'<rect class="s{colour(rank)}" stroke="none" x="{at:.1f}" y="{top:.1f}" '
                f'width="{max(each, 0.5):.1f}" height="{max(low - top, 0.5):.1f}">{told(text)}</rect>'
            )
        foot += height if stacked else 0.0
    return "".join(parts)


def _name(frame: Frame, i: int, name: str) -> str:
    at = frame.at_x(i + 0.5)
    foot = frame.height - frame.bottom + 16
    return f'<text class="soft" x="{at:.1f}" y="{foot}" text-anchor="middle">{escape(name)}</text>'
