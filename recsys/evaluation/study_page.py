"""A study as a page: the pooled effects, every set's figures, and for whom the differences are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from recsys.evaluation.names import p_text
from recsys.evaluation.page import Cell, facts, heading, page, paragraph, table
from recsys.evaluation.svg import Dot, Figure, dots, drawing
from recsys.manifest import written_aside

Row = Mapping[str, Any]
SLICED: Final = {
    "uniformity": "uniformity of the history, 1/5 most regular",
    "frequency": "training events of the item, 1/3 rarest",
}


def write_study_page(path: Path, summary: Row) -> None:
    """Write the page of a summary as `recsys study` stores it."""
    title = f"{summary['name']}: {summary['metric']} against {summary['baseline']}"
    missing: Sequence[str] = summary["missing"]
    told = f"{len(missing)}: {', '.join(missing)}" if missing else "none"
    parts = [
        heading(title, 1),
        facts(
            [("sets", ", ".join(summary["sets"])), ("without figures", told), *_aliases(summary)]
        ),
        heading("Pooled over the sets"),
        *_drawn([pooled(summary)]),
        paragraph(
            "Mean over the sets of (difference / the baseline's mean), with its 95 % interval over users; "
            "a model is pooled over the sets that it was trained on. Intervals and p speak of other users, "
            "for these trainings: of others as far as the differences by seed agree. Where the baseline "
            "is 0 (for all users or for a draw of them) there is no gain."
        ),
        heading("By set"),
        *_drawn([by_set(summary)]),
        _comparisons(summary, "the sets of a model"),
        *_against(summary),
        heading("For whom"),
        *_drawn([*sliced(summary, "value"), *sliced(summary, "gain")]),
        heading("Means over seeds"),
        _means(summary),
    ]
    with written_aside(path) as aside:
        aside.write_text(page(title, parts), encoding="utf-8")


def _against(summary: Row) -> list[str]:
    """Return the further comparisons: ablations with the whole model, say."""
    parts = []
    for whole, found in summary["against"].items():
        if found["by_set"]:
            parts += [heading(f"Against {whole}"), *_drawn([by_set(found)])]
            parts.append(_comparisons(found, "all rows"))
    return parts


def _aliases(summary: Row) -> list[tuple[str, str]]:
    """Say which models are one run, which is no comparison of two."""
    told = ", ".join(f"{name} is {first}" for name, first in summary["aliases"].items())
    return [("equal settings, one run", told)] if told else []


def _drawn(figures: Sequence[Figure | None]) -> list[str]:
    known = [figure for figure in figures if figure is not None]
    return [drawing(known)] if known else [paragraph("nothing to draw yet")]


def pooled(summary: Row) -> Figure | None:
    """Return every model's pooled gain with its interval."""
    marks = [
        Dot(f"{model} ({len(row['sets'])})", "all", row["gain"], row["low"], row["high"])
        for model, row in summary["pooled"].items()
        if row["gain"] is not None
    ]
    return dots("Pooled gain (sets)", marks, "share of the baseline", zero=True) if marks else None


def by_set(summary: Row) -> Figure | None:
    """Return every model's gain on every set with its interval."""
    marks = [
        Dot(row["set"], model, row["gain"], row["low"], row["high"])
        for model, rows in summary["by_set"].items()
        for row in rows
        if row["gain"] is not None
    ]
    return dots("Gain by set", marks, "share of the baseline", zero=True) if marks else None


def sliced(summary: Row, field: str) -> list[Figure]:
    """Return a chart for each way of cutting and each set: a field of the comparison, a model a colour."""
    figures = []
    for name in summary["sets"]:
        for way, words in SLICED.items():
            marks = [
                Dot(part, model, row[field], *_bounds(row, field))
                for model, rows in summary["by_set"].items()
                for one in rows
                if one["set"] == name
                for part, row in one["slices"].items()
                if part.startswith(way) and row[field] is not None
            ]
            if marks:
                axis = "share of the baseline" if field == "gain" else summary["metric"]
                title = f"{name}: {'gain' if field == 'gain' else summary['metric']} by {words}"
                figures.append(dots(title, marks, axis, zero=field == "gain"))
    return figures


def _bounds(row: Row, field: str) -> tuple[float | None, float | None]:
    return (row["low"], row["high"]) if field == "gain" else (None, None)


def _comparisons(summary: Row, family: str) -> str:
    body = [
        [
            Cell(f"{row['set']}, {model}"),
            Cell(f"{row['value']:.4f}"),
            Cell(f"{row['baseline']:.4f}"),
            Cell(f"{row['difference']:+.4f}", " ".join(f"{d:+.4f}" for d in row["by_seed"])),
            gain_cell(row),
            Cell(p_text(row["p"])),
            Cell(p_text(row["p_holm"])),
            Cell(", ".join(map(str, row["seeds"])), f"{row['users']:,} users"),
        ]
        for model, rows in summary["by_set"].items()
        for row in rows
    ]
    header = [
        "set and model",
        "model",
        "compared with",
        "difference (by seed)",
        "gain",
        "p",
        f"p, Holm over {family}",
        "seeds",
    ]
    return table("Paired by user over the seeds that both have", header, body)


def gain_cell(row: Row) -> Cell:
    """Return a gain with its interval; a dash where the baseline is 0."""
    if row["gain"] is None:
        return Cell("-", "the baseline is 0")
    return Cell(f"{row['gain']:+.1%}", f"{row['low']:+.1%} to {row['high']:+.1%}")


def _means(summary: Row) -> str:
    rows: Sequence[Row] = summary["over_seeds"]
    known = ("set", "model", "seeds")
    metrics = [
        name for name in (rows[0] if rows else {}) if name not in known and not name.endswith(" sd")
    ]
    body = [
        [
            Cell(f"{row['set']}, {row['model']}"),
            *(Cell(_figure(row, name), _spread(row, name)) for name in metrics),
            Cell(", ".join(map(str, row["seeds"]))),
        ]
        for row in rows
    ]
    return table("Mean and standard deviation", ["set and model", *metrics, "seeds"], body)


def _figure(row: Row, name: str) -> str:
    value = row.get(name)
    return "-" if value is None else f"{value:.4g}"


def _spread(row: Row, name: str) -> str:
    spread = row.get(f"{name} sd")
    return "" if spread is None else f"± {spread:.2g}"
