from __future__ import annotations

import gzip
import json
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
import yaml
from rich.console import Console

from recsys.config import DataConfig
from recsys.data.blocks import BLOCK_BYTES
from recsys.data.describe import FileSummary, describe
from recsys.data.readers import read_events
from recsys.data.tally import KEPT_HASHES, ColumnTally, Distinct
from recsys.errors import DataError


def describe_text(path: Path, content: str | bytes) -> FileSummary:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (file,) = describe([path]).files
    return file


def test_a_csv_is_counted_ranged_and_given_roles(tmp_path: Path) -> None:
    file = describe_text(
        tmp_path / "log.csv",
        "reviewerID,asin,stars,unixReviewTime,note\n"
        "a,007,1.5,1404172800,\nb,7,5,1404172900,hi\na,7,4,1404259200, hi\n",
    )
    assert (file.rows, file.format) == (3, "csv")
    by_name = {column.name: column for column in file.columns}
    assert [column.role for column in file.columns] == [
        "user_id",
        "item_id",
        None,
        "timestamp",
        None,
    ]
    assert (by_name["stars"].looks, by_name["stars"].minimum, by_name["stars"].maximum) == (
        "numbers", 1.5, 5.0,
    )  # fmt: skip
    assert (by_name["asin"].distinct, by_name["asin"].exact) == (2, True)
    assert (by_name["note"].nulls, by_name["note"].padded) == (1, 1)
    assert by_name["unixReviewTime"].unit == "s"
    assert by_name["unixReviewTime"].seconds == (1404172800, 1404259200)


def test_its_yaml_reads_the_file(tmp_path: Path) -> None:
    file = describe_text(
        tmp_path / "a log, [1].csv",
        "customer;x,product,when\nc,p,2020-07-01 10:00\nd,q,2020-07-02\n",
    )
    section = yaml.safe_load(file.yaml)["data"]
    assert section["clock"] == "absolute" and section["time_unit"] == "text"
    events, _ = read_events(DataConfig.model_validate(section))
    assert events["user_id"].to_list() == ["c", "d"]
    assert events["timestamp"].to_list() == [1593597600, 1593648000]


def test_typed_dates_and_milliseconds_and_offsets(tmp_path: Path) -> None:
    frames = {
        "dates": (pl.Series([datetime(2020, 1, 1), datetime(2020, 1, 3)]), "absolute", "s"),
        "millis": (pl.Series([1404172800000, 1404172900000]), "absolute", "ms"),
        "offsets": (pl.Series([0, 86400]), "relative", "s"),
    }
    for name, (values, clock, unit) in frames.items():
        path = tmp_path / f"{name}.parquet"
        pl.DataFrame({"user_id": [1, 2], "item_id": [3, 4], "timestamp": values}).write_parquet(
            path
        )
        section = yaml.safe_load(describe([path]).files[0].yaml)["data"]
        assert (section["clock"], section["time_unit"]) == (clock, unit), name
        read_events(DataConfig.model_validate(section))


def test_one_column_of_moments_needs_no_telling_name(tmp_path: Path) -> None:
    rows = "a,7,1601344094136\na,8,1601346394981\n"
    file = describe_text(tmp_path / "plays.csv", f"user,item,at\n{rows}")
    moment = file.role("timestamp")
    assert moment is not None and (moment.name, moment.unit) == ("at", "ms")
    assert "timestamp: at" in file.yaml and "time_unit: ms" in file.yaml

    rows = "a,7,1601344094136,1601344094137\n"
    assert describe_text(tmp_path / "two.csv", f"user,item,at,by\n{rows}").role("timestamp") is None


def test_moments_beat_names_that_only_sound_like_time(tmp_path: Path) -> None:
    file = describe_text(tmp_path / "s.csv", "user,song,playtime,ts\na,x,30,1404172800\n")
    moment = file.role("timestamp")
    assert moment is not None and moment.name == "ts"


def test_problems_are_told(tmp_path: Path) -> None:
    file = describe_text(
        tmp_path / "e.csv", b"user_id,item_id,timestamp\n,x ,99999999999\na,caf\xe9,1\nb,y,\n"
    )
    told = "\n".join(file.problems)
    assert "1 lines are not UTF-8" in told and "line 3, byte 6 is 0xe9" in told
    assert "user_id is missing in 1 rows (data.on_problem.null_ids" in told
    assert "timestamp is missing in 1 rows (data.on_problem.bad_times" in told
    assert "item_id: blanks at the beginning or end of 1 values" in told
    assert file.rows == 2


def test_a_header_without_rows_shows_its_columns_and_suggests_nothing(tmp_path: Path) -> None:
    none = describe_text(tmp_path / "n.csv", "a,b\n")
    assert none.problems == (f"{tmp_path / 'n.csv'}: the file has no rows",)
    assert [column.name for column in none.columns] == ["a", "b"]
    assert none.yaml == ""


