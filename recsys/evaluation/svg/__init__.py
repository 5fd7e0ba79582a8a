"""Charts as inline SVG: no script, no network, colours by the page's own light or dark theme."""

from recsys.evaluation.svg.bars import Stack, bars
from recsys.evaluation.svg.dots import Dot, Shares, dots, shares
from recsys.evaluation.svg.frame import STYLE, Figure, drawing
from recsys.evaluation.svg.lines import Line, lines
from recsys.evaluation.svg.points import Cloud, points

__all__ = [
    "STYLE",
    "Cloud",
    "Dot",
    "Figure",
    "Line",
    "Shares",
    "Stack",
    "bars",
    "dots",
    "drawing",
    "lines",
    "points",
    "shares",
]
