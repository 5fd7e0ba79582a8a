"""Set transformer (Lee et al. 2019, arXiv 1810.00825): attention among items, then pooling by attention.

    MAB(X, Y) = N(H + FF(H)),  H = N(X + Attention(X, Y, Y))         N: layer norm
    SAB(X) = MAB(X, X);   ISAB(X) = MAB(X, MAB(I, X));   PMA(X) = MAB(s, FF(X))

with learned inducing points I and one learned seed s. Differs from the paper in a GELU feed-forward of
twice the width, and in that there is no attention after the pooling of one seed, which would be of a
vector with itself.

Shapes: B sets, n places, m learned points, D width, H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.config.sets import SetTransformerConfig
from recsys.models.layers import FeedForward
from recsys.models.sets.contract import SetEncoder, seen


class AttentionBlock(nn.Module):
    """MAB: queries X [B, q, D] read Y [B, n, D]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, 2 * width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return float [B, q, D]; `mask` is bool [B, n], True where Y may be read."""
        q = self._by_head(self.query(x))  # [B, H, q, D / H]
        k, v = (self._by_head(part) for part in self.key_value(y).chunk(2, dim=-1))
        allowed = None if mask is None else mask[:, None, None, :]
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        h = self.norm1(x + self.out(read.transpose(1, 2).flatten(2)))  # [B, q, D]
        out: Tensor = self.norm2(h + self.feed_forward(h))
        return out

    def _by_head(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, x.shape[2] // self.heads).transpose(1, 2)


class InducedBlock(nn.Module):
    """ISAB: items see one another through m learned points, at n m steps instead of n^2."""

    def __init__(self, width: int, heads: int, points: int) -> None:
        super().__init__()
        self.points = nn.Parameter(torch.randn(1, points, width) * width**-0.5)
        self.gather = AttentionBlock(width, heads)
        self.spread = AttentionBlock(width, heads)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return float [B, n, D]."""
        summary = self.gather(self.points.expand(len(x), -1, -1), x, mask)  # [B, m, D]
        out: Tensor = self.spread(x, summary)
        return out


class SelfBlock(nn.Module):
    """SAB: every item sees every other."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.block = AttentionBlock(width, heads)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return float [B, n, D]."""
        out: Tensor = self.block(x, x, mask)
        return out


class SetTransformer(SetEncoder):
    """Blocks among the items, then one seed that reads them."""

    def __init__(self, config: SetTransformerConfig, n_items: int) -> None:
        super().__init__(n_items, config.width)
        width, heads = config.width, config.heads
        self.blocks = nn.ModuleList(
            SelfBlock(width, heads)
            if config.inducing is None
            else InducedBlock(width, heads, config.inducing)
            for _ in range(config.blocks)
        )
        self.before = FeedForward(width, 2 * width)
        self.seed = nn.Parameter(torch.randn(1, 1, width) * width**-0.5)
        self.read = AttentionBlock(width, heads)

    def pool(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Return what the seed has read, float [B, D]."""
        if vectors.shape[1] == 0:
            return vectors.sum(1)
        mask = seen(mask)
        x = vectors
        for block in self.blocks:
            x = block(x, mask)
        read: Tensor = self.read(self.seed.expand(len(x), -1, -1), self.before(x), mask)
        return read[:, 0]
