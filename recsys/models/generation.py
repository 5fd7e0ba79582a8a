"""What a model keeps while lists grow item by item: the state of `start` and `step`.

Shapes: B rows (lists), L places, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from recsys.data.batches import SequenceBatch
from recsys.data.token_store import TokenStore


@dataclass(frozen=True)
class GenerationState(ABC):
    """Where B lists stand, each after its history and the items chosen for it; a value, never changed.

    Attributes:
        query: float [B, D], what an index of item vectors is asked for the next items.
    """

    query: Tensor

    def __len__(self) -> int:
        return len(self.query)

    @abstractmethod
    def select(self, rows: Tensor) -> GenerationState:
        """Return the state of the rows int64 [B'], in their order; a row may come several times."""


@dataclass(frozen=True)
class Windows:
    """The newest events of B sequences, one to a row, oldest first, filled up at the right.

    Attributes:
        items: int64 [B, L]; 0 is padding.
        lengths: int64 [B].
        times: int64 [B, L] seconds, or None.
        baskets: int64 [B, L], the oldest kept is 0; or None.
        gap: int64 [B], seconds until the next item that is chosen; or None without times.
        texts: of items below 0, see `SequenceBatch.texts`.
    """

    items: Tensor
    lengths: Tensor
    times: Tensor | None = None
    baskets: Tensor | None = None
    gap: Tensor | None = None
    texts: TokenStore | None = None

    @classmethod
    def of_batch(cls, batch: SequenceBatch, gap: float | None = None) -> Windows:
        """Unpack a batch. A chosen item comes `gap` seconds after the one before it; by default the
        median gap of the row's own history, 0 where fewer than two events are known.
        """
        lengths = (
            batch.positions.flatten()[batch.last.clamp(min=0)] + 1 if batch.items.numel() else 0
        )
        lengths = torch.where(batch.last < 0, 0, lengths)  # [B]
        places = torch.arange(int(lengths.max()) if len(lengths) else 0, device=batch.last.device)
        inside = places < lengths[:, None]  # [B, L]
        where = torch.where(inside, (batch.last - lengths + 1)[:, None] + places, 0)

        def dense(values: Tensor | None) -> Tensor | None:
            if values is None:
                return None
            if not values.numel():
                return values.new_zeros(where.shape)
            return torch.where(inside, values.flatten()[where], 0)

        items, times = dense(batch.items), dense(batch.times)
        assert items is not None
        steps = None if times is None else _gaps(times, lengths, gap)
        return cls(items, lengths, times, dense(batch.baskets), steps, batch.texts)

    def select(self, rows: Tensor) -> Windows:
        """Return these rows, in this order."""
        return Windows(
            self.items[rows],
            self.lengths[rows],
            None if self.times is None else self.times[rows],
            None if self.baskets is None else self.baskets[rows],
            None if self.gap is None else self.gap[rows],
            self.texts,
        )

    def append(self, items: Tensor, longest: int) -> Windows:
        """Put one item at the end of every row; of more than `longest` the oldest leave.

        An item comes a gap after the newest event (at time 0 in an empty row), in a basket of its own.
        """
        at, column = torch.arange(len(items), device=items.device), self.lengths
        newest = (column - 1).clamp(min=0)
        empty = column == 0

        def put(values: Tensor, new: Tensor) -> Tensor:
            grown = torch.nn.functional.pad(values, (0, 1))  # [B, L + 1]
            grown[at, column] = new
            return grown

        times, baskets = self.times, self.baskets
        if times is not None and self.gap is not None:
            before = times[at, newest] + self.gap if times.shape[1] else self.gap
            times = put(times, torch.where(empty, 0, before))
        if baskets is not None:
            before = baskets[at, newest] + 1 if baskets.shape[1] else column
            baskets = put(baskets, torch.where(empty, 0, before))
        grown = replace(
            self,
            items=put(self.items, items),
            lengths=column + 1,
            times=times,
            baskets=baskets,
        )
        return grown.newest(longest)

    def newest(self, longest: int) -> Windows:
        """Return the newest `longest` events of every row."""
        if self.items.shape[1] <= longest:
            return self
        drop = (self.lengths - longest).clamp(min=0)[:, None]  # [B, 1]
        lengths = self.lengths.clamp(max=longest)
        places = torch.arange(longest, device=self.items.device)
        where = places + drop  # [B, longest], below L
        inside = places < lengths[:, None]

        def cut(values: Tensor | None) -> Tensor | None:
            return None if values is None else torch.where(inside, values.gather(1, where), 0)

        items, baskets = cut(self.items), cut(self.baskets)
        assert items is not None
        if baskets is not None and longest:
            baskets = torch.where(inside, baskets - baskets[:, :1], 0)
        return Windows(items, lengths, cut(self.times), baskets, self.gap, self.texts)

    def batch(self) -> SequenceBatch:
        """Return the rows as a batch, one sequence to a row."""
        rows, length = self.items.shape
        places = torch.arange(length, device=self.items.device).expand(rows, length)
        inside = places < self.lengths[:, None]
        first = torch.arange(rows, device=self.items.device) * length
        return SequenceBatch(
            items=self.items,
            segments=inside.long(),
            positions=torch.where(inside, places, 0),
            last=torch.where(self.lengths > 0, first + self.lengths - 1, -1),
            times=self.times,
            baskets=self.baskets,
            texts=self.texts,
        )


def _gaps(times: Tensor, lengths: Tensor, gap: float | None) -> Tensor:
    """Return the seconds between chosen items, int64 [B]: `gap`, or each row's median."""
    if gap is not None:
        return torch.full_like(lengths, round(gap))
    if times.shape[1] < 2:
        return torch.zeros_like(lengths)
    gaps = times.diff(dim=1).double()  # [B, L - 1]
    known = torch.arange(1, times.shape[1], device=times.device) < lengths[:, None]
    middle = gaps.masked_fill(~known, torch.nan).nanquantile(0.5, dim=1)
    return middle.nan_to_num(0.0).round().long()


@dataclass(frozen=True)
class ReencodedState(GenerationState):
    """The windows themselves: every step encodes them anew. Right for any model, quick for none."""

    windows: Windows

    def select(self, rows: Tensor) -> ReencodedState:
        """See `GenerationState.select`."""
        return ReencodedState(self.query[rows], self.windows.select(rows))


class Generator(Protocol):
    """Whatever makes lists item by item: every `EncoderModel`, or a decoder of codes.

    Items (or codes) are 1..n_items; the next one's distribution is the softmax of `score_next` /
    `temperature` over them.
    """

    @property
    def n_items(self) -> int:
        """How many items there are, PAD not counted."""

    @property
    def temperature(self) -> float:
        """What scores are divided by to be logits."""

    def start(self, batch: SequenceBatch, gap: float | None = None) -> GenerationState:
        """See `EncoderModel.start`."""

    def step(self, state: GenerationState, items: Tensor) -> GenerationState:
        """See `EncoderModel.step`."""

    def score_next(self, state: GenerationState, items: Tensor | None = None) -> Tensor:
        """See `EncoderModel.score_next`."""
