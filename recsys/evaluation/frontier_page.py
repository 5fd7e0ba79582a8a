"""The frontier as a page: accuracy against diversity, a line for each way, and all figures in a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from recsys.evaluation.page import Cell, heading, page, paragraph, table

WIDTH, HEIGHT, MARGIN = 620, 360, 56
COLOURS = {
    "top": "#777777",
    "beam": "#b8860b",
    "beam+mmr": "#c0392b",
    "beam+dpp": "#8e44ad",
    "diverse hamming": "#2471a3",
    "diverse vector": "#1e8449",
}
Row = Mapping[str, Any]


def write_frontier_page(path: Path, result: Mapping[str, Any]) -> None:
    """Write the page of a result as `recsys frontier` stores it."""
    rows: list[Row] = result["rows"]
    k, width = result["k"], result["width"]
    title = f"{result['dataset']}: accuracy against diversity of {result['model']}"
    sizes = (
        f"{result['split']}, {result['targets']} targets of {result['users']} users; every search makes "
        f"{width} lists of {result['steps']} items. Lines are drawn from the weakest strength to the "
        "greatest; whiskers are bootstrap intervals over users."
    )
    parts = [
        heading(title, 1),
        paragraph(sizes),
        plot(rows, f"ild@{k}", f"ndcg@{k}", "of the merged list"),
        plot(rows, f"ild@{k}", f"oracle@{width}", "of the merged list; of all lists"),
        heading("Metrics", 2),
        *(paragraph(line) for line in result["metrics"] if line.strip()),
        _figures(rows),
    ]
    path.write_text(page(title, parts), encoding="utf-8")


def plot(rows: Sequence[Row], across: str, up: str, about: str) -> str:
    """Return an SVG of one metric against another, a line for each way through its strengths."""
    ways = list(dict.fromkeys(row["way"] for row in rows))
    points = {way: _points(rows, way, across, up) for way in ways}
    flat = [point for some in points.values() for point in some]
    if not flat:
        return paragraph(f"{up} against {across}: nothing to draw")
    xs, ys = [p[0] for p in flat], [value for p in flat for value in p[1:]]
    place = _Scale(min(xs), max(xs), min(ys), max(ys))
    drawn = [_line(way, some, place) for way, some in points.items()]
    legend = [
        f'<text x="{WIDTH + 10}" y="{MARGIN + 20 * i}" style="fill:{_colour(way)}">{escape(way)}</text>'
        for i, way in enumerate(ways)
    ]
    axes = (
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}">{escape(across)}</text>'
        f'<text x="6" y="{MARGIN - 26}">{escape(up)}</text>{place.ticks()}'
    )
    name = escape(f"{up} against {across}, {about}")
    return (
        f'<svg width="{WIDTH + 150}" height="{HEIGHT}" role="img" aria-label="{name}">'
        f"<title>{name}</title>{axes}{''.join(drawn)}{''.join(legend)}</svg>"
    )


class _Scale:
    """Maps values to places of the drawing."""

    def __init__(self, left: float, right: float, low: float, high: float) -> None:
        self.left, self.low = left, low
        self.across = (WIDTH - 2 * MARGIN) / max(right - left, 1e-9)
        self.up = (HEIGHT - 2 * MARGIN) / max(high - low, 1e-9)
        self.right, self.high = right, high

    def __call__(self, x: float, y: float) -> tuple[float, float]:
        over, above = (x - self.left) * self.across, (y - self.low) * self.up
        return round(MARGIN + over, 1), round(HEIGHT - MARGIN - above, 1)

    def ticks(self) -> str:
        """Return both ends of both axes, and the frame."""
        (x0, y0), (x1, y1) = self(self.left, self.low), self(self.right, self.high)
        return (
            f'<rect class="grid" x="{x0}" y="{y1}" width="{x1 - x0}" height="{y0 - y1}" fill="none"/>'
            f'<text x="{x0}" y="{y0 + 18}">{self.left:.3f}</text>'
            f'<text x="{x1 - 36}" y="{y0 + 18}">{self.right:.3f}</text>'
            f'<text x="6" y="{y0}">{self.low:.3f}</text><text x="6" y="{y1 + 6}">{self.high:.3f}</text>'
        )


def _points(
    rows: Sequence[Row], way: str, across: str, up: str
) -> list[tuple[float, float, float, float]]:
    """Return `(x, y, low, high)` of a way, in order of its strengths."""
    own = [row for row in rows if row["way"] == way and row["value"] is not None]
    strengths = dict.fromkeys(row["strength"] for row in own)
    by_key = {(row["metric"], row["strength"]): row for row in own}
    pairs = [(by_key.get((across, s)), by_key.get((up, s))) for s in strengths]
    return [(x["value"], y["value"], y["low"], y["high"]) for x, y in pairs if x and y]


def _line(way: str, points: list[tuple[float, float, float, float]], place: _Scale) -> str:
    colour = _colour(way)
    drawn = []
    for x, y, low, high in points:
        (cx, cy), (_, bottom), (_, top) = place(x, y), place(x, low), place(x, high)
        drawn.append(f'<circle cx="{cx}" cy="{cy}" r="4" fill="{colour}"/>')
        drawn.append(f'<line x1="{cx}" x2="{cx}" y1="{bottom}" y2="{top}" stroke="{colour}"/>')
    path = " ".join("{},{}".format(*place(x, y)) for x, y, *_ in points)
    drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    return "".join(drawn)


def _colour(way: str) -> str:
    return COLOURS.get(way, "#333333")


def _figures(rows: Sequence[Row]) -> str:
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    lines = []
    for way, strength in dict.fromkeys((row["way"], row["strength"]) for row in rows):
        own = {r["metric"]: r for r in rows if (r["way"], r["strength"]) == (way, strength)}
        name = way if strength is None else f"{way} {strength:g}"
        lines.append([Cell(name, kind="word"), *(_cell(own[metric]) for metric in metrics)])
    return table("Means over users with their intervals", ["way and strength", *metrics], lines)


def _cell(row: Row) -> Cell:
    if row["value"] is None:
        return Cell("-")
    return Cell(f"{row['value']:.4f}", f"{row['low']:.4f} to {row['high']:.4f}")
