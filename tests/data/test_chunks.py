from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data import chunks
from recsys.data.formats import Format
from recsys.data.pieces import Piece
from recsys.data.problems import ProblemReport


@given(
    values=st.one_of(
        st.lists(st.integers(-5, 5), max_size=20),
        st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20),
    )
)
def test_number_ids_are_coded_by_ascending_value(values: list[int]) -> None:
    ids = pl.Series("user_id", values, dtype=pl.Int64)
    distinct, codes = chunks.code_ids(ids)
    assert distinct.to_list() == sorted(set(values))
    assert [distinct[code] for code in codes.tolist()] == values
    assert distinct.dtype == pl.Int64 and codes.dtype == np.int32


@given(values=st.lists(st.text(max_size=3), max_size=20))
def test_text_ids_are_coded_too(values: list[str]) -> None:
    distinct, codes = chunks.code_ids(pl.Series("user_id", values, dtype=pl.String))
    assert distinct.to_list() == sorted(set(values))
    assert [distinct[code] for code in codes.tolist()] == values


def test_batches_are_joined_up_to_a_size() -> None:
    batches = [(pl.DataFrame({"a": [n] * n}), ProblemReport(rows=n)) for n in (1, 2, 3, 1)]
    joined = list(chunks.gather_batches(iter(batches), rows=3))
    assert [(frame.height, report.rows) for frame, report in joined] == [(3, 3), (3, 3), (1, 1)]


@pytest.fixture
def two_chunks(tmp_path: Path) -> list[Path]:
    """Two chunks of one log, the first with numbers, the second with text for ids."""
    numbers = pl.DataFrame({"user_id": [7, 9, 7], "item_id": [1, 2, 1], "row": [0, 1, 2]})
    text = pl.DataFrame({"user_id": ["9", "10"], "item_id": ["x", "2"], "row": [3, 4]})
    folders = [tmp_path / "a", tmp_path / "b"]
    for frame, folder in zip((numbers, text), folders, strict=True):
        chunks.write_chunk(frame.with_columns(timestamp=pl.col("row") * 10), folder)
    return folders


def test_counts_are_merged_by_the_ids_text(two_chunks: list[Path]) -> None:
    users = chunks.merge_counts([folder / chunks.USERS for folder in two_chunks])
    assert users.to_dicts() == [
        {"id": "10", "events": 1},
        {"id": "7", "events": 2},
        {"id": "9", "events": 2},
    ]


def catalogue_of(folders: list[Path], keep_unknown: bool) -> pl.DataFrame:
    items = chunks.merge_counts([folder / chunks.ITEMS for folder in folders])
    records = pl.DataFrame({"item_id": ["2", "cold", "1"]})
    return chunks.merge_catalogue(items, records, keep_unknown).with_row_index("index", offset=1)


def test_the_catalogue_has_cold_items_and_unknown_ones_if_they_are_kept(
    two_chunks: list[Path],
) -> None:
    rows = catalogue_of(two_chunks, keep_unknown=True).rows()
    assert rows == [(1, "1", 2, True), (2, "2", 2, True), (3, "cold", 0, True), (4, "x", 1, False)]
    assert "x" not in catalogue_of(two_chunks, keep_unknown=False)["id"]


def test_without_records_every_item_is_known(two_chunks: list[Path]) -> None:
    items = chunks.merge_counts([folder / chunks.ITEMS for folder in two_chunks])
    assert chunks.merge_catalogue(items, None, keep_unknown=False)["known"].all()


@pytest.mark.parametrize("keep_unknown", [True, False])
def test_chunks_become_dense_in_the_order_of_the_input(
    two_chunks: list[Path], keep_unknown: bool
) -> None:
    users = pl.DataFrame({"id": ["10", "7", "9"]}).with_row_index("index")
    catalogue = catalogue_of(two_chunks, keep_unknown)
    dense = [chunks.dense_chunk(folder, users, catalogue) for folder in two_chunks]
    rows = pl.concat(dense).select("user", "item", "timestamp").rows()
    unknown = [(2, 4, 30)] if keep_unknown else []
    assert rows == [(1, 1, 0), (2, 2, 10), (1, 1, 20), *unknown, (0, 2, 40)]
    assert dense[0]["item"].dtype == dense[0]["user"].dtype == pl.Int32


def test_events_of_unknown_items_are_counted_and_shown(two_chunks: list[Path]) -> None:
    piece = Piece("log.csv", Format("csv"), 0, None, 0)
    catalogue = catalogue_of(two_chunks, keep_unknown=False)
    first = chunks.unknown_items(two_chunks[0], catalogue, "drop", [piece])
    assert first == ProblemReport()
    finding = chunks.unknown_items(two_chunks[1], catalogue, "drop", [piece]).findings[
        "unknown_items"
    ]
    assert finding.count == 1
    [bad] = finding.first
    assert (bad.file, bad.row) == ("log.csv", 4)
    assert bad.values == {"user_id": "9", "item_id": "x"}
