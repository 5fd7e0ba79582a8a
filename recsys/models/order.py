"""How the events of a batch are ordered: one after another, or baskets whose events have no order."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys.data.batches import SequenceBatch
from recsys.errors import DataError
from recsys.models.layers import causal_segment_mask


def order_of(batch: SequenceBatch, as_sets: bool) -> tuple[Tensor, Tensor]:
    """Return `(positions [R, L], attention mask [R, 1, L, L])`: of events, or of baskets as sets.

    Raises:
        DataError: baskets are asked for and the batch has none.
    """
    if not as_sets:
        return batch.positions, causal_segment_mask(batch.segments)
    if batch.baskets is None:
        raise DataError(
            "a model with baskets: set needs the history's baskets, and this batch has none; "
            "map basket_id or set data.basket_minutes"
        )
    return batch.baskets, causal_segment_mask(batch.segments, batch.baskets)


def mean_of_newest_basket(hidden: Tensor, batch: SequenceBatch) -> Tensor:
    """Return the mean of `hidden` [R, L, D] over each sequence's newest basket, float [B, D].

    Which of a basket's events comes last is an accident. Rows of empty sequences mean nothing.
    """
    if batch.baskets is None:
        raise ValueError("the batch has no baskets")
    length = batch.items.shape[1]
    row, column = batch.last.clamp(min=0) // length, batch.last.clamp(min=0) % length  # [B]
    newest = (batch.segments[row] == batch.segments[row, column, None]) & (
        batch.baskets[row] == batch.baskets[row, column, None]
    )  # [B, L]
    share = newest.to(hidden.dtype) / newest.sum(1, keepdim=True)  # [B, L]
    return torch.einsum("bl,bld->bd", share, hidden[row])  # [B, D]


def newest_places(batch: SequenceBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Return where each row's sequences end, and which of these places is whose.

    Returns `(row [B], slot [B], places [R, S])`, all int64: sequence b ends at column
    `places[row[b], slot[b]]` of its row. S is the most sequences of a row; places of rows with fewer are
    0. Rows of empty sequences mean nothing.
    """
    length = batch.items.shape[1]
    flat = batch.last.clamp(min=0)
    row, column = flat // length, flat % length
    slot = (batch.segments.flatten()[flat] - 1).clamp(min=0)
    most = int(slot.max()) + 1 if len(slot) else 0
    places = flat.new_zeros(len(batch.items), most + 1)
    places[row, torch.where(batch.last < 0, most, slot)] = column
    return row, slot, places[:, :most]
