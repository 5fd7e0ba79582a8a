"""What whoever embeds playlists answers. Shapes: B lists, n places (padding among them), d width."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from recsys.models.generation import Windows
from recsys.schema import PAD


@runtime_checkable
class Embedder(Protocol):
    """Makes one vector of a list of items 1..n_items.

    Places that the mask leaves out are as if they were not there, wherever they stand. Of a longer list
    the newest `max_length` items are read. An item that stands twice counts twice. An empty list is the
    zero vector.
    """

    @property
    def embedding_width(self) -> int:
        """Size of a list's vector (d)."""

    def embed(self, items: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return vectors float [B, d] of lists int64 [B, n]; without a mask (bool [B, n]) 0 is padding."""


def compact(items: Tensor, mask: Tensor | None, longest: int) -> tuple[Tensor, Tensor]:
    """Return `(items int64 [B, L], lengths int64 [B])`: the newest real items, in order, 0 behind them."""
    real = items != PAD if mask is None else mask & (items != PAD)
    order = (~real).long().argsort(dim=1, stable=True)
    packed = torch.where(real, items, PAD).gather(1, order)
    lengths = real.sum(1)
    packed = packed[:, : int(lengths.max()) if len(lengths) else 0]
    kept = Windows(packed, lengths).newest(longest)
    return kept.items, kept.lengths
