"""DeepSets (Zaheer et al. 2017, arXiv 1703.06114): rho(pool over i of phi(x_i))."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from recsys.models.layers import FeedForward
from recsys.models.sets.contract import SetEncoder, masked_mean, seen


class DeepSets(SetEncoder):
    """A feed-forward network of each item, a sum, mean or maximum, a feed-forward network of that.

    A sum tells sizes apart, a mean does not. Both networks have one hidden layer of twice the width.
    """

    def __init__(
        self, n_items: int, width: int, pooling: Literal["sum", "mean", "max"] = "mean"
    ) -> None:
        super().__init__(n_items, width)
        self.pooling = pooling
        self.phi = FeedForward(width, 2 * width)
        self.rho = FeedForward(width, 2 * width)

    def pool(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Return rho of the pooled phi, float [B, D]."""
        each = self.phi(vectors)  # [B, n, D]
        out: Tensor = self.rho(self._pooled(each, mask))
        return out

    def _pooled(self, each: Tensor, mask: Tensor) -> Tensor:
        match self.pooling:
            case "sum":
                return (each * mask[:, :, None]).sum(1)
            case "mean":
                return masked_mean(each, mask)
        if each.shape[1] == 0:
            return each.sum(1)
        return each.masked_fill(~seen(mask)[:, :, None], -torch.inf).amax(1)
