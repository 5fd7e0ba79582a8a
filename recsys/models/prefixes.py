"""The histories that a batch holds: one for each place, ending there."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys.data.batches import SequenceBatch
from recsys.schema import PAD


def prefixes(batch: SequenceBatch, places: Tensor) -> tuple[Tensor, Tensor]:
    """Return `(items int64 [T, n], mask bool [T, n])`, the sequence of each place up to it.

    Args:
        batch: R rows of L places.
        places: int64 [T], flat indices into R * L of real events.
    """
    lengths = batch.positions.flatten()[places] + 1  # [T]
    columns = torch.arange(int(lengths.max()) if len(lengths) else 0, device=places.device)
    mask = columns < lengths[:, None]  # [T, n]
    where = torch.where(mask, (places - lengths + 1)[:, None] + columns, 0)
    return torch.where(mask, batch.items.flatten()[where], PAD), mask


def real_places(batch: SequenceBatch) -> Tensor:
    """Return the flat indices of all events of a batch, int64 [T], ascending."""
    return (batch.items.flatten() != PAD).nonzero()[:, 0]


def spread(vectors: Tensor, places: Tensor, batch: SequenceBatch) -> Tensor:
    """Return vectors [T, D] at their places, and zeros elsewhere, float [R, L, D]."""
    rows, length = batch.items.shape
    flat = vectors.new_zeros(rows * length, vectors.shape[1])
    return flat.index_put((places,), vectors).view(rows, length, -1)
