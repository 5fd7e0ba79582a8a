"""Neighbour votes: the newest events vote for what other histories had near their items, and near in time.

    near(x)  = 1 / (1 + ln(1 + x / gap_scale)), or 1 without times
    n(j, i)  = sum over pairs of training events of j and, `lag` <= reach events later, of i in one
               history:  worth(i) near(t_i - t_j) / lag;  the other way round `backward` times as much
    p(i | j) = n(j, i) / (shrinkage + sum_i n(j, i)), of which the `kept` largest stay
    v(i)     = mean over the newest events s_1, s_2, ... of p(i | s_d), weighted by near(t_1 - t_d) / d
    added    = weight log(1 + v(i) / floor)

`near` is UniRec's (CIKM 2024, arXiv 2406.18470), which has it in what makes items neighbours; there they
only regularise item vectors, here they score. An item that nobody votes for gets 0, so only the order of
items that were seen near the history's changes. Nothing is learned by gradient; the votes are those of
the training events, and a part of the model's state.

With baskets as sets distances count baskets (0 in the same one) and are one more where they divide: an
event counts once for each later basket within reach, in equal shares for its items, and half for its own
basket, of which none is the later. In which order a basket is written changes nothing, unless `history`
or the model's `max_length` cuts it.

They also score by themselves (`VotesAlone`): what a learned model must beat whose score they join.

Shapes: B sequences, H events that vote, K kept neighbours, C candidates, V items.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from recsys.config import NeighbourVotesConfig, PairVotes, VotesConfig
from recsys.data.batches import SequenceBatch
from recsys.data.recency import Recency
from recsys.data.sequences import Int32, Int64, TrainingData
from recsys.errors import DataError
from recsys.models.contract import CountingModel
from recsys.models.pairs import Block, Float64, basket_pair_blocks, pair_blocks
from recsys.models.votes import fill_up, largest, popularity_fill

Times = TypeVar("Times", Int64, Tensor)


class NeighbourVotes(nn.Module):
    """A table of every item's neighbours and their shares, and the votes of a history through it."""

    neighbours: Tensor  # int32 [V + 1, K], 0 where there are fewer
    shares: Tensor  # float [V + 1, K]

    def __init__(self, config: PairVotes, n_items: int, *, baskets_as_sets: bool = False) -> None:
        super().__init__()
        self.config = config
        self.reads_times = config.gap_scale is not None
        self.baskets_as_sets = baskets_as_sets
        kept = (n_items + 1, min(config.kept, n_items))
        self.register_buffer("neighbours", torch.zeros(kept, dtype=torch.int32))
        self.register_buffer("shares", torch.zeros(kept))

    def fit(self, data: TrainingData) -> None:
        """Count the training events, some items at a time."""
        for rows, pairs in self._pairs(data):
            total = np.asarray(pairs.sum(axis=1)).ravel()
            shrunk = sparse.diags_array(1.0 / (self.config.shrinkage + np.maximum(total, 1e-12)))
            neighbours, shares = kept_columns((shrunk @ pairs).tocsr(), self.neighbours.shape[1])
            self.neighbours[rows] = torch.from_numpy(neighbours)
            self.shares[rows] = torch.from_numpy(shares)

    def _pairs(self, data: TrainingData) -> Iterator[Block]:
        """Return n(j, i) of all items j, in blocks of rows."""
        users, places = data.places()
        items = np.asarray(data.store.items[places])
        by_age = Recency(data, self.config.recency_half_life).worth(places)
        times = None
        if self.config.gap_scale is not None:
            times = np.asarray(_known(data.store.timestamps)[places])

        def worth(earlier: Int64, later: Int64) -> Float64:
            value: Float64 = by_age[later]
            if times is None or self.config.gap_scale is None:
                return value
            apart = np.maximum(times[later] - times[earlier], 0) / self.config.gap_scale
            nearness: Float64 = 1.0 / (1.0 + np.log1p(apart))
            return value * nearness

        size, reach, backward = data.store.n_items + 1, self.config.reach, self.config.backward
        if not self.baskets_as_sets:
            return pair_blocks(
                users, items, size, reach, lambda j, i, lag: worth(j, i) / lag, backward
            )
        if data.store.baskets is None:
            raise DataError(
                "votes of baskets as sets need baskets; map basket_id, or leave baskets out"
            )
        baskets = np.asarray(data.store.baskets[places])
        return basket_pair_blocks(
            users, items, baskets, size, reach, lambda j, i, _: worth(j, i), backward
        )

    def votes(self, batch: SequenceBatch) -> Tensor:
        """Return v(i) of all rows 0..V, float [B, V + 1]; 0 for an empty history."""
        size = len(self.neighbours)
        out = torch.zeros(len(batch), size, dtype=self.shares.dtype, device=batch.last.device)
        if batch.items.numel() == 0:
            return out
        where, there = batch.newest_places(self.config.history)  # [B, H]
        weights = self._weights(batch, where) * there
        weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-12)
        items = torch.where(there, batch.items.flatten()[where], 0)
        values = self.shares[items] * weights[..., None]  # [B, H, K]
        near = self.neighbours[items].long()
        return out.scatter_add_(1, near.flatten(1), values.flatten(1))

    def _weights(self, batch: SequenceBatch, where: Tensor) -> Tensor:
        """Return near(t_1 - t_d) / d of the events at these places, float [B, H]."""
        if not self.baskets_as_sets:
            distance = torch.arange(where.shape[1], device=where.device).expand_as(where)
        else:
            assert batch.baskets is not None  # `order_of` has said so if they are missing
            basket = batch.baskets.flatten()[where]
            distance = (basket[:, :1] - basket).clamp(min=0)
        weights = 1.0 / (1.0 + distance.to(self.shares.dtype))
        if self.config.gap_scale is None:
            return weights
        times = _known(batch.times).flatten()[where]
        apart = (times[:, :1] - times).clamp(min=0).to(weights.dtype)
        return weights / (1.0 + torch.log1p(apart / self.config.gap_scale))

    def bonus(self, batch: SequenceBatch, items: Tensor | None = None) -> Tensor:
        """Return weight log(1 + v / floor), float [B, C], for items [C], or [B, C] row by row."""
        if not isinstance(self.config, VotesConfig):
            raise TypeError("votes without a weight add nothing to a score")
        votes = self.votes(batch)  # [B, V + 1]
        if items is not None:
            votes = votes[:, items] if items.dim() == 1 else votes.gather(1, items)
        return self.config.weight * torch.log1p(votes / self.config.floor)

    def candidates(self, batch: SequenceBatch, count: int) -> Tensor:
        """Return the items of most votes, int64 [B, count or fewer], 0 where nobody has any."""
        found = self.votes(batch).topk(min(count, len(self.neighbours)), dim=1)
        return torch.where(found.values > 0, found.indices, 0)


