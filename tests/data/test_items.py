from __future__ import annotations

from pathlib import Path

import pytest
from written import write

from recsys.config import DataConfig
from recsys.data.readers import (
    read_items,
)
from recsys.errors import DataError


def test_items_have_text_ids_and_the_wanted_attributes(tmp_path: Path) -> None:
    first = write(
        tmp_path / "a.jsonl", '{"asin": 5, "title": "A", "tags": ["x", "y"]}\n{"asin": "007"}\n'
    )
    second = write(tmp_path / "b.csv", "asin,title,price\nb,B,3\n")
    data = DataConfig(items=[first, second], item_columns={"item_id": "asin"})
    items, report = read_items(data)
    assert items is not None
    assert items.to_dicts() == [
        {"item_id": "5", "title": "A", "tags": ["x", "y"], "price": None},
        {"item_id": "007", "title": None, "tags": None, "price": None},
        {"item_id": "b", "title": "B", "tags": None, "price": "3"},
    ]
    assert report.kept == 3
    chosen, _ = read_items(
        DataConfig(items=[second], item_columns={"item_id": "asin"}, attributes=["price"])
    )
    assert chosen is not None and chosen.columns == ["item_id", "price"]
    with pytest.raises(DataError, match="no column 'colour'"):
        read_items(
            DataConfig(items=[second], item_columns={"item_id": "asin"}, attributes=["colour"])
        )
    assert read_items(DataConfig())[0] is None


def test_a_mapped_item_column_is_taken_from_there_and_from_nowhere_else(tmp_path: Path) -> None:
    path = write(tmp_path / "i.csv", "sku,item_id,title\nS1,other,first\n")
    items, _ = read_items(DataConfig(items=[path], item_columns={"item_id": "sku"}))
    assert items is not None and items.to_dicts() == [{"item_id": "S1", "title": "first"}]
    bare = write(tmp_path / "j.csv", "item_id,title\na,first\n")
    with pytest.raises(DataError, match=r"no column 'sku' \(our item_id\)"):
        read_items(DataConfig(items=[bare], item_columns={"item_id": "sku"}))


def test_of_items_with_one_id_the_first_stays_and_the_rest_is_reported(tmp_path: Path) -> None:
    path = write(tmp_path / "i.csv", "item_id,title\na,first\nb,other\na,second\n,none\n")
    items, report = read_items(DataConfig(items=[path], on_problem={"null_ids": "drop"}))
    assert items is not None and items["title"].to_list() == ["first", "other"]
    assert (report.rows, report.kept) == (4, 2)
    with pytest.raises(DataError) as caught:
        report.raise_if_failed()
    assert "i.csv, row 3: item_id='a', title='second'" in str(caught.value)
    assert "data.on_problem.duplicate_items=drop" in str(caught.value)
    assert "null_ids" not in str(caught.value)
