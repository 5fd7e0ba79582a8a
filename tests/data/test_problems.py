from __future__ import annotations

import json

import polars as pl
import pytest

from recsys.config import ProblemRules
from recsys.data.formats import Format
from recsys.data.pieces import Piece
from recsys.data.problems import (
    RULES,
    SHOWN,
    BadRow,
    Finding,
    ProblemReport,
    locate_rows,
)
from recsys.data.readers import ROW_BITS
from recsys.errors import DataError

PIECES = [
    Piece("a.parquet", Format("parquet"), 0, 2, 0),
    Piece("a.parquet", Format("parquet"), 2, 2, 1),
]


def finding(count: int, choice: str = "fail", file: str = "a.csv") -> Finding:
    rows = tuple(BadRow(file, row + 1, {"item_id": row}) for row in range(min(count, SHOWN)))
    return Finding(count, choice, rows)  # type: ignore[arg-type]


def test_rules_are_those_of_the_configuration_with_its_choices() -> None:
    schema = ProblemRules.model_json_schema()["properties"]
    assert {rule: tuple(field["enum"]) for rule, field in schema.items()} == {
        rule: choices for rule, (_, choices) in RULES.items()
    }


def test_reports_add_up_and_keep_the_first_rows() -> None:
    one = ProblemReport(10, 7, {"null_ids": finding(3)}, {"min_weight": 1})
    two = ProblemReport(5, 0, {"null_ids": finding(4, file="b.csv"), "bad_times": finding(1)})
    both = one + two
    assert (both.rows, both.kept, both.filtered) == (15, 7, {"min_weight": 1})
    assert both.findings["null_ids"].count == 7
    assert [(r.file, r.row) for r in both.findings["null_ids"].first] == [
        ("a.csv", 1), ("a.csv", 2), ("a.csv", 3), ("b.csv", 1), ("b.csv", 2),
    ]  # fmt: skip
    assert both.findings["bad_times"].count == 1
    assert one.findings["null_ids"].count == 3  # adding changes neither


def test_all_failed_rules_are_raised_together_and_dropped_ones_are_not() -> None:
    report = ProblemReport(
        9, 0, {"null_ids": finding(7), "bad_times": finding(1), "duplicates": finding(2, "drop")}
    )
    with pytest.raises(DataError) as caught:
        report.raise_if_failed()
    message = str(caught.value)
    assert "a.csv: 7 rows without an id (rule null_ids)" in message
    assert "and 2 more" in message
    assert "data.on_problem.null_ids=drop to leave them out" in message
    assert "keep" not in message  # not allowed for these two
    assert "rule bad_times" in message and "rule duplicates" not in message
    ProblemReport(9, 0, {"duplicates": finding(2, "drop")}).raise_if_failed()


def test_reports_are_plain_json_and_lines_for_the_log() -> None:
    report = ProblemReport(2, 1, {"duplicates": finding(1, "drop")}, {"time_window": 1_000})
    assert json.loads(json.dumps(report.to_dict()))["rules"]["duplicates"] == {
        "count": 1,
        "choice": "drop",
        "first": [{"file": "a.csv", "row": 1, "values": {"item_id": 0}, "note": ""}],
    }
    assert report.lines() == [
        "dropped 1 events equal to an earlier one in user, item, time and position "
        "(data.on_problem.duplicates)",
        "filter time_window left out 1,000 events",
    ]


def test_rows_are_named_by_the_file_and_row_of_their_piece() -> None:
    events = pl.DataFrame(
        {"user_id": [1, 1, 2], "item_id": [5, 6, 9], "row": [0, 1, (1 << ROW_BITS) + 1]}
    )
    assert locate_rows(events, events["item_id"] > 5, PIECES) == (
        BadRow("a.parquet", 2, {"user_id": 1, "item_id": 6}),
        BadRow("a.parquet", 4, {"user_id": 2, "item_id": 9}),
    )
    many = pl.DataFrame({"row": range(SHOWN + 2)})
    assert (
        len(locate_rows(many, many["row"] >= 0, [Piece("b.csv", Format("csv"), 0, None, 0)]))
        == SHOWN
    )


def test_a_rule_that_may_be_kept_offers_it() -> None:
    with pytest.raises(DataError, match=r"unknown_items=keep to take them as they are"):
        ProblemReport(1, 1, {"unknown_items": finding(1)}).raise_if_failed()
