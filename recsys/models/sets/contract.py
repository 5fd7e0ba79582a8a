"""What every encoder of sets answers. Shapes: B sets, n places (padding among them), D width."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from recsys.schema import PAD


class SetEncoder(nn.Module, ABC):
    """Makes one vector of a set of items 1..n_items; order and padding change nothing.

    An item that stands twice counts twice. An empty set is the zero vector.
    """

    def __init__(self, n_items: int, width: int) -> None:
        super().__init__()
        self.n_items = n_items
        self.width = width
        self.item_table = nn.Embedding(n_items + 1, width, padding_idx=PAD)
        nn.init.normal_(self.item_table.weight, std=width**-0.5)
        with torch.no_grad():
            self.item_table.weight[PAD].zero_()

    def forward(self, items: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return vectors float [B, D].

        Args:
            items: int64 [B, n].
            mask: bool [B, n], False at padding; by default where an item is 0.
        """
        mask = items != PAD if mask is None else mask
        pooled = self.pool(self.vectors(items), mask)
        return pooled * mask.any(1, keepdim=True)

    def vectors(self, items: Tensor) -> Tensor:
        """Return the item vectors that are pooled, float [B, n, D]."""
        rows: Tensor = self.item_table(items)
        return rows

    @abstractmethod
    def pool(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Return vectors float [B, D] of item vectors [B, n, D], with numbers for empty sets, too."""


def masked_mean(vectors: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over real places, float [B, D]; 0 where there are none."""
    total = (vectors * mask[:, :, None]).sum(1)
    return total / mask.sum(1, keepdim=True).clamp(min=1)


def seen(mask: Tensor) -> Tensor:
    """Return the mask of what attention sees, bool [B, n]: in an empty set, the padding.

    So that no softmax is over nothing; what comes of it is to be dropped.
    """
    return mask | ~mask.any(1, keepdim=True)
