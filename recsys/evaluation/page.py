"""The building blocks of a report page: one self-contained HTML file, no script, no network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from recsys.evaluation.svg.frame import DRAWING
from recsys.evaluation.svg.frame import STYLE as CHART_STYLE

STYLE = (
    CHART_STYLE
    + DRAWING
    + """
:root { color-scheme: light dark; --band: #f4f6f9; --best: #0b6e4f; }
@media (prefers-color-scheme: dark) { :root { --band: #1c232b; --best: #5fd0a5; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 82rem; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.25rem; margin-top: 2.6rem;
  border-top: 1px solid var(--line); padding-top: 1.2rem; }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .4rem; } p, caption, dt, .soft { color: var(--soft); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; } dd { margin: 0; }
.wide { overflow-x: auto; } table { border-collapse: collapse; margin: .4rem 0 1rem; }
caption { text-align: left; padding-bottom: .3rem; } thead th { border-bottom: 2px solid var(--line); }
th, td { padding: .3rem .8rem .3rem .3rem; text-align: right; vertical-align: top; white-space: nowrap;
  font-variant-numeric: tabular-nums; } tbody tr:nth-child(even) { background: var(--band); }
th:first-child, td.word { text-align: left; } tbody th { font-weight: 600; }
.best { color: var(--best); font-weight: 700; } .interval { display: block; font-size: .78rem;
  color: var(--soft); } summary { cursor: pointer; color: var(--soft); margin: .6rem 0; }
"""
)


@dataclass(frozen=True)
class Cell:
    """One table cell: its text, a smaller second line, a CSS class."""

    text: str
    second: str = ""
    kind: str = ""


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
