from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.partitions import (
    arrow_columns,
    read_arrow,
    read_partition,
    user_bounds,
    write_arrow,
    write_shard,
)
from recsys.manifest import written_aside


@given(events=st.lists(st.integers(0, 50), min_size=1, max_size=40), partitions=st.integers(1, 10))
def test_every_user_is_in_one_partition(events: list[int], partitions: int) -> None:
    bounds = user_bounds(np.array(events, dtype=np.int64), partitions)
    assert bounds[0] == 0 and bounds[-1] == len(events)
    assert (np.diff(bounds) > 0).all()
    assert 1 <= len(bounds) - 1 <= partitions


def test_partitions_have_about_equally_many_events() -> None:
    events = np.random.default_rng(0).integers(1, 20, 1000)
    bounds = user_bounds(events, 4)
    sizes = [events[a:b].sum() for a, b in pairwise(bounds)]
    assert len(sizes) == 4
    assert max(sizes) - min(sizes) <= 40


def test_one_large_user_leaves_no_empty_partitions() -> None:
    assert user_bounds(np.array([1, 1000, 1]), 3).tolist() == [0, 2, 3]


def test_partitions_come_back_from_all_shards_in_the_order_of_the_input(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = [
        pl.DataFrame(
            {
                "user": rng.integers(0, 10, n).astype(np.int32),
                "basket_id": [f"b{i}" for i in range(n)],
                "row": np.arange(n) + 1000 * k,
            },
            schema_overrides={"basket_id": pl.String},
        )
        for k, n in enumerate((50, 0, 7))
    ]
    bounds = np.array([0, 3, 4, 9, 10])
    shards = [tmp_path / f"{k}" for k in range(3)]
    for frame, path in zip(frames, shards, strict=True):
        write_shard(frame, bounds, path)
    for p, (first, end) in enumerate(pairwise(bounds)):
        expected = pl.concat(frames).filter((pl.col("user") >= first) & (pl.col("user") < end))
        assert read_partition(shards, p).equals(expected)


def test_arrow_files_keep_frames_and_give_single_columns(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"user": [1, 2], "weight": [0.5, 1.5]}, schema_overrides={"user": pl.Int32}
    )
    path = write_arrow(frame, tmp_path / "frame")
    assert read_arrow(path).equals(frame)
    assert read_arrow(path, ["weight"]).equals(frame.select("weight"))
    assert arrow_columns(path) == ["user", "weight"]


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(RuntimeError), written_aside(path) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert not path.exists()
    assert list(tmp_path.iterdir()) == []
    with written_aside(path) as aside:
        aside.write_text("whole")
    assert path.read_text() == "whole"
