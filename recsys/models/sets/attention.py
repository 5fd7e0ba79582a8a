"""Attention pooling: a mean whose weights each item earns for itself (Lin et al. 2017, 1703.03130)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recsys.models.sets.contract import SetEncoder, seen


class AttentionPool(SetEncoder):
    """Per head h: a_i = softmax_i(v_h . tanh(W x_i)), and the head's part of the mean is sum_i a_i x_i."""

    def __init__(self, n_items: int, width: int, heads: int) -> None:
        super().__init__(n_items, width)
        self.heads = heads
        self.hidden = nn.Linear(width, width)
        self.score = nn.Linear(width, heads, bias=False)

    def pool(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Return the weighted means, head by head, float [B, D]."""
        if vectors.shape[1] == 0:
            return vectors.sum(1)
        scores = self.score(torch.tanh(self.hidden(vectors)))  # [B, n, H]
        weights = scores.masked_fill(~seen(mask)[:, :, None], -torch.inf).softmax(1)
        parts = vectors.view(
            *vectors.shape[:2], self.heads, self.width // self.heads
        )  # [B, n, H, D / H]
        pooled: Tensor = (weights[:, :, :, None] * parts).sum(1).flatten(1)
        return pooled
