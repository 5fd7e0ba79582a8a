from __future__ import annotations

from pathlib import Path

import pytest
from written import CSV, write

from recsys.data.formats import Format, find_files, format_of
from recsys.errors import DataError


def test_files_are_ordered_by_pattern_then_name_and_counted_once(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "c.tsv"):
        write(tmp_path / name, CSV)
    patterns = [str(tmp_path / "c.tsv"), str(tmp_path / "*.csv"), str(tmp_path / "a.csv")]
    assert [path.name for path in find_files(patterns, "data.events")] == [
        "c.tsv",
        "a.csv",
        "b.csv",
    ]
    with pytest.raises(DataError, match=r"data\.events: no file matches .*x\*"):
        find_files([str(tmp_path / "x*")], "data.events")
    with pytest.raises(DataError, match=r"does not exist.*a\.csv, b\.csv"):
        find_files([str(tmp_path / "d.csv")], "data.events")
    with pytest.raises(DataError, match="is a directory"):
        find_files([str(tmp_path)], "data.events")


def test_formats_are_told_by_suffix_or_refused() -> None:
    assert str(format_of(Path("a.b.JSON.gz"))) == "jsonl.gz"
    assert format_of(Path("a.tsv.gz"), ";") == Format("tsv", gzipped=True)
    assert str(format_of(Path("a.csv.gz"), ";")) == "csv.gz separated by ';'"
    for name in ("a.xlsx", "a", "a.parquet.gz", "a.gz", ".csv.zip"):
        with pytest.raises(DataError, match="suffix does not tell"):
            format_of(Path(name))
