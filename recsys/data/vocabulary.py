"""The only translator between external ids and dense indices.

Items are 1..n (0 is PAD and means "unknown" in `encode`); users are 0..n-1 (-1 means "unknown"). Both
are numbered in ascending order of the external id as text (by its UTF-8 bytes), so the numbering
depends on the set of ids alone, not on the order of the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.data.sequences import Int32
from recsys.errors import ArtifactError
from recsys.schema import ITEM, PAD

DENSE_ITEM = "item"
"""Column of `items.parquet` that holds the dense index."""


class Vocabulary:
    """External ids in index order.

    Args:
        ids: the external ids, distinct, in index order.
        first_index: index of the first id: 1 for items, 0 for users.
    """

    def __init__(self, ids: pl.Series, *, first_index: int) -> None:
        self.ids = ids.cast(pl.String)
        self.first_index = first_index

    @classmethod
    def of_items(cls, ids: Sequence[str] | pl.Series) -> Vocabulary:
        """Return the vocabulary of these item ids, in any order, repeats allowed."""
        return cls(_sorted_distinct(ids), first_index=PAD + 1)

    @classmethod
    def of_users(cls, ids: Sequence[str] | pl.Series) -> Vocabulary:
        """Return the vocabulary of these user (list) ids, in any order, repeats allowed."""
        return cls(_sorted_distinct(ids), first_index=0)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def unknown(self) -> int:
        """What `encode` returns for an id it does not know: 0 (PAD) for items, -1 for users."""
        return self.first_index - 1

    def encode(self, ids: Sequence[str]) -> Int32:
        """Return the dense index of each id, int32; `unknown` where there is none."""
        index, unknown = self._index, self.unknown
        return np.fromiter((index.get(i, unknown) for i in ids), dtype=np.int32, count=len(ids))

    def decode(self, indices: npt.ArrayLike) -> list[str]:
        """Return the external ids of dense indices; `IndexError` names an index out of range."""
        rows = np.asarray(indices, dtype=np.int64) - self.first_index
        bad = (rows < 0) | (rows >= len(self))
        if bad.any():
            wrong = int(rows[bad][0]) + self.first_index
            last = self.first_index + len(self) - 1
            raise IndexError(f"no id has the index {wrong}; indices are {self.first_index}..{last}")
        found: list[str] = self.ids.gather(rows).to_list()
        return found

    def save(self, path: Path) -> None:
        """Write the ids as a Parquet file that `load` reads: `item_id, item` or `user_id`."""
        frame = pl.DataFrame({"user_id": self.ids})
        if self.first_index != 0:
            dense = np.arange(len(self), dtype=np.int32) + np.int32(self.first_index)
            frame = pl.DataFrame({ITEM: self.ids, DENSE_ITEM: dense})
        frame.write_parquet(path)

    @classmethod
    def load(cls, path: Path, column: str) -> Vocabulary:
        """Read column `item_id` (indices from 1) or `user_id` (from 0) of a Parquet file.

        The row is the index; an item file whose `item` column says otherwise is refused.
        """
        if not path.is_file():
            raise ArtifactError(f"{path} is missing; run the prepare stage")
        names = pl.read_parquet_schema(path)
        if column not in names:
            raise ArtifactError(f"{path} has no column {column!r}, only {', '.join(names)}")
        wanted = [column] + ([DENSE_ITEM] if column == ITEM and DENSE_ITEM in names else [])
        frame = pl.read_parquet(path, columns=wanted)
        first_index = PAD + 1 if column == ITEM else 0
        if DENSE_ITEM in wanted:
            rows = np.arange(first_index, first_index + len(frame))
            if not np.array_equal(frame[DENSE_ITEM].to_numpy(), rows):
                raise ArtifactError(f"{path}: column {DENSE_ITEM!r} must count 1, 2, ... in order")
        return cls(frame[column], first_index=first_index)

    @cached_property
    def _index(self) -> dict[str, int]:
        ids: list[str] = self.ids.to_list()
        return dict(zip(ids, range(self.first_index, self.first_index + len(ids)), strict=True))


def _sorted_distinct(ids: Sequence[str] | pl.Series) -> pl.Series:
    series = ids if isinstance(ids, pl.Series) else pl.Series(ids, dtype=pl.String)
    return series.cast(pl.String).unique().sort()
