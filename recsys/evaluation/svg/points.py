"""Points in the plane: cost beside quality, recall beside latency, items on a map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from recsys.evaluation.svg.axis import Axis
from recsys.evaluation.svg.frame import Figure, Frame, colour, told


@dataclass(frozen=True)
class Cloud:
    """One group of points `(x, y, text)`; the text is shown beside the point or on pointing at it."""

    name: str
    points: Sequence[tuple[float, float, str]]
    joined: bool = False


def points(
    title: str,
    clouds: Sequence[Cloud],
    x: Axis,
    y: Axis,
    *,
    labels: bool = True,
    size: float = 5.0,
    note: str = "",
) -> Figure:
    """Draw the groups; with `labels` every point has its text beside it."""
    frame = Frame(x, y, height=340)
    shapes = []
    for i, cloud in enumerate(clouds):
        if cloud.joined and len(cloud.points) > 1:
            path = "L".join(f"{frame.at_x(a):.1f} {frame.at_y(b):.1f}" for a, b, _ in cloud.points)
            shapes.append(f'<path class="line s{colour(i)}" d="M{path}"/>')
        opacity = "" if labels else ' opacity=".6"'
        shapes.append(f'<g class="s{colour(i)}" stroke="none"{opacity}>')
        for a, b, text in cloud.points:
            at = f'cx="{frame.at_x(a):.1f}" cy="{frame.at_y(b):.1f}"'
            shapes.append(f'<circle {at} r="{size:g}">{told(text) if text else ""}</circle>')
        shapes.append("</g>")
        if labels:
            shapes += [_label(frame, a, b, text) for a, b, text in cloud.points]
    names = tuple(cloud.name for cloud in clouds)
    return Figure(title, frame.svg(title, shapes), names, note)


def _label(frame: Frame, x: float, y: float, text: str) -> str:
    at = frame.at_x(x)
    inside = at < frame.width - 140
    anchor, shift = ("start", 9) if inside else ("end", -9)
    return (
        f'<text x="{at + shift:.1f}" y="{frame.at_y(y) + 4:.1f}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )
