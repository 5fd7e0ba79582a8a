from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys.config import DataConfig
from recsys.data.heads import HEAD_BYTES, check_heads
from recsys.errors import DataError

HEADER = "user_id,item_id,timestamp\n"


def config(*events: Path, **fields: Any) -> DataConfig:
    return DataConfig(events=[str(path) for path in events], **fields)


def write(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def test_columns_are_those_the_events_will_have(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", HEADER + "a,x,2020-07-01\n")
    names = ["user_id", "item_id", "timestamp", "basket_id"]
    assert check_heads(config(path, basket_minutes=1))[:4] == names


def test_only_the_beginning_is_judged_and_only_if_all_of_it_is_bad(tmp_path: Path) -> None:
    good = "a,x,1\n"
    late = HEADER + good * (2 * HEAD_BYTES // len(good)) + "a,,soon\n"
    check_heads(config(write(tmp_path / "late.csv", late)))
    check_heads(config(write(tmp_path / "some.csv", HEADER + good + ",x,1\na,x,soon\n")))
    bad = write(tmp_path / "all.csv", HEADER + ",x,1\n,y,1\n")
    with pytest.raises(DataError, match=r"2 rows without an id [\s\S]*null_ids=drop"):
        check_heads(config(bad))
    check_heads(config(bad, on_problem={"null_ids": "drop"}))


def test_files_without_rows_are_named_if_all_are_empty(tmp_path: Path) -> None:
    empty, blank = (
        write(tmp_path / "a.csv", HEADER),
        write(tmp_path / "b.csv", HEADER + "\n" * 2 * HEAD_BYTES),
    )
    with pytest.raises(DataError, match=r"no events were read: .*a\.csv, .*b\.csv have no rows"):
        check_heads(config(empty, blank))
    late = write(tmp_path / "c.csv", HEADER + "\n" * 2 * HEAD_BYTES + "a,x,1\n")
    check_heads(config(empty, late))


def test_the_separator_is_that_of_all_csv_files(tmp_path: Path) -> None:
    events = write(tmp_path / "e.csv", "user_id;item_id;timestamp\na;x;1\n")
    items = write(tmp_path / "i.csv", "item_id;title\nx;one\n")
    check_heads(config(events, items=[str(items)], separator=";"))
    items.write_text("item_id,title\nx,one\n")
    says = r"i\.csv has no column 'item_id'[\s\S]*separated by ','\. Of all \.csv files, events' and items'"
    with pytest.raises(DataError, match=says):
        check_heads(config(events, items=[str(items)], separator=";"))


def test_every_file_and_the_item_files_need_their_columns(tmp_path: Path) -> None:
    good = write(tmp_path / "a.csv", HEADER + "a,x,1\n")
    other = write(tmp_path / "b.csv", "user,item_id,timestamp\na,x,1\n")
    with pytest.raises(DataError, match=r"b\.csv has no column 'user_id'"):
        check_heads(config(good, other))
    items = tmp_path / "items.parquet"
    pl.DataFrame({"sku": ["x"]}).write_parquet(items)
    with pytest.raises(DataError, match=r"items\.parquet has no column 'item_id'"):
        check_heads(config(good, items=[str(items)]))
    items.write_bytes(b"no Parquet")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        check_heads(config(good, items=[str(items)]))


@pytest.mark.parametrize("time", ["2020-07-01T10:00:00", "1593597600"])
def test_four_lines_are_enough_for_text_dates_and_for_numbers(tmp_path: Path, time: str) -> None:
    path = write(tmp_path / "sales.csv", f"customer,sku,bought_at\nc,s,{time}\n")
    columns = {"user_id": "customer", "item_id": "sku", "timestamp": "bought_at"}
    assert check_heads(config(path, columns=columns))[:3] == ["user_id", "item_id", "timestamp"]
