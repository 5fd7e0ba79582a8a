"""Curves with bands: a metric over its cut-off, a loss over the epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recsys.evaluation.svg.axis import Axis
from recsys.evaluation.svg.frame import Figure, Frame, colour, told

DASHES = ("", "6 3", "2 3", "8 3 2 3", "4 4", "1 2")


@dataclass(frozen=True)
class Line:
    """One curve: `(x, y)` in order, and the interval of each y where there is one."""

    name: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float]] | None = None


def lines(title: str, curves: Sequence[Line], x: Axis, y: Axis, *, marks: bool = True) -> Figure:
    """Draw the curves; `marks` puts a dot on every point, which tells its value when pointed at."""
    frame = Frame(x, y)
    shapes = [_band(frame, curve, i) for i, curve in enumerate(curves) if curve.band]
    for i, curve in enumerate(curves):
        path = "L".join(f"{frame.at_x(a):.1f} {frame.at_y(b):.1f}" for a, b in curve.points)
        dash = f' stroke-dasharray="{DASHES[i % len(DASHES)]}"' if i % len(DASHES) else ""
        shapes.append(f'<path class="line s{colour(i)}"{dash} d="M{path}"/>' if path else "")
        if marks:
            shapes += [_mark(frame, curve, i, j) for j in range(len(curve.points))]
    return Figure(title, frame.svg(title, shapes), tuple(curve.name for curve in curves))


def _band(frame: Frame, curve: Line, series: int) -> str:
    assert curve.band is not None
    xs = [frame.at_x(x) for x, _ in curve.points]
    lows = [frame.at_y(low) for low, _ in curve.band]
    highs = [frame.at_y(high) for _, high in curve.band]
    there = [f"{x:.1f} {y:.1f}" for x, y in zip(xs, highs, strict=True)]
    back = [f"{x:.1f} {y:.1f}" for x, y in zip(reversed(xs), reversed(lows), strict=True)]
    outline = "L".join(there + back)
    return f'<path class="band s{colour(series)}" stroke="none" d="M{outline}Z"/>'


def _mark(frame: Frame, curve: Line, series: int, at: int) -> str:
    x, y = curve.points[at]
    text = f"{curve.name}, {x:g}: {y:.4g}"
    if curve.band is not None:
        text += f" [{curve.band[at][0]:.4g}, {curve.band[at][1]:.4g}]"
    place = f'cx="{frame.at_x(x):.1f}" cy="{frame.at_y(y):.1f}"'
    return f'<circle class="s{colour(series)}" {place} r="3.5">{told(text)}</circle>'
