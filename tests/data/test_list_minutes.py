"""Events of a user cut into lists by the clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsys.config import DataConfig
from recsys.data.readers import read_events
from recsys.errors import ConfigError

LINES = "user_id,item_id,timestamp\nKX,a,-1\nKX,b,0\nKX,c,10799\nKX,d,10800\nLY,a,10800\n"


def lists(path: Path, **fields: object) -> list[str]:
    data = DataConfig(events=[str(path)], kind="lists", list_minutes=180, **fields)  # type: ignore[arg-type]
    return read_events(data)[0]["user_id"].to_list()


def test_a_list_is_a_users_slot(tmp_path: Path) -> None:
    path = tmp_path / "plays.csv"
    path.write_text(LINES, encoding="utf-8")
    assert lists(path) == [
        "KX 1969-12-31T21:00:00",
        "KX 1970-01-01T00:00:00",
        "KX 1970-01-01T00:00:00",
        "KX 1970-01-01T03:00:00",
        "LY 1970-01-01T03:00:00",
    ]
    names = ["KX -10800", "KX 0", "KX 0", "KX 10800", "LY 10800"]
    assert lists(path, clock="relative") == names


def test_it_needs_times_and_lists(tmp_path: Path) -> None:
    path = tmp_path / "plays.csv"
    path.write_text(LINES, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"list_minutes=180\.0 needs times"):
        lists(path, clock="none")
    with pytest.raises(ConfigError, match=r"set data\.kind: lists"):
        read_events(DataConfig(events=[str(path)], list_minutes=180))