@pytest.mark.parametrize("bad", ["n/a", "soon"])
@pytest.mark.parametrize(("good", "unit"), [("2020-07-01 10:00", "text"), ("1593597600000", "ms")])
def test_one_bad_time_does_not_take_the_columns_role(
    tmp_path: Path, bad: str, good: str, unit: str
) -> None:
    rows = f"a,x,{bad}\n" + f"a,y,{good}\n" * 3
    file = describe_text(tmp_path / "e.csv", "user_id,item_id,bought_time\n" + rows)
    moment = file.role("timestamp")
    assert moment is not None and (moment.unit, moment.unparsed) == (unit, 1)
    assert file.problems == (
        "bought_time: 1 values do not parse as times (data.on_problem.bad_times: drop or fail)",
    )
    section = yaml.safe_load(file.yaml)["data"]
    assert (section["clock"], section["time_unit"]) == ("absolute", unit)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("e.parquet", b"PAR1", "not a readable Parquet file"),
        ("e.jsonl", b"{bad json\n", "row 1: not JSON"),
        ("e.csv.gz", gzip.compress(b"user_id,item_id\na,b\n")[:-9], "not a whole gzip file"),
        ("e.csv", b"user_id,item_id\na,b,c,d\n", "not well-formed csv"),
        ("e.csv", b"", "is empty"),
        ("e.jsonl", b"", "has no rows"),
    ],
)
def test_of_what_nothing_can_be_read_is_an_error(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        describe_text(tmp_path / name, content)


def test_one_bad_offset_leaves_a_relative_clock(tmp_path: Path) -> None:
    rows = "a,x,100\na,y,200\na,z,xx\n"
    file = describe_text(tmp_path / "e.csv", "user_id,item_id,timestamp\n" + rows)
    assert yaml.safe_load(file.yaml)["data"]["clock"] == "relative"
    assert file.problems[0].startswith("timestamp: 1 values do not parse as times")


def test_another_separator_is_told_and_nothing_suggested(tmp_path: Path) -> None:
    file = describe_text(tmp_path / "e.tsv", "user_id;item_id\na;b\n")
    assert any("seem to be separated by ';'" in told for told in file.problems)
    assert file.yaml == ""
    file = describe_text(tmp_path / "e.csv", '"user;id"\na\n')  # one name, in quotes
    assert [column.name for column in file.columns] == ["user;id"] and file.yaml == ""
    file = describe_text(tmp_path / "q.csv", '"user, item"\na\n')
    assert not any("separated" in told for told in file.problems)
    file = describe_text(tmp_path / "m.csv", "user_id::item_id::timestamp\na::x::1\n")
    assert any("separated by '::'; they must be by one character" in told for told in file.problems)
    assert file.yaml == ""


@pytest.mark.parametrize("sign", [";", "\t", "|", ":", " "])
def test_another_separator_of_csv_is_found_and_suggested(tmp_path: Path, sign: str) -> None:
    price = "price,EUR" if sign in ";|\t" else "price"
    text = f"customer{sign}sku{sign}day{sign}{price}\na{sign}x{sign}2024-01-01{sign}1\n"
    file = describe_text(tmp_path / "e.csv", text)
    assert file.format == f"csv separated by {sign!r}" and not file.problems
    data = DataConfig(**yaml.safe_load(file.yaml)["data"])
    assert data.separator == sign
    assert read_events(data)[0].select("user_id", "item_id").rows() == [("a", "x")]


def test_a_file_that_breaks_off_is_described_up_to_there(tmp_path: Path) -> None:
    whole = '{"user_id": 1}\n' * (BLOCK_BYTES // 15 + 9)
    file = describe_text(tmp_path / "e.jsonl", whole + '{"user_id":\n')
    assert file.rows > 1_000_000 and f"reading stopped after {file.rows:,}" in file.problems[0]
    with pytest.raises(DataError, match="suffix"):
        describe_text(tmp_path / "e.bin", "x")


def test_json_lines_keep_types_and_absent_keys_are_nulls(tmp_path: Path) -> None:
    file = describe_text(
        tmp_path / "i.jsonl", '{"item_id": "a", "tags": ["x"]}\n{"item_id": "b", "price": 2}\n'
    )
    summary = {column.name: (column.dtype, column.looks, column.nulls) for column in file.columns}
    assert summary == {
        "item_id": ("String", "text", 0),
        "tags": ("List(String)", "nested", 1),
        "price": ("Int64", "whole numbers", 1),
    }
    assert yaml.safe_load(file.yaml)["data"]["items"] == [str(tmp_path / "i.jsonl")]


def test_it_renders_and_is_plain_data(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("user_id,item_id,timestamp\na,b,1404172800\n")
    description = describe([tmp_path / "*.csv"])
    console = Console(width=160, record=True, file=(tmp_path / "out").open("w"))
    console.print(description.render())
    console.file.close()
    text = console.export_text()
    assert "1 rows" in text and "2014-07-01 00:00:00" in text and "clock: absolute" in text
    assert json.loads(json.dumps(description.to_dict()))["files"][0]["rows"] == 1


def test_histories_as_lists_are_told_how_to_become_events(tmp_path: Path) -> None:
    path = tmp_path / "histories.parquet"
    pl.DataFrame({"user_id": [1, 2], "history": [[1, 2], [3]]}).write_parquet(path)
    (advice,) = [p for p in describe([path]).files[0].problems if "history" in p]
    assert "frame.explode('history')" in advice
    with_items = pl.DataFrame({"item_id": ["a"], "tags": [["x", "y"]]})
    with_items.write_parquet(path)
    assert describe([path]).files[0].problems == ()


def test_distinct_is_exact_when_few_and_close_when_many() -> None:
    few, many = Distinct(), Distinct()
    for start in range(0, 300_000, 50_000):
        few.add(pl.Series(range(1000)))
        many.add(pl.Series(range(start, start + 75_000)))  # half of each piece comes again
    assert (few.count(), few.exact) == (1000, True)
    assert not many.exact and len(many.hashes) == KEPT_HASHES
    assert many.count() == pytest.approx(325_000, rel=0.02)


def test_a_tally_over_pieces_is_the_tally_of_the_whole() -> None:
    values = ["3", "10", None, "2.5", "x y"]
    looks = []
    for size in (1, 2, 5):
        tally = ColumnTally("c")
        for start in range(0, len(values), size):
            tally.add(pl.Series("c", values[start : start + size], dtype=pl.String))
        summary = tally.summary()
        looks.append(
            (summary.looks, summary.minimum, summary.maximum, summary.nulls, summary.distinct)
        )
    assert looks == [("text", "10", "x y", 1, 4)] * 3
