"""TiSASRec: self-attention in which every pair of events also has the interval of time between them.

Source: Li, Wang and McAuley 2020, "Time Interval Aware Self-Attention for Sequential Recommendation".
With r_ij = min(k, floor(|t_i - t_j| / shortest positive gap of the history)) and learned vectors for
intervals (rK, rV) and places (pK, pV):

    e_ij = q_i.(k_j + rK_ij + pK_j) / sqrt(D / H),    y_i = sum_j softmax_j(e_ij) (v_j + rV_ij + pV_j)

Differences from the paper: the shortest gap is that of the events which are read up to the place i that
asks, not of the user's whole history: so no place knows how soon later events follow, which at training
it would and when recommending it cannot; pre-norm or LiGR blocks and any loss, as `sasrec` has them;
places count from the oldest kept event; no dropout on attention weights; linear maps have no biases;
tables are drawn from N(0, 0.02^2) and weight decay is the optimiser's.

Shapes: R rows, L places, D width, H heads, V items, K = k + 1 intervals.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.config import TiSASRecConfig
from recsys.data.batches import SequenceBatch
from recsys.errors import DataError
from recsys.models.contract import EncoderModel
from recsys.models.layers import FeedForward, GatedFeedForward, draw_weights
from recsys.models.order import mean_of_newest_basket, order_of
from recsys.models.time_encoding import previous_times
from recsys.models.unit_rows import unit_rows
from recsys.schema import PAD


class Relations(NamedTuple):
    """How the places of a batch relate."""

    mask: Tensor
    """bool [R, 1, L, L]: who sees whom."""
    intervals: Tensor
    """int64 [R, L, L], 0..k."""
    interval_keys: Tensor
    """float [K, D]; the next three as well, those of places [R, L, D]."""
    interval_values: Tensor
    place_keys: Tensor
    place_values: Tensor


class TiSASRec(EncoderModel):
    """A causal transformer whose attention reads the times between events."""

    learns_by = "hidden"

    def __init__(self, config: TiSASRecConfig, n_items: int) -> None:
        super().__init__(n_items, config.width)
        self.max_length = config.max_length
        self.normalise = config.normalise
        self.temperature = config.training.loss.temperature
        self.largest = config.intervals
        self.reads_times, self.reads_baskets = True, config.baskets == "set"
        self.item_table = nn.Embedding(n_items + 1, config.width, padding_idx=PAD)
        self.interval_keys = nn.Embedding(config.intervals + 1, config.width)
        self.interval_values = nn.Embedding(config.intervals + 1, config.width)
        self.place_keys = nn.Embedding(config.max_length, config.width)
        self.place_values = nn.Embedding(config.max_length, config.width)
        self.blocks = nn.ModuleList(IntervalBlock(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)
        draw_weights(self)

    def hidden(self, batch: SequenceBatch) -> Tensor:
        """Return a query vector for every place, float [R, L, D]."""
        if batch.times is None:
            raise DataError("tisasrec reads times, and the batch has none; use data with a clock")
        positions, mask = order_of(batch, self.reads_baskets)
        relations = Relations(
            mask,
            personal_intervals(batch.times, batch.segments, self.largest),
            self.interval_keys.weight,
            self.interval_values.weight,
            self.place_keys(positions),
            self.place_values(positions),
        )
        x = self.dropout(self.item_table(batch.items))  # [R, L, D]
        for block in self.blocks:
            x = block(x, relations)
        x = self.norm(x)
        return F.normalize(x, dim=-1) if self.normalise else x

    def encode_sequences(self, batch: SequenceBatch) -> Tensor:
        """Return one vector per sequence, float [B, D]; an empty one gets `default_query`.

        With baskets as sets it is the mean over the places of the newest basket.
        """
        if not self.reads_baskets or batch.items.numel() == 0:
            return super().encode_sequences(batch)
        queries = mean_of_newest_basket(self.hidden(batch), batch)  # [B, D]
        queries = F.normalize(queries, dim=-1) if self.normalise else queries
        return torch.where(batch.last[:, None] < 0, self.default_query, queries)

    def encode_items(self, items: Tensor | None = None) -> Tensor:
        """Return rows of the item table, float [C, D]."""
        table = self.item_table.weight if items is None else self.item_table(items)
        return unit_rows(table) if self.normalise else table


class IntervalAttention(nn.Module):
    """Multi-head attention with vectors of intervals and places beside keys and values.

    No vector of a pair is ever made: q.rK is taken for all K intervals and looked up, and a place's
    weights are summed by interval before they meet rV.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, relations: Relations) -> Tensor:
        """Return the attended places, float [R, L, D]."""
        rows, length, width = x.shape
        q, k, v = self.qkv(x).chunk(3, dim=-1)  # each [R, L, D]
        query = self._split(q)  # [R, H, L, D / H]
        key, value = self._split(k + relations.place_keys), self._split(v + relations.place_values)
        by_interval = query @ self._split(relations.interval_keys[None]).mT  # [R, H, L, K]
        where = relations.intervals[:, None].expand(-1, self.heads, -1, -1)  # [R, H, L, L]
        scores = query @ key.mT + by_interval.gather(-1, where)  # [R, H, L, L]
        scores = scores / (width // self.heads) ** 0.5
        weights = scores.masked_fill(~relations.mask, -torch.inf).softmax(dim=-1)
        summed = torch.zeros_like(by_interval).scatter_add(-1, where, weights)  # [R, H, L, K]
        y = weights @ value + summed @ self._split(relations.interval_values[None])
        out: Tensor = self.out(y.transpose(1, 2).reshape(rows, length, width))  # [R, L, D]
        return out

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)  # [R, H, L, D / H]


class IntervalBlock(nn.Module):
    """A pre-norm or LiGR block (see `layers`) around the attention to intervals."""

    def __init__(self, config: TiSASRecConfig) -> None:
        super().__init__()
        width, inner = config.width, round(config.ffn * config.width)
        gated = config.block == "ligr"
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = IntervalAttention(width, config.heads)
        feed_forward = GatedFeedForward if gated else FeedForward
        self.feed_forward = feed_forward(width, inner)
        self.gate1 = nn.Linear(width, width) if gated else None
        self.gate2 = nn.Linear(width, width) if gated else None
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, relations: Relations) -> Tensor:
        """Return float [R, L, D]."""
        branch = self.dropout(self.attention(self.norm1(x), relations))
        x = x + (branch if self.gate1 is None else torch.sigmoid(self.gate1(x)) * branch)
        branch = self.dropout(self.feed_forward(self.norm2(x)))
        out: Tensor = x + (branch if self.gate2 is None else torch.sigmoid(self.gate2(x)) * branch)
        return out


def personal_intervals(times: Tensor, segments: Tensor, largest: int) -> Tensor:
    """Return min(largest, floor(|t_i - t_j| / shortest positive gap of the sequence up to i)), [R, L, L].

    0 where all times up to place i are equal.
    """
    before, _ = previous_times(times, segments)
    gaps = times - before
    never = torch.iinfo(torch.int64).max
    gaps = torch.where(gaps > 0, gaps, never)
    length = segments.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=times.device).tril()
    earlier = earlier & (segments[:, :, None] == segments[:, None, :])  # [R, L, L], place j up to i
    shortest = torch.where(earlier, gaps[:, None, :], never).amin(dim=-1)  # [R, L]
    apart = (times[:, :, None] - times[:, None, :]).abs()  # [R, L, L]
    return (apart // shortest[:, :, None]).clamp(max=largest)
