from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.vocabulary import Vocabulary
from recsys.errors import ArtifactError

IDS = st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=30)


def test_items_count_from_one_in_order_of_their_text() -> None:
    items = Vocabulary.of_items(["b", "10", "9", "é", "B", "b"])
    assert items.decode([1, 2, 3, 4, 5]) == ["10", "9", "B", "b", "é"]
    assert items.encode(["é", "nobody", "10"]).tolist() == [5, 0, 1]
    assert len(items) == 5


def test_users_count_from_zero_and_the_unknown_is_minus_one() -> None:
    users = Vocabulary.of_users(["u2", "u1"])
    assert users.encode(["u1", "u2", "u3"]).tolist() == [0, 1, -1]
    assert users.encode([]).dtype == np.int32
    assert users.decode([1, 0]) == ["u2", "u1"]


@pytest.mark.parametrize("index", [0, 3, -1])
def test_an_index_out_of_range_is_named(index: int) -> None:
    with pytest.raises(IndexError, match=rf"index {index}; indices are 1\.\.2"):
        Vocabulary.of_items(["a", "b"]).decode([1, index])


@given(ids=IDS)
def test_encode_and_decode_are_each_others_inverse(ids: list[str]) -> None:
    for vocabulary in (Vocabulary.of_items(ids), Vocabulary.of_users(ids)):
        assert vocabulary.decode(vocabulary.encode(ids)) == ids
        every = np.arange(len(vocabulary)) + vocabulary.first_index
        assert np.array_equal(vocabulary.encode(vocabulary.decode(every)), every)
        assert vocabulary.decode(every) == sorted(set(ids))


def test_the_numbering_does_not_depend_on_the_order_of_the_ids() -> None:
    ids = [str(n) for n in range(100)]
    assert Vocabulary.of_items(ids).decode([1, 50]) == Vocabulary.of_items(ids[::-1]).decode(
        [1, 50]
    )


def test_saved_vocabularies_load_as_they_were(tmp_path: Path) -> None:
    items, users = Vocabulary.of_items(["b", "a"]), Vocabulary.of_users(["y", "x"])
    items.save(tmp_path / "items.parquet")
    users.save(tmp_path / "users.parquet")
    assert Vocabulary.load(tmp_path / "items.parquet", "item_id").encode(["b", "?"]).tolist() == [
        2,
        0,
    ]
    assert Vocabulary.load(tmp_path / "users.parquet", "user_id").encode(["y", "?"]).tolist() == [
        1,
        -1,
    ]


def test_attributes_beside_the_ids_do_not_matter(tmp_path: Path) -> None:
    frame = pl.DataFrame({"item_id": ["a", "b"], "item": [1, 2], "title": ["A", "B"]})
    frame.write_parquet(tmp_path / "items.parquet")
    assert Vocabulary.load(tmp_path / "items.parquet", "item_id").encode(["b"]).tolist() == [2]


def test_a_file_out_of_order_is_refused(tmp_path: Path) -> None:
    frame = pl.DataFrame({"item_id": ["a", "b"], "item": [2, 1]})
    frame.write_parquet(tmp_path / "items.parquet")
    with pytest.raises(ArtifactError, match="must count 1, 2"):
        Vocabulary.load(tmp_path / "items.parquet", "item_id")


def test_a_missing_file_or_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"items\.parquet is missing"):
        Vocabulary.load(tmp_path / "items.parquet", "item_id")
    pl.DataFrame({"name": ["a"]}).write_parquet(tmp_path / "items.parquet")
    with pytest.raises(ArtifactError, match="no column 'item_id', only name"):
        Vocabulary.load(tmp_path / "items.parquet", "item_id")
