"""Sets of items of any size, packed one after another: what a place is to predict as a whole."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from recsys.data.sequences import Int32, Int64


@dataclass(frozen=True)
class SetRuns:
    """Sets as runs of one array: set n is `pool[start[n]:end[n]]`; runs may overlap and be empty."""

    pool: Int32
    start: Int64
    end: Int64


@dataclass(frozen=True)
class ItemSets:
    """T sets with S members in all; a member stands once in its set.

    Attributes:
        items: int64 [S], 1..V.
        rows: int64 [S], which set each belongs to, ascending.
        offsets: int64 [T + 1]; set t is `offsets[t]:offsets[t + 1]`. It stays with the host, which
            must know the sizes without a look at the device.
    """

    items: Tensor
    rows: Tensor
    offsets: Int64

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def of_runs(cls, runs: SetRuns) -> ItemSets:
        """Copy the sets out of the array they are runs of."""
        sizes = runs.end - runs.start
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        rows = np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)
        where = np.arange(offsets[-1], dtype=np.int64) + (runs.start - offsets[:-1])[rows]
        items = np.asarray(runs.pool[where]).astype(np.int64)
        return cls(torch.from_numpy(items), torch.from_numpy(rows), offsets)

    @classmethod
    def of_lists(cls, sets: list[list[int]]) -> ItemSets:
        """Pack lists, each of different items."""
        sizes = np.array([len(one) for one in sets], dtype=np.int64)
        ends = np.cumsum(sizes)
        pool = np.array([item for one in sets for item in one], dtype=np.int32)
        return cls.of_runs(SetRuns(pool, ends - sizes, ends))

    def select(self, which: Int64) -> ItemSets:
        """Return these sets, int64 [T'], in their order; no device is waited for."""
        sizes = np.diff(self.offsets)[which]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        rows = np.repeat(np.arange(len(which), dtype=np.int64), sizes)
        where = np.arange(offsets[-1], dtype=np.int64) + (self.offsets[which] - offsets[:-1])[rows]
        device = self.items.device
        members = self.items[torch.from_numpy(where).to(device, non_blocking=True)]
        return ItemSets(members, torch.from_numpy(rows).to(device, non_blocking=True), offsets)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> ItemSets:
        """Return the sets on another device."""
        return replace(
            self,
            items=self.items.to(device, non_blocking=non_blocking),
            rows=self.rows.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> ItemSets:
        """Return the sets in page-locked memory."""
        return replace(self, items=self.items.pin_memory(), rows=self.rows.pin_memory())
