"""What all charts share: size, grid, labels, legend, and the style of a page or of a single file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from recsys.evaluation.svg.axis import Axis

COLOURS: Final = 6
"""Series are told apart by colour and, where lines or marks are thin, by their form too."""

LIGHT: Final = (
    "--ink: #1c2530; --soft: #5b6877; --line: #e1e6ec; --paper: #fff; --c1: #2f6bc1; --c2: #d9622b;"
    " --c3: #0b8a6a; --c4: #b0479b; --c5: #a37400; --c6: #5a6b7d;"
)
DARK: Final = (
    "--ink: #e4e9f0; --soft: #9aa7b6; --line: #2d3743; --paper: #14191f; --c1: #77a9f2; --c2: #f29464;"
    " --c3: #4fcfa5; --c4: #e08fd0; --c5: #e0b64a; --c6: #a3b3c4;"
)
STYLE: Final = (
    f":root {{ {LIGHT} }} @media (prefers-color-scheme: dark) {{ :root {{ {DARK} }} }}\n"
    """figure.chart { margin: 0; min-width: 0; } figure.chart svg { width: 100%;
  max-width: 44rem; height: auto; }
figcaption { font-weight: 600; margin: .9rem 0 .1rem; } .charts { display: grid; gap: .4rem 1.6rem;
  grid-template-columns: repeat(auto-fit, minmax(min(30rem, 100%), 1fr)); }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1rem; font-size: .82rem; color: var(--soft); }
.legend i { display: inline-block; width: .75em; height: .75em; margin-right: .4em; border-radius: 2px; }
""" + "".join(f".legend i.s{i} {{ background: var(--c{i}); }} " for i in range(1, COLOURS + 1))
)
DRAWING: Final = (
    "text { fill: var(--ink); font: 12px system-ui, sans-serif; } .soft { fill: var(--soft); }"
    " .grid { stroke: var(--line); } .zero { stroke: var(--soft); stroke-dasharray: 4 3; }"
    " .line { fill: none; stroke-width: 2; } .band { opacity: .16; } .stem { stroke-width: 2; }"
    " .cut { stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 2 3; }"
    + "".join(
        f" .s{i} {{ fill: var(--c{i}); stroke: var(--c{i}); }}" for i in range(1, COLOURS + 1)
    )
    + " path.line { fill: none; } text.s1, text { stroke: none; }"
)


@dataclass(frozen=True)
class Figure:
    """A drawn chart: its title, the SVG element, the names of its series in order of colour."""

    title: str
    svg: str
    legend: tuple[str, ...] = ()
    note: str = ""

    def html(self) -> str:
        """Return it with caption and legend, as part of a page."""
        names = "".join(
            f'<span><i class="s{colour(i)}"></i>{escape(name)}</span>'
            for i, name in enumerate(self.legend)
        )
        legend = f'<div class="legend">{names}</div>' if len(self.legend) > 1 else ""
        note = f'<div class="legend">{escape(self.note)}</div>' if self.note else ""
        caption = f"<figcaption>{escape(self.title)}</figcaption>"
        return f'<figure class="chart">{caption}{legend}{self.svg}{note}</figure>'

    def file(self) -> str:
        """Return it as an SVG file of its own, with the legend's names at the foot."""
        style = (
            f"<style>svg {{ {LIGHT} }} @media (prefers-color-scheme: dark) {{ svg {{ {DARK}"
            f" background: var(--paper); }} }} {DRAWING}</style>"
        )
        opened = self.svg.index(">") + 1
        head = self.svg[:opened].replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
        names = "".join(
            f'<text x="{70 + 120 * i}" y="12"><tspan class="s{colour(i)}">■</tspan> '
            f"{escape(name)}</text>"
            for i, name in enumerate(self.legend[:5])
        )
        return head + style + (names if len(self.legend) > 1 else "") + self.svg[opened:] + "\n"


def drawing(figures: Sequence[Figure]) -> str:
    """Return figures side by side, as many as fit."""
    return f'<div class="charts">{"".join(figure.html() for figure in figures)}</div>'


def colour(series: int) -> int:
    """Return the class number of a series; they repeat after six."""
    return 1 + series % COLOURS


@dataclass(frozen=True)
class Frame:
    """The plotting area in pixels and the axes on its sides."""

    x: Axis
    y: Axis | None
    width: int = 560
    height: int = 300
    left: int = 62
    right: int = 18
    top: int = 22
    bottom: int = 44

    def at_x(self, value: float) -> float:
        """Return the pixel of an x value."""
        return self.x.at(value, self.left, self.width - self.right)

    def at_y(self, value: float) -> float:
        """Return the pixel of a y value; they grow upwards."""
        assert self.y is not None
        return self.y.at(value, self.height - self.bottom, self.top)

    def svg(self, title: str, shapes: Sequence[str]) -> str:
        """Return the whole element: grid, labels, then the shapes."""
        parts = [*self._x_marks(), *self._y_marks(), *shapes]
        return (
            f'<svg role="img" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}" aria-label="{escape(title)}">{"".join(parts)}</svg>'
        )

    def _x_marks(self) -> list[str]:
        foot = self.height - self.bottom
        parts = []
        for value, text in self.x.ticks:
            at = f"{self.at_x(value):.1f}"
            parts.append(
                f'<line class="grid" x1="{at}" x2="{at}" y1="{self.top}" y2="{foot}"/>'
                f'<text class="soft" x="{at}" y="{foot + 16}" text-anchor="middle">{escape(text)}</text>'
            )
        middle = (self.left + self.width - self.right) / 2
        label = escape(self.x.label)
        parts.append(
            f'<text x="{middle:.0f}" y="{self.height - 8}" text-anchor="middle">{label}</text>'
        )
        return parts

    def _y_marks(self) -> list[str]:
        if self.y is None:
            return []
        parts = []
        for value, text in self.y.ticks:
            at = self.at_y(value)
            parts.append(
                f'<line class="grid" x1="{self.left}" x2="{self.width - self.right}" '
                f'y1="{at:.1f}" y2="{at:.1f}"/><text class="soft" x="{self.left - 6}" '
                f'y="{at + 4:.1f}" text-anchor="end">{escape(text)}</text>'
            )
        parts.append(f'<text x="4" y="12">{escape(self.y.label)}</text>')
        return parts


def told(text: str) -> str:
    """Return the element that a browser shows when the pointer rests on a shape."""
    return f"<title>{escape(text)}</title>"
