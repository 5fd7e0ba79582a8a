"""The building blocks of a report page: one self-contained HTML file, no script, no network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

STYLE = """
:root { color-scheme: light dark; --ink: #1c2530; --soft: #5b6877; --line: #d8dee6; --paper: #fff;
  --band: #f4f6f9; --bar: #3b73c5; --best: #0b6e4f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9f0; --soft: #9aa7b6; --line: #35404d;
  --paper: #14191f; --band: #1c232b; --bar: #6f9fe8; --best: #5fd0a5; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 78rem; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.25rem; margin-top: 2.4rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; } p, caption, dt, .soft { color: var(--soft); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; } dd { margin: 0; }
.wide { overflow-x: auto; } table { border-collapse: collapse; margin: .4rem 0 1rem; }
caption { text-align: left; padding-bottom: .3rem; } thead th { border-bottom: 2px solid var(--line); }
th, td { padding: .3rem .8rem .3rem 0; text-align: right; vertical-align: top; white-space: nowrap;
  font-variant-numeric: tabular-nums; } tbody tr:nth-child(even) { background: var(--band); }
th:first-child, td.word { text-align: left; } tbody th { font-weight: 600; }
.best { color: var(--best); font-weight: 700; } .interval { display: block; font-size: .78rem;
  color: var(--soft); } summary { cursor: pointer; color: var(--soft); margin: .6rem 0; }
svg text { fill: var(--ink); font: 13px system-ui, sans-serif; } svg .grid { stroke: var(--line); }
svg .bar { fill: var(--bar); opacity: .75; } svg .whisker { stroke: var(--ink); stroke-width: 1.6; }
"""


@dataclass(frozen=True)
class Cell:
    """One table cell: its text, a smaller second line, a CSS class."""

    text: str
    second: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Bar:
    """One bar of a chart with its interval; ends that are None are not drawn."""

    label: str
    value: float
    low: float | None
    high: float | None


def page(title: str, parts: Iterable[str]) -> str:
    """Return the whole document."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def heading(text: str, level: int = 2) -> str:
    """Return a heading."""
    return f"<h{level}>{escape(text)}</h{level}>"


def paragraph(text: str) -> str:
    """Return a paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Return a list of names and values."""
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs)
    return f"<dl>{items}</dl>"


def folded(summary: str, inside: str) -> str:
    """Return a part that opens on a click."""
    return f"<details><summary>{escape(summary)}</summary>{inside}</details>"


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Return a table; the first cell of every row is its heading."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "".join(
        f'<tr><th scope="row">{escape(first.text)}</th>{"".join(map(_td, rest))}</tr>'
        for first, *rest in rows
    )
    return (
        f'<div class="wide"><table><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _td(cell: Cell) -> str:
    kind = f' class="{escape(cell.kind)}"' if cell.kind else ""
    second = f'<span class="interval">{escape(cell.second)}</span>' if cell.second else ""
    return f"<td{kind}>{escape(cell.text)}{second}</td>"


def chart(title: str, bars: Sequence[Bar]) -> str:
    """Return horizontal bars from zero with whiskers, as inline SVG."""
    left, width, step, top = 150, 420, 28, 8
    reach = max([bar.high if bar.high is not None else bar.value for bar in bars] + [1e-12])
    scale = width / reach
    height = top + step * len(bars) + 22
    shapes = []
    for tick in range(5):
        x = left + width * tick / 4
        shapes.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{height - 20}"/>'
            f'<text x="{x:.1f}" y="{height - 4}" text-anchor="middle">{reach * tick / 4:.3g}</text>'
        )
    for row, bar in enumerate(bars):
        y = top + step * row
        shapes.append(
            f'<text x="{left - 8}" y="{y + 18}" text-anchor="end">{escape(bar.label)}</text>'
            f'<rect class="bar" x="{left}" y="{y + 5}" width="{max(bar.value, 0) * scale:.1f}" '
            f'height="{step - 10}"/>' + _whisker(bar, left, scale, y + step / 2)
        )
    size = f'width="{left + width + 40}" height="{height}"'
    return (
        f'<h3>{escape(title)}</h3><div class="wide"><svg role="img" {size} '
        f'aria-label="{escape(title)}">{"".join(shapes)}</svg></div>'
    )


def _whisker(bar: Bar, left: float, scale: float, y: float) -> str:
    if bar.low is None or bar.high is None:
        return ""
    x1, x2 = left + max(bar.low, 0) * scale, left + max(bar.high, 0) * scale
    ends = "".join(
        f'<line class="whisker" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 5:.1f}" y2="{y + 5:.1f}"/>'
        for x in (x1, x2)
    )
    return f'<line class="whisker" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>{ends}'