class VotesAlone(CountingModel):
    """Scores by v(i); items that nobody votes for follow by popularity (negative scores)."""

    fill: Tensor  # float32 [V + 1]

    def __init__(self, config: NeighbourVotesConfig, n_items: int) -> None:
        super().__init__(n_items)
        self.max_length = config.history
        self.reads_baskets = config.baskets == "set"
        self.votes = NeighbourVotes(config, n_items, baskets_as_sets=self.reads_baskets)
        self.reads_times = self.votes.reads_times
        self.register_buffer("fill", popularity_fill(np.zeros(n_items + 1, dtype=np.int64)))

    def fit(self, data: TrainingData) -> None:
        """Count the pairs and the items of the training events."""
        self.votes.fit(data)
        self.fill.copy_(popularity_fill(data.item_counts()))

    def score(self, batch: SequenceBatch, items: Tensor | None = None) -> Tensor:
        """Return votes, or the fill, float32 [B, C]."""
        votes = fill_up(self.votes.votes(batch), self.fill)  # [B, V + 1]
        return votes if items is None else votes[:, items]


def kept_columns(matrix: sparse.csr_array, kept: int) -> tuple[Int32, Float64]:
    """Return the columns of every row's `kept` largest values and these, [rows, kept], 0-filled.

    Largest first, equal ones by column.
    """
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = largest(rows, matrix.indices, matrix.data, kept)
    rows = rows[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    columns = np.zeros((matrix.shape[0], kept), dtype=np.int32)
    values = np.zeros((matrix.shape[0], kept))
    columns[rows, rank], values[rows, rank] = matrix.indices[order], matrix.data[order]
    return columns, values


def _known(times: Times | None) -> Times:
    if times is None:
        raise DataError(
            "votes.gap_scale weighs events by their times, and there are none; give the history's "
            "times, or leave gap_scale out"
        )
    return times
