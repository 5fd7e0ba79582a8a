"""A synthetic event log of any size: Zipf items, skewed users, in order of time, in bounded memory.

python tests/benchmarks/generator.py events.parquet --rows 20000000
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

FIRST_TIME = 1_600_000_000
SECONDS = 3 * 365 * 86_400


@dataclass(frozen=True)
class Log:
    """What the log looks like.

    Attributes:
        rows: events.
        users: user u has an activity drawn from a log-normal with sigma 1.
        items: the item of rank r has a probability proportional to `r ** -zipf`.
        sparse_ids: ids drawn from 63-bit numbers instead of 1..n.
        seed: two logs with equal fields are equal.
    """

    rows: int = 20_000_000
    users: int = 200_000
    items: int = 100_000
    zipf: float = 1.0
    sparse_ids: bool = False
    seed: int = 0

    def blocks(self, rows_per_block: int = 1_000_000) -> Iterator[pa.Table]:
        """Yield the log's rows `user_id, item_id, timestamp` (int64, seconds) in order of time."""
        rng = np.random.default_rng(self.seed)
        user_ids, item_ids = self._ids(rng, self.users), self._ids(rng, self.items)
        user_upto = np.cumsum(rng.lognormal(0.0, 1.0, self.users))
        item_upto = np.cumsum(np.arange(1, self.items + 1) ** -self.zipf)
        for first in range(0, self.rows, rows_per_block):
            n = min(rows_per_block, self.rows - first)
            low, high = (SECONDS * at // self.rows for at in (first, first + n))
            yield pa.table(
                {
                    "user_id": user_ids[draw(rng, user_upto, n)],
                    "item_id": item_ids[draw(rng, item_upto, n)],
                    "timestamp": FIRST_TIME + np.sort(rng.integers(low, max(high, low + 1), n)),
                }
            )

    def _ids(self, rng: np.random.Generator, n: int) -> npt.NDArray[np.int64]:
        if not self.sparse_ids:
            return rng.permutation(n).astype(np.int64) + 1
        return rng.permutation(np.unique(rng.integers(1, 1 << 62, n + n // 8 + 8)))[:n]

    def write(self, path: Path) -> None:
        """Write the log as a Parquet file with a row group per million rows."""
        blocks = self.blocks()
        first = next(blocks)
        with pq.ParquetWriter(path, first.schema, compression="snappy") as writer:
            writer.write_table(first)
            for block in blocks:
                writer.write_table(block)


def draw(rng: np.random.Generator, upto: npt.NDArray[np.float64], n: int) -> npt.NDArray[np.int64]:
    """Draw n indices with the probabilities whose running sum is `upto` (not normalised)."""
    return np.searchsorted(upto, rng.random(n) * upto[-1], side="right").astype(np.int64)


def main() -> None:
    """Write one log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--rows", type=int, default=Log.rows)
    parser.add_argument("--users", type=int, default=Log.users)
    parser.add_argument("--items", type=int, default=Log.items)
    parser.add_argument("--zipf", type=float, default=Log.zipf)
    parser.add_argument("--sparse-ids", action="store_true")
    parser.add_argument("--seed", type=int, default=Log.seed)
    fields = vars(parser.parse_args())
    path = fields.pop("path")
    Log(**fields).write(path)


if __name__ == "__main__":
    main()
