from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written import CSV, config, write

from recsys.config import DataConfig
from recsys.data.blocks import read_blocks
from recsys.data.formats import Format
from recsys.data.readers import (
    iter_piece,
    plan_pieces,
    read_events,
    read_items,
    read_piece,
)
from recsys.errors import DataError


def test_records_that_are_not_utf8_are_named_by_line_and_byte(tmp_path: Path) -> None:
    content = b'user_id,item_id,timestamp\na,"x\ny",1\nb,caf\xe9,2\nc,z,3\n\nd,w,4\n'
    path = write(tmp_path / "e.csv", content)
    with pytest.raises(DataError) as caught:
        read_events(config(path))
    # The record is the second, on the fourth line because the first holds a line end.
    assert "e.csv, row 2: line 4, byte 6 is 0xe9, not UTF-8" in str(caught.value)
    assert "data.on_problem.bad_encoding=drop" in str(caught.value)
    events, report = read_events(config(path, on_problem={"bad_encoding": "drop"}))
    assert events["user_id"].to_list() == ["a", "c", "d"]
    assert events["row"].to_list() == [0, 2, 3]
    assert report.findings["bad_encoding"].count == 1
    assert (report.rows, report.kept) == (4, 3)


def test_a_header_that_is_not_utf8_or_repeats_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 1: byte 5 is 0xe9"):
        read_events(config(write(tmp_path / "a.csv", b"user\xe9,b\n1,2\n")))
    with pytest.raises(DataError, match="header repeats user_id"):
        read_events(config(write(tmp_path / "b.csv", "user_id,item_id,user_id\n1,2,3\n")))
    with pytest.raises(DataError, match="empty"):
        read_events(config(write(tmp_path / "c.csv", "")))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "e.csv",
            "user_id,item_id,timestamp\na,b,1\na,b,1,2\n",
            r"lines 2 to 3 are not well-formed csv: *\n  line 3: 4 fields instead of 3: 'a,b,1,2'",
        ),
        (
            "q.csv",
            'user_id,item_id,timestamp\na,b,1\n"a"x,b,2\n',
            r"not well-formed csv: *\n  the record that begins in line 3: ",
        ),
        (
            "e.tsv",
            "user_id\titem_id\ttimestamp\na\tb\t1\na\tb\t1\t2\n",
            "line 3: 4 fields instead of 3",
        ),
        (
            "e.jsonl",
            '{"user_id": 1, "item_id": 2, "timestamp": 3}\n{"user_id": \n',
            "row 2: not JSON",
        ),
        ("e.json", '[{"user_id": 1}]\n', "a list, expected one JSON object a line"),
    ],
)
def test_malformed_records_name_file_and_place(
    tmp_path: Path, name: str, content: str, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        read_events(config(write(tmp_path / name, content)))


def test_short_records_lack_their_last_fields_wherever_they_stand(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", "user_id,item_id,timestamp,note\na,b\nc,d,2\ne,f,3,x\n")
    data = config(path, on_problem={"bad_times": "drop"})
    (piece,) = plan_pieces(data)
    for size in (1, 1 << 20):
        read = list(iter_piece(piece, data, block_bytes=size))
        assert [row for events, _ in read for row in events["row"]] == [1, 2]
        assert sum(r.findings["bad_times"].count for _, r in read if r.findings) == 1


def test_another_separator_is_pointed_at(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", "user_id;item_id;timestamp\na;b;1\n")
    with pytest.raises(DataError, match=r"fields seem to be separated by ';'.*separator: \";\""):
        read_events(config(path))
    with pytest.raises(DataError, match=r"separated by '\\t'.*separator: \"\\t\""):
        read_events(config(write(tmp_path / "f.csv", "user_id\titem_id\ttimestamp\na\tb\t1\n")))


@pytest.mark.parametrize("separator", [";", "|", "\t", ":", " "])
def test_csv_may_have_another_separator(tmp_path: Path, separator: str) -> None:
    """Quotes, commas and short records as with commas; TSV keeps its tabs beside it."""
    rows = [
        ["user_id", "item_id", "timestamp"],
        ["a,b", f'"x{separator}""y"', "1"],
        ["c", "d", "2"],
    ]
    text = "".join(separator.join(row) + "\n" for row in rows)
    write(tmp_path / "e.csv", text + separator.join(["e", "f"]) + "\n")
    write(tmp_path / "g.tsv", "user_id\titem_id\ttimestamp\nu;|: \tv\t3\n")
    data = DataConfig(
        events=[str(tmp_path / "e.csv"), str(tmp_path / "g.tsv")],
        items=[
            str(write(tmp_path / "i.csv", f'item_id{separator}title\nd{separator}"one, two"\n'))
        ],
        separator=separator,
        on_problem={"bad_times": "drop"},
    )
    events, report = read_events(data)
    assert events.select("user_id", "item_id", "timestamp").rows() == [
        ("a,b", f'x{separator}"y', 1),
        ("c", "d", 2),
        ("u;|: ", "v", 3),
    ]
    assert report.findings["bad_times"].count == 1
    items, _ = read_items(data)
    assert items is not None and items.rows() == [("d", "one, two")]


@pytest.mark.parametrize("separator", ["", ";;", '"', "\n", "\x00", "a", "7", "é"])
def test_no_other_sign_separates(separator: str) -> None:
    with pytest.raises(ValueError, match="it is one sign, no letter, digit or quote, in quotes so"):
        DataConfig(separator=separator)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    whole = gzip.compress(CSV.encode() * 1000)
    for name, content in (
        ("a.csv.gz", whole[:-20]),
        ("b.csv.gz", b"no gzip"),
        ("c.parquet", b"PAR1"),
    ):
        path = write(tmp_path / name, content)
        with pytest.raises(DataError, match=f"{name} is not a"):
            read_events(config(path))


def test_json_numbers_become_text_ids_and_missing_keys_null(tmp_path: Path) -> None:
    content = '{"user_id": 7, "item_id": "007", "timestamp": 5}\n{"user_id": "x", "timestamp": 6}\n'
    events, _ = read_events(
        config(write(tmp_path / "e.jsonl", content), on_problem={"null_ids": "drop"})
    )
    assert events.to_dicts() == [{"user_id": "7", "item_id": "007", "timestamp": 5, "row": 0}]


def test_byte_order_mark_and_windows_line_ends_are_taken_off(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + CSV.replace("\n", "\r\n").encode()
    events, _ = read_events(config(write(tmp_path / "e.csv", content)))
    assert events["timestamp"].to_list() == [100, 200, 150]
    assert events["user_id"].to_list() == ["u1", "u1", "u2"]


def test_an_empty_file_gives_the_columns(tmp_path: Path) -> None:
    for name in ("e.csv", "e.parquet"):
        path = tmp_path / name
        empty = pl.DataFrame(
            schema={"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}
        )
        empty.write_csv(path) if name == "e.csv" else empty.write_parquet(path)
        events, _ = read_events(config(str(path)))
        assert events.columns == ["user_id", "item_id", "timestamp", "row"]
        assert events.height == 0


def test_text_is_read_in_bounded_batches_with_the_same_result(tmp_path: Path) -> None:
    rows = "".join(f'u{i % 7},"item {i}\nline",{i}\n' for i in range(500))
    path = write(tmp_path / "e.csv", f"user_id,item_id,timestamp\n{rows}")
    (piece,) = plan_pieces(config(path))
    whole, _ = read_piece(piece, config(path))
    parts = [frame for frame, _ in iter_piece(piece, config(path), block_bytes=300)]
    assert len(parts) > 20 and max(part.height for part in parts) < 50
    assert pl.concat(parts).equals(whole)
    assert whole["row"].to_list() == list(range(500))


@settings(max_examples=60, deadline=None)
@given(
    fields=st.lists(
        st.text(alphabet='ab,"\n\ré;', min_size=1, max_size=6).map(lambda text: f"x{text}"),
        max_size=20,
    ),
    size=st.integers(1, 64),
)
def test_blocks_cut_between_records_whatever_the_fields_hold(
    fields: list[str], size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    quoted = "".join('"' + field.replace('"', '""') + '",1\n' for field in fields)
    path = Path(write(tmp_path_factory.mktemp("blocks") / "e.csv", f"name,n\n{quoted}"))
    blocks = list(read_blocks(path, Format("csv"), size))
    assert b"".join(block.data for block in blocks) == quoted.encode()
    assert sum(block.n_rows for block in blocks) == len(fields)
