from __future__ import annotations

import gzip
import json
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from written import CSV, config, write

from recsys.config import DataConfig
from recsys.data.readers import (
    ROW_BITS,
    plan_pieces,
    read_events,
    read_piece,
)
from recsys.data.times import guess_unit, moment, to_seconds
from recsys.errors import ConfigError, DataError


@pytest.mark.parametrize(
    "suffix", ["csv", "tsv", "jsonl", "ndjson", "csv.gz", "tsv.gz", "jsonl.gz"]
)
def test_every_text_format_gives_the_same_events(tmp_path: Path, suffix: str) -> None:
    if "json" in suffix:
        lines = CSV.splitlines()[1:]
        names = ("user_id", "item_id", "timestamp")
        text = "".join(
            json.dumps(dict(zip(names, line.split(","), strict=True))) + "\n" for line in lines
        )
    else:
        text = CSV.replace(",", "\t") if "tsv" in suffix else CSV
    content = gzip.compress(text.encode()) if suffix.endswith(".gz") else text.encode()
    events, report = read_events(config(write(tmp_path / f"e.{suffix}", content)))
    assert events.to_dict(as_series=False) == {
        "user_id": ["u1", "u1", "u2"],
        "item_id": ["007", "b", "007"],  # leading zeros stay
        "timestamp": [100, 200, 150],
        "row": [0, 1, 2],
    }
    assert (report.rows, report.kept, report.findings) == (3, 3, {})


