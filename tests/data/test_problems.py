from __future__ import annotations

import json

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.config import ProblemRules
from recsys.data.pieces import Piece
from recsys.data.problems import (
    RULES,
    SHOWN,
    BadRow,
    Finding,
    ProblemReport,
    check_known_items,
    drop_duplicates,
    duplicate_mask,
)
from recsys.data.readers import ROW_BITS
from recsys.errors import DataError

PIECES = [Piece("a.parquet", "parquet", 0, 2, 0), Piece("a.parquet", "parquet", 2, 2, 1)]


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
        "dropped 1 events equal to an earlier one in user, item and time "
        "(data.on_problem.duplicates)",
        "filter time_window left out 1,000 events",
    ]


def test_unknown_items_are_named_by_file_and_row_of_their_piece() -> None:
    events = pl.DataFrame(
        {"user_id": [1, 1, 2], "item_id": [5, 6, 9], "row": [0, 1, (1 << ROW_BITS) + 1]}
    )
    known = pl.Series(["5", "6"])
    kept, report = check_known_items(events, known, "keep", PIECES)
    assert kept.equals(events)
    found = report.findings["unknown_items"]
    assert (found.count, found.first) == (
        1,
        (BadRow("a.parquet", 4, {"user_id": 2, "item_id": 9}),),
    )
    dropped, report = check_known_items(events, known, "drop", PIECES)
    assert dropped["item_id"].to_list() == [5, 6]
    with pytest.raises(DataError, match=r"unknown_items=keep to take them as they are"):
        check_known_items(events, known, "fail", PIECES)[1].raise_if_failed()
    same, report = check_known_items(events, pl.Series(["5", "6", "9"]), "fail")
    assert same is events and not report.findings


def test_duplicates_share_user_item_and_time_and_the_first_stays() -> None:
    events = pl.DataFrame(
        {
            "user_id": ["a", "a", "b", "a", "a"],
            "item_id": ["x", "x", "x", "x", "y"],
            "timestamp": [1, 1, 1, 2, 1],
            "row": [0, 1, 2, 3, (1 << ROW_BITS)],
        }
    )
    assert duplicate_mask(events).to_list() == [False, True, False, False, False]
    kept, report = drop_duplicates(events, "drop", PIECES)
    assert kept["row"].to_list() == [0, 2, 3, 1 << ROW_BITS]
    assert report.findings["duplicates"].first[0].row == 2
    assert drop_duplicates(events, "keep")[0].height == 5


def test_positions_tell_repeats_of_one_time_apart_and_an_order_has_no_duplicates() -> None:
    events = pl.DataFrame({"user_id": ["a"] * 3, "item_id": ["x"] * 3, "position": [0, 0, 1]})
    assert duplicate_mask(events).to_list() == [False, True, False]
    timed = events.with_columns(timestamp=pl.lit(5))
    assert duplicate_mask(timed).to_list() == [False, True, False]
    assert duplicate_mask(events.drop("position")).to_list() == [False] * 3
    assert duplicate_mask(events.drop("position").clear()).to_list() == []


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)), max_size=40))
def test_duplicate_mask_agrees_with_a_set(events: list[tuple[int, int, int]]) -> None:
    schema = {"user_id": pl.Int64, "item_id": pl.Int64, "timestamp": pl.Int64}
    seen: set[tuple[int, int, int]] = set()
    expected = []
    for event in events:
        expected.append(event in seen)
        seen.add(event)
    assert duplicate_mask(pl.DataFrame(events, schema=schema, orient="row")).to_list() == expected
