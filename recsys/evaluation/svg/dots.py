"""Rows with a label each: values with intervals, and shares of a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from recsys.evaluation.svg.axis import linear
from recsys.evaluation.svg.frame import Figure, Frame, colour, told


@dataclass(frozen=True)
class Dot:
    """One value: its row, its series, its interval if there is one."""

    label: str
    series: str
    value: float
    low: float | None = None
    high: float | None = None


def dots(title: str, values: Sequence[Dot], axis: str, *, zero: bool = False) -> Figure:
    """Draw the values along one axis; with `zero` the axis holds 0 and marks it."""
    labels = list(dict.fromkeys(dot.label for dot in values))
    series = list(dict.fromkeys(dot.series for dot in values))
    step = max(22, 11 * len(series) + 8)
    left = min(240, 24 + 7 * max((len(label) for label in labels), default=0))
    reach = [x for d in values for x in (d.value, d.low, d.high) if x is not None]
    height = 22 + 44 + step * len(labels)
    frame = Frame(linear(reach, axis, zero=zero), None, height=height, left=left)
    shapes = []
    if zero:
        at = f"{frame.at_x(0.0):.1f}"
        shapes.append(f'<line class="zero" x1="{at}" x2="{at}" y1="22" y2="{height - 44}"/>')
    for row, label in enumerate(labels):
        middle = 22 + step * (row + 0.5)
        shapes.append(
            f'<text x="{left - 10}" y="{middle + 4:.1f}" text-anchor="end">{escape(_cut(label))}</text>'
        )
    for dot in values:
        rank = series.index(dot.series)
        y = 22 + step * (labels.index(dot.label) + 0.5) + 11 * (rank - (len(series) - 1) / 2)
        shapes.append(_dot(frame, dot, y, rank if len(series) > 1 else 0))
    return Figure(title, frame.svg(title, shapes), tuple(series))


def _dot(frame: Frame, dot: Dot, y: float, rank: int) -> str:
    text = f"{dot.label}, {dot.series}: {dot.value:.4f}"
    stem = ""
    if dot.low is not None and dot.high is not None:
        text += f" [{dot.low:.4f}, {dot.high:.4f}]"
        ends = f'x1="{frame.at_x(dot.low):.1f}" x2="{frame.at_x(dot.high):.1f}"'
        stem = f'<line class="stem" {ends} y1="{y:.1f}" y2="{y:.1f}"/>'
    at = f'cx="{frame.at_x(dot.value):.1f}" cy="{y:.1f}"'
    return f'<g class="s{colour(rank)}">{stem}<circle {at} r="4.5"/>{told(text)}</g>'


@dataclass(frozen=True)
class Shares:
    """One row: its label and its parts, which sum to one."""

    label: str
    parts: Sequence[float]


def shares(title: str, rows: Sequence[Shares], names: Sequence[str], axis: str) -> Figure:
    """Draw every row as a bar cut into the named parts."""
    step, left = 26, min(240, 24 + 7 * max((len(row.label) for row in rows), default=0))
    frame = Frame(linear([0.0, 1.0], axis), None, height=22 + 44 + step * len(rows), left=left)
    shapes = []
    for place, row in enumerate(rows):
        y, before = 22 + step * place, 0.0
        shapes.append(
            f'<text x="{left - 10}" y="{y + 17}" text-anchor="end">{escape(_cut(row.label))}</text>'
        )
        for rank, (name, part) in enumerate(zip(names, row.parts, strict=True)):
            x1, x2 = frame.at_x(before), frame.at_x(before + part)
            text = told(f"{row.label}, {name}: {part:.1%}")
            shapes.append(
                f'<rect class="s{colour(rank)}" stroke="none" x="{x1:.1f}" y="{y + 4}" '
                f'width="{x2 - x1:.1f}" height="{step - 8}">{text}</rect>'
            )
            before += part
    return Figure(title, frame.svg(title, shapes), tuple(names))


def _cut(label: str) -> str:
    return label if len(label) <= 32 else f"{label[:31]}…"
