"""Plotly figures as plain mappings, drawn from frames; colours belong to names on a whole page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import polars as pl

Figure = dict[str, Any]
Trace = dict[str, Any]

PALETTE: Final = (
    *("#3b7dd8", "#e0702f", "#12a07a", "#b552a3", "#b8860b", "#6b7f94"),
    *("#c0392b", "#2aa7b8", "#7d5fd3", "#7a8f1d"),
)
DASHES: Final = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
FAINT: Final = 0.16


def colours(names: Sequence[str]) -> dict[str, str]:
    """Return a colour for each name, in order; they repeat after ten."""
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(dict.fromkeys(names))}


def layout(*, x: str = "", y: str = "", height: int = 340, **more: Any) -> dict[str, Any]:
    """Return the layout that all charts share; the theme adds fonts and light or dark."""
    return {
        "height": height,
        "margin": {"l": 8, "r": 12, "t": 30, "b": 8},
        "xaxis": {"title": {"text": x}, "automargin": True},
        "yaxis": {"title": {"text": y}, "automargin": True},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "hovermode": "closest",
        **more,
    }


def intervals(
    frame: pl.DataFrame,
    x: str,
    paint: Mapping[str, str],
    *,
    zero: bool = True,
    apart: bool = True,
) -> Figure:
    """Return dots with error bars, a row for each `label`, a colour for each `series`.

    Columns: `label, series, value, low, high`; undefined ends have no bar. `apart` sets the series of
    a row below each other.
    """
    names = frame["series"].unique(maintain_order=True).to_list()
    labels = frame["label"].unique(maintain_order=True).to_list()
    many = len(names) > 1
    traces = []
    for i, name in enumerate(names):
        mine = frame.filter(pl.col("series") == name)
        reach = mine.with_columns(
            up=(pl.col("high") - pl.col("value")).fill_null(0.0),
            down=(pl.col("value") - pl.col("low")).fill_null(0.0),
        )
        shift = 0.0 if not apart else 0.7 * ((i + 0.5) / len(names) - 0.5)
        error = {"array": reach["up"].to_list(), "arrayminus": reach["down"].to_list()}
        colour = paint.get(name, PALETTE[0])
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": mine["value"].to_list(),
                "y": [labels.index(label) + shift for label in mine["label"]],
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "thickness": 2,
                    "width": 4,
                    **error,
                },
                "marker": {"color": colour, "size": 9 if many else 10},
                "customdata": mine.select("low", "high", "label").rows(),
                "hovertemplate": f"%{{customdata[2]}}, {name}<br>%{{x:.4f}} "
                "[%{customdata[0]:.4f}, %{customdata[1]:.4f}]<extra></extra>",
            }
        )
    row = 26 if not apart or not many else 14 + 11 * len(names)
    shape = layout(x=x, height=110 + len(labels) * row)
    marks = {"tickvals": list(range(len(labels))), "ticktext": labels, "title": {"text": ""}}
    shape["yaxis"] |= {"range": [len(labels) - 0.5, -0.5], "zeroline": False, **marks}
    shape["showlegend"] = many
    if zero:
        shape["xaxis"] |= {"rangemode": "tozero", "zeroline": True}
    return {"data": traces, "layout": shape}


def curves(frame: pl.DataFrame, x: str, y: str, paint: Mapping[str, str], **axes: Any) -> Figure:
    """Return a line for each `series` over `x`, with a band from `low` to `high` where there is one."""
    traces: list[Trace] = []
    for i, name in enumerate(frame["series"].unique(maintain_order=True)):
        mine = frame.filter(pl.col("series") == name).sort("x")
        colour, xs = paint.get(name, PALETTE[0]), mine["x"].to_list()
        banded = "low" in mine.columns and mine["low"].null_count() == 0
        if banded:
            edge = {"type": "scatter", "x": xs, "mode": "lines", "line": {"width": 0}}
            quiet = {"showlegend": False, "hoverinfo": "skip", "legendgroup": name}
            traces.append({**edge, **quiet, "y": mine["high"].to_list()})
            fill = {"fill": "tonexty", "fillcolor": translucent(colour)}
            traces.append({**edge, **quiet, **fill, "y": mine["low"].to_list()})
        rows = mine.select("low", "high").rows() if banded else None
        shown = " [%{customdata[0]:.4f}, %{customdata[1]:.4f}]" if banded else ""
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": name,
                "legendgroup": name,
                "x": xs,
                "y": mine["y"].to_list(),
                "line": {"color": colour, "width": 2, "dash": DASHES[i % len(DASHES)]},
                "marker": {"color": colour, "size": 6},
                "customdata": rows,
                "hovertemplate": f"{name}<br>%{{x}}: %{{y:.4f}}{shown}<extra></extra>",
            }
        )
    shape = layout(x=x, y=y)
    shape["xaxis"] |= axes.get("xaxis", {})
    shape["yaxis"] |= {"rangemode": "tozero", **axes.get("yaxis", {})}
    return {"data": traces, "layout": shape}


def translucent(colour: str, opacity: float = FAINT) -> str:
    """Return a colour that lets what is behind it be seen.

    >>> translucent("#ff0080")
    'rgba(255,0,128,0.16)'
    """
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def shares(frame: pl.DataFrame, label: str, parts: Sequence[str]) -> Figure:
    """Return a horizontal bar for each row, cut into the named columns of counts."""
    paint = dict(zip(parts, (PALETTE[2], "#9aa7b6", PALETTE[1]), strict=False))
    total = frame.select(pl.sum_horizontal(*parts)).to_series().to_list()
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": part,
            "y": frame[label].to_list(),
            "x": [count / max(1, of) for count, of in zip(frame[part], total, strict=True)],
            "customdata": frame[part].to_list(),
            "hovertemplate": f"%{{y}}<br>{part}: %{{customdata:,}} users, %{{x:.1%}}<extra></extra>",
            "marker": {"color": paint[part]},
        }
        for part in parts
    ]
    shape = layout(x="share of users", height=120 + 32 * len(frame), barmode="stack")
    shape["yaxis"] |= {"autorange": "reversed"}
    shape["xaxis"] |= {"tickformat": ".0%", "range": [0, 1]}
    return {"data": traces, "layout": shape}


def columns(
    series: Mapping[str, Sequence[float]],
    x: Sequence[Any],
    *,
    title_x: str,
    title_y: str,
    paint: Mapping[str, str],
    stacked: bool = True,
    widths: Sequence[float] | None = None,
    axes: Mapping[str, Any] | None = None,
    text: Sequence[str] | None = None,
) -> Figure:
    """Return bars at `x`, one series for each name, stacked or side by side."""
    traces = [
        {
            "type": "bar",
            "name": name,
            "x": list(x),
            "y": list(heights),
            "marker": {"color": paint.get(name, PALETTE[0]), "line": {"width": 0}},
            "hovertext": list(text) if text is not None else None,
            **({"width": list(widths)} if widths is not None else {}),
        }
        for name, heights in series.items()
    ]
    shape = layout(x=title_x, y=title_y, barmode="stack" if stacked else "group")
    shape["bargap"] = 0.04 if stacked else 0.2
    shape["xaxis"] |= dict(axes or {})
    shape["showlegend"] = len(series) > 1
    return {"data": traces, "layout": shape}


def scatter(
    frame: pl.DataFrame,
    x: str,
    y: str,
    paint: Mapping[str, str],
    *,
    labelled: bool = True,
    joined: Sequence[str] = (),
    log_x: bool = False,
) -> Figure:
    """Return points of the columns `x, y, series, text`, the text beside them or on hovering."""
    traces = []
    for name in frame["series"].unique(maintain_order=True):
        mine = frame.filter(pl.col("series") == name)
        mode = "markers+text" if labelled else "markers"
        traces.append(
            {
                "type": "scatter",
                "mode": f"lines+{mode}" if name in joined else mode,
                "name": name,
                "x": mine["x"].to_list(),
                "y": mine["y"].to_list(),
                "text": mine["text"].to_list(),
                "textposition": "top center",
                "marker": {"color": paint.get(name, PALETTE[0]), "size": 11},
                "line": {"color": paint.get(name, PALETTE[0]), "width": 1},
                "hovertemplate": "%{text}<br>%{x:.4g}, %{y:.4f}<extra></extra>",
            }
        )
    shape = layout(x=x, y=y)
    shape["showlegend"] = len(traces) > 1
    if log_x:
        shape["xaxis"] |= {"type": "log"}
    return {"data": traces, "layout": shape}
