"""Does order matter here? The answer as a page, and as a part of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from recsys.evaluation.names import label, number, p_text
from recsys.evaluation.order_test import METRICS, advice, verdicts
from recsys.evaluation.page import Cell, facts, heading, page, paragraph, table
from recsys.evaluation.svg import Dot, dots, drawing

Row = Mapping[str, Any]

WORDS: Final = {
    "whole": "the whole history",
    "but_newest": "all but the newest event",
    "inside_baskets": "inside each basket",
}


def write_order_page(path: Path, result: Mapping[str, Any]) -> None:
    """Write the page of a result as `recsys order-test` stores it."""
    title = f"{result['dataset']}: does order matter?"
    path.write_text(page(title, [heading(title, 1), *order_parts(result)]), encoding="utf-8")


def order_parts(result: Mapping[str, Any]) -> list[str]:
    """Return the parts of a page: what was asked, the answers, the figures, the rule."""
    rows: Sequence[Row] = result["rows"]
    found = verdicts(rows)
    margin = f"{result['margin']:.0%}"
    answers = [(f"Order, {WORDS[way]}", said) for way, said in found.items()]
    return [
        facts(
            [
                ("model", f"{result['model']}, trained once on true orders"),
                ("asked", f"{result['split']}, {result['shuffles']} shuffles of every way"),
                *answers,
            ]
        ),
        *map(paragraph, advice(found)),
        drawing([dots("Lost by a shuffle", list(map(_dot, rows)), "drop", zero=True)]),
        order_table(rows),
        paragraph(
            "Items of the history that the model reads change places; what is excluded stays. Only "
            "targets whose history has something to move. Order matters if "
            f"{label(METRICS[0], rows[0]['k'])} drops by {margin} of itself or more and the drop's "
            f"interval lies above 0; it does not if the interval lies below {margin}; else it is "
            "undecided. Overlap: Jaccard index of the first items with and without the shuffle."
        ),
    ]


def _dot(row: Row) -> Dot:
    name = f"{label(row['metric'], row['k'])}, {WORDS[row['way']]}"
    return Dot(name, "all", row["drop"], row["low"], row["high"])


def order_table(rows: Sequence[Row]) -> str:
    """Return a row for every way and metric."""
    body = [
        [
            Cell(f"{WORDS[row['way']]}, {label(row['metric'], row['k'])}"),
            Cell(number(row["true"]), f"{number(row['true_low'])} to {number(row['true_high'])}"),
            Cell(number(row["shuffled"])),
            Cell(f"{row['drop']:+.4f}", f"{row['low']:+.4f} to {row['high']:+.4f}"),
            Cell(f"{row['share']:+.1%}"),
            Cell(p_text(row["p"])),
            Cell(f"{row['overlap']:.3f}", f"{row['overlap_low']:.3f} to {row['overlap_high']:.3f}"),
            Cell(row["verdict"], kind="best" if row["verdict"] == "matters" else ""),
            Cell(f"{row['users']:,}", f"{row['targets']:,} targets"),
        ]
        for row in rows
    ]
    header = ["shuffled", "true", "shuffled", "drop", "share", "p", "overlap", "order", "users"]
    return table("Means over users; below each value its interval", header, body)