def test_parquet_keeps_integer_ids_and_makes_whole_floats_integers(tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    frame = pl.DataFrame({"user_id": [17850.0, 12.0], "item_id": [5, 6], "timestamp": [1, 2]})
    frame.write_parquet(path)
    events, _ = read_events(config(str(path)))
    assert events.schema["user_id"] == events.schema["item_id"] == pl.Int64
    assert events["user_id"].to_list() == [17850, 12]


def test_ids_that_are_decimals_or_dates_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    pl.DataFrame({"user_id": [1.5], "item_id": [5], "timestamp": [1]}).write_parquet(path)
    with pytest.raises(DataError, match=r"user_id .*1\.5.*text or whole numbers"):
        read_events(config(str(path)))
    pl.DataFrame({"user_id": [date(2020, 1, 1)], "item_id": [5], "timestamp": [1]}).write_parquet(
        path
    )
    with pytest.raises(DataError, match="type Date"):
        read_events(config(str(path)))


def test_text_ids_are_kept_byte_for_byte(tmp_path: Path) -> None:
    path = write(
        tmp_path / "e.csv", 'user_id,item_id,timestamp\n a ,"x, y",1\nNA,"say ""hi""\nall",2\n'
    )
    events, _ = read_events(config(path))
    assert events["user_id"].to_list() == [" a ", "NA"]
    assert events["item_id"].to_list() == ["x, y", 'say "hi"\nall']


def test_columns_are_mapped_and_a_missing_one_names_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", "CustomerID,asin,when\na,b,1\n")
    columns = {"user_id": "CustomerID", "item_id": "asin", "timestamp": "when"}
    assert read_events(config(path, columns=columns))[0].columns == [
        "user_id", "item_id", "timestamp", "row",
    ]  # fmt: skip
    with pytest.raises(DataError) as caught:
        read_events(config(path))
    message = str(caught.value)
    assert "e.csv has no column 'user_id'" in message
    assert "CustomerID, asin, when" in message
    assert "data.columns.user_id=CustomerID" in message
    with pytest.raises(ConfigError, match=r"'user'.*did you mean 'user_id'"):
        read_events(config(path, columns={"user": "CustomerID"}))


def test_optional_columns_are_taken_when_there_and_left_out_when_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", "user_id,item_id,timestamp,weight,event_type\na,b,1,,buy\n")
    with pytest.raises(DataError, match=r"1 weights are missing.*\n.*row 1"):
        read_events(config(path))
    events, _ = read_events(config(path, columns={"weight": ""}))
    assert events.columns == ["user_id", "item_id", "timestamp", "event_type", "row"]
    with pytest.raises(DataError, match="no column 'stars'"):
        read_events(config(path, columns={"weight": "stars"}))


def test_null_ids_fail_with_rows_choices_and_key_or_are_dropped(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", "user_id,item_id,timestamp\na,b,1\n,c,2\nd,,3\n")
    with pytest.raises(DataError) as caught:
        read_events(config(path))
    message = str(caught.value)
    assert "2 rows without an id (rule null_ids)" in message
    assert "e.csv, row 2: user_id=None, item_id='c', timestamp='2'" in message
    assert "data.on_problem.null_ids=drop" in message and "now: fail" in message
    events, report = read_events(config(path, on_problem={"null_ids": "drop"}))
    assert events["row"].to_list() == [0]
    assert report.findings["null_ids"].count == 2
    assert (report.rows, report.kept) == (3, 1)


def test_bad_times_are_missing_unparsable_and_future_ones(tmp_path: Path) -> None:
    content = "user_id,item_id,timestamp\na,b,1\na,b,\na,b,x\na,b,99999999999\na,b,1.9e3\n"
    path = write(tmp_path / "e.csv", content)
    piece = plan_pieces(config(path))[0]
    events, report = read_piece(piece, config(path))
    assert events["timestamp"].to_list() == [1, 1900]
    assert [bad.row for bad in report.findings["bad_times"].first] == [2, 3, 4]
    relative, report = read_piece(piece, config(path, clock="relative"))
    assert relative["timestamp"].to_list() == [1, 99999999999, 1900]  # offsets know no future
    assert report.findings["bad_times"].count == 2


@pytest.mark.parametrize(
    ("times", "hint"),
    [
        (("1404172800000", "1404172800001"), "data.time_unit=ms"),
        (("01/07/2014", "02/07/2014 10:00"), "strptime pattern as data.time_format"),
    ],
)
def test_bad_times_say_what_they_look_like(
    tmp_path: Path, times: tuple[str, ...], hint: str
) -> None:
    rows = "".join(f"a,b,{time}\n" for time in times)
    with pytest.raises(DataError, match=hint):
        read_events(config(write(tmp_path / "e.csv", f"user_id,item_id,timestamp\n{rows}")))


def test_clock_none_needs_no_times_and_keeps_positions(tmp_path: Path) -> None:
    path = write(tmp_path / "e.tsv", 'user_id\titem_id\tposition\na\t"x\t1\na\ty\tzwei\n')
    data = config(path, clock="none", on_problem={"bad_times": "drop"})
    events, report = read_events(data)
    assert events.to_dicts() == [{"user_id": "a", "item_id": '"x', "position": 1, "row": 0}]
    assert report.findings["bad_times"].first[0].values["position"] == "zwei"
    with pytest.raises(DataError, match=r"data\.clock=none"):
        read_events(config(path))


@pytest.mark.parametrize("group", [3, 10, 25, 100])
def test_parquet_pieces_cover_every_row_once_in_order(tmp_path: Path, group: int) -> None:
    path = tmp_path / "e.parquet"
    frame = pl.DataFrame({"user_id": range(50), "item_id": range(50), "timestamp": range(50)})
    frame.write_parquet(path, row_group_size=group)
    data = config(str(path), str(path.with_name("e.*")), filters={"start": 5})
    pieces = plan_pieces(data, rows_per_piece=12)
    assert all(piece.n_rows is not None and piece.n_rows <= 12 for piece in pieces)
    assert [piece.index for piece in pieces] == list(range(len(pieces)))
    read = [read_piece(piece, data) for piece in pieces]
    assert pl.concat([f for f, _ in read])["user_id"].to_list() == list(range(5, 50))
    assert sum(report.filtered["time_window"] for _, report in read) == 5
    for piece, (events, _) in zip(pieces, read, strict=True):
        file_row = events["row"] - (piece.index << ROW_BITS) + piece.first_row
        assert file_row.to_list() == events["user_id"].to_list()


def test_filters_count_what_they_leave_out(tmp_path: Path) -> None:
    header = "user_id,item_id,timestamp,weight,event_type\n"
    rows = (
        "a,1,1577836799,5,buy\na,2,1577836800,5,buy\na,3,1577836801,2,buy\na,4,1577836802,5,view\n"
    )
    path = write(tmp_path / "e.csv", header + rows + "a,5,1577923200,5,buy\n")
    filters = {"start": "2020-01-01", "end": "2020-01-02", "min_weight": 3, "event_types": ["buy"]}
    events, report = read_events(config(path, filters=filters))
    assert events["item_id"].to_list() == ["2"]
    assert report.filtered == {"time_window": 2, "min_weight": 1, "event_types": 1}
    assert (report.rows, report.kept) == (5, 1)
    plain = write(tmp_path / "p.csv", CSV)
    for wrong, key in (
        ({"min_weight": 1}, "columns.weight"),
        ({"event_types": ["a"]}, "event_type"),
    ):
        with pytest.raises(ConfigError, match=key):
            read_events(config(plain, filters=wrong))
    for fields in (
        {"clock": "none", "basket_minutes": 1},
        {"clock": "none", "filters": {"end": 1}},
    ):
        with pytest.raises(ConfigError, match=r"clock is none"):
            read_events(config(plain, **fields))


def test_baskets_are_slots_of_minutes_unless_the_file_has_its_own(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", "user_id,item_id,timestamp\na,b,-1\na,b,59\na,b,60\na,b,150\n")
    assert read_events(config(path, basket_minutes=1))[0]["basket_id"].to_list() == [-1, 0, 1, 2]
    assert read_events(config(path, basket_minutes=0.5))[0]["basket_id"].to_list() == [-1, 1, 2, 5]
    own = write(tmp_path / "o.csv", "user_id,item_id,timestamp,basket_id\na,b,1,007\n")
    assert read_events(config(own, basket_minutes=1))[0]["basket_id"].to_list() == ["007"]


@pytest.mark.parametrize(
    ("values", "unit", "expected"),
    [
        ([1_500, -1_500, None], "ms", [1, -2, None]),
        ([1.9, float("nan"), float("inf")], "s", [1, None, None]),
        (["1404172800999999", "1.5e15", "x", None], "us", [1404172800, 1500000000, None, None]),
        ([datetime(1970, 1, 1, 0, 1), None], "s", [60, None]),
        ([date(1969, 12, 31)], "ns", [-86400]),
        (
            ["1970-01-02", "1970-01-01T00:00:01.9", "1970-01-01 01:00:00+01:00"],
            "text",
            [86400, 1, 0],
        ),
        (
            ["1970-01-01T00:01Z", "1970-01-01T00:00:05Z", "yesterday", None],
            "text",
            [60, 5, None, None],
        ),
    ],
)
def test_times_of_every_kind_become_whole_seconds(
    values: list[Any], unit: str, expected: list[int | None]
) -> None:
    assert to_seconds(pl.Series("t", values), unit).to_list() == expected


def test_times_in_a_zone_and_in_a_pattern() -> None:
    zoned = pl.Series([datetime(2020, 7, 1, 12)]).dt.replace_time_zone("Europe/Berlin")
    assert to_seconds(zoned, "s").to_list() == [1593597600]  # 10:00 UTC
    german = pl.Series(["01.07.2020 10:00", "2020-07-01 10:00"])
    assert to_seconds(german, "text", "%d.%m.%Y %H:%M").to_list() == [1593597600, None]
    with pytest.raises(ConfigError, match="time_unit is text"):
        to_seconds(pl.Series([1]), "text")


def test_moments_of_the_configuration() -> None:
    assert moment("1970-01-02", "ms", "k") == 86400
    assert moment(5_500, "ms", "k") == 5
    with pytest.raises(ConfigError, match=r"data\.filters\.start.*not an ISO date"):
        moment("soon", "s", "data.filters.start")
    with pytest.raises(ConfigError, match="give an ISO date"):
        moment(5, "text", "data.filters.start")
    assert [guess_unit(1.4e9 * f, 1.5e9 * f) for f in (1, 1e3, 1e6, 1e9)] == ["s", "ms", "us", "ns"]
    assert guess_unit(0, 100) is None


def test_a_preset_must_be_applied_before_reading() -> None:
    with pytest.raises(ConfigError, match="call apply_preset first"):
        plan_pieces(DataConfig(preset="movielens-1m"))
    with pytest.raises(ConfigError, match=r"data\.events is empty"):
        plan_pieces(DataConfig())
