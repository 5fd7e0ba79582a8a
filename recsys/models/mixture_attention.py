"""Mixture attention: one set of weights made of item likeness and time likeness, by a small network.

Source: UniRec (CIKM 2024, arXiv 2406.18470), whose attention is MOJITO's. The published code reshapes
the two kinds of scores as if they were interleaved, which mixes those of two samples and never mixes
the two kinds; here a query-key pair's two scores are mixed, as the paper draws it. The noise on the
scores is drawn in training only. Of the published dropouts there is the last one of a block, not those
of the attention's weights and inside the feed-forward part.

Shapes: R rows, L places, D width of an item, H heads; a stream of items and times is 2 D wide.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = 1e-6


class MixtureAttention(nn.Module):
    """softmax(MLP(item scores, time scores) / sqrt(D)) values, one set of weights for each head.

    Item scores are <LN(seq) Q, seq K>, time scores <LN(ctx) Q', ctx K'>, both over D dimensions; the MLP
    maps a pair's two scores through H hidden units (ReLU) to H scores, of which each weights 2 D / H
    value dimensions. There is no dropout on the weights, as in `layers.SelfAttention`.
    """

    def __init__(self, width: int, heads: int, noise: float, passes: int) -> None:
        super().__init__()
        self.heads = heads
        self.item_query = nn.Linear(2 * width, width)
        self.item_key = nn.Linear(2 * width, width)
        self.time_query = nn.Linear(width, width)
        self.time_key = nn.Linear(width, width)
        self.value = nn.Linear(2 * width, 2 * width)
        self.time_norms = nn.ModuleList(nn.LayerNorm(width, EPSILON) for _ in range(passes))
        self.mix = nn.ModuleList(PairMixing(heads, width**-0.5) for _ in range(passes))
        # Item and time scores each have a learned s, and noise of deviation s^2.
        self.noise = nn.Parameter(torch.full((2, 1, 1), noise)) if noise else None

    def forward(
        self, seq: Tensor, normed: Tensor, context: Tensor, mask: Tensor, which: int
    ) -> Tensor:
        """Return float [R, L, 2 D].

        Args:
            seq: float [R, L, 2 D].
            normed: its layer norm, [R, L, 2 D].
            context: float [R, L, D].
            mask: additive float [R, 1 or H, L, L].
            which: the pass.
        """
        rows, length, _ = seq.shape
        queries = [self.item_query(normed), self.time_query(self.time_norms[which](context))]
        keys = [self.item_key(seq), self.time_key(context)]
        scores = torch.stack(queries, 1) @ torch.stack(keys, 1).mT  # [R, 2, L, L]
        if self.noise is not None and self.training:
            scores = torch.addcmul(scores, self.noise.square(), torch.randn_like(scores))
        weights = (self.mix[which](scores) + mask).softmax(dim=-1)  # [R, H, L, L]
        value = self.value(seq).view(rows, length, self.heads, -1).transpose(1, 2)
        y = weights @ value  # [R, H, L, 2 D / H]
        out: Tensor = y.transpose(1, 2).reshape(rows, length, -1)  # [R, L, 2 D]
        return out


class PairMixing(nn.Module):
    """The network on a pair's two scores, float [R, 2, L, L] to [R, H, L, L], its result scaled."""

    def __init__(self, heads: int, scale: float) -> None:
        super().__init__()
        self.up = nn.Linear(2, heads)
        self.down = nn.Linear(heads, heads)
        self.scale = scale

    def forward(self, scores: Tensor) -> Tensor:
        """Return float [R, H, L, L]; a product of two tiny matrices is quicker than a convolution."""
        inner = torch.baddbmm(self.up.bias[:, None], *_spread(self.up.weight, scores.flatten(2)))
        down, bias = self.scale * self.down.weight, self.scale * self.down.bias
        mixed = torch.baddbmm(bias[:, None], *_spread(down, F.relu(inner)))  # [R, H, L L]
        return mixed.view(len(scores), -1, *scores.shape[2:])


def _spread(weight: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    return weight.expand(len(values), -1, -1), values


class MixtureBlock(nn.Module):
    """LN(x) + attention(x, context), then x + feed-forward(LN(x)); places of padding are zero."""

    def __init__(
        self, width: int, heads: int, ffn: float, noise: float, dropout: float, passes: int
    ) -> None:
        super().__init__()
        self.attention = MixtureAttention(width, heads, noise, passes)
        inner = round(2 * width * ffn)
        self.norms1 = nn.ModuleList(nn.LayerNorm(2 * width, EPSILON) for _ in range(passes))
        self.norms2 = nn.ModuleList(nn.LayerNorm(2 * width, EPSILON) for _ in range(passes))
        self.up = nn.Linear(2 * width, inner)
        self.down = nn.Linear(inner, 2 * width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor, real: Tensor, which: int) -> Tensor:
        """Return float [R, L, 2 D]; `real` is float [R, L, 1], 0 at padding."""
        normed = self.norms1[which](x)
        x = normed + self.attention(x, normed, context, mask, which) * real
        inner = F.relu(self.up(self.norms2[which](x)))
        out: Tensor = (x + self.dropout(self.down(inner))) * real
        return out


class MixtureEncoder(nn.Module):
    """Blocks over a stream of items and times; from the second block on the context is its time half.

    Several streams (`passes`) share its weights; each has norms and a mixing network of its own.
    """

    def __init__(
        self,
        width: int,
        blocks: int,
        heads: int,
        ffn: float,
        noise: float,
        dropout: float,
        passes: int,
    ) -> None:
        super().__init__()
        self.width = width
        self.blocks = nn.ModuleList(
            MixtureBlock(width, heads, ffn, noise, dropout, passes) for _ in range(blocks)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(2 * width, EPSILON) for _ in range(passes))
        self.init_weights()

    def init_weights(self) -> None:
        """Draw every linear map as Glorot does; biases are zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor, real: Tensor, which: int) -> Tensor:
        """Return float [R, L, 2 D] of a stream [R, L, 2 D] and its first context [R, L, D]."""
        x = x * real
        if mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape, dtype=x.dtype, device=x.device).masked_fill_(
                ~mask, -torch.inf
            )
        for block in self.blocks:
            x = block(x, context, mask, real, which)
            context = x[..., self.width :]  # [R, L, D]
        out: Tensor = self.norms[which](x)
        return out
