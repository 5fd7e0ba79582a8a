"""Blocks shared by the sequence models. Shapes: R rows, L places, D width, H heads."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.schema import PAD

TILE = 512
"""Places whose inner layer is computed together where memory is reused."""


def draw_weights(model: nn.Module) -> None:
    """Draw every table and linear map from N(0, 0.02^2); biases, and vectors of PAD, become zero."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    zero_padding(model)


def zero_padding(model: nn.Module) -> None:
    """Set the vectors of PAD in all tables of items to zero."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Embedding) and module.padding_idx == PAD:
                module.weight[PAD].zero_()


def causal_segment_mask(segments: Tensor, steps: Tensor | None = None) -> Tensor:
    """Return the attention mask bool [R, 1, L, L]: a place sees itself and its sequence's past.

    Args:
        segments: int64 [R, L], which sequence of the row a place belongs to; 0 is padding, which sees
            only padding, so that no softmax is empty.
        steps: int64 [R, L], the time step of a place where several share one (baskets); a place then
            sees its whole step and those before. By default every place is a step of its own.
    """
    same = segments[:, :, None] == segments[:, None, :]  # [R, L, L]
    if steps is None:
        steps = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
    past = steps[:, :, None] >= steps[:, None, :]  # [R, L, L]
    return (same & past)[:, None]  # [R, 1, L, L]


class SelfAttention(nn.Module):
    """Multi-head scaled dot-product attention inside sequences; biases off, as in today's recipes.

    There is no dropout on the attention weights: it takes the CPU off the fused path, which costs a
    factor of 3 to 4. (Nor is there one inside the feed-forward: drawing the masks of its wide inner
    layer was a fifth of a CPU training step; the branch outputs are dropped out instead.)
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the attended places, float [R, L, D]; `mask` is bool [R, 1, L, L]."""
        q, k, v = self.project(x)
        return self.attend(q, k, v, mask)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of the places, each [R, H, L, D / H]."""
        rows, length, width = x.shape
        qkv = self.qkv(x).view(rows, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        return q, k, v

    def ask(self, x: Tensor, asking: Tensor, mask: Tensor) -> Tensor:
        """Return what few places [R, S, D] get from all places [R, L, D], float [R, S, D].

        `mask` is bool [R, S, L]. Keys and values are maps of the places: q . K x = (K^T q) . x, and the
        weighted sum of V x is V times that of x. So not all places are mapped, but the few that ask.
        """
        rows, some, width = asking.shape
        each = width // self.heads
        to_q, to_k, to_v = self.qkv.weight.view(3, self.heads, each, width)
        q = torch.einsum("rsd,hed->hrse", asking * each**-0.5, to_q).flatten(1, 2)
        q = torch.bmm(q, to_k).view(self.heads, rows, some, width).transpose(0, 1)  # [R, H, S, D]
        scores = torch.bmm(q.reshape(rows, -1, width), x.transpose(1, 2))  # [R, H * S, L]
        scores = scores.view(rows, self.heads, some, -1).masked_fill(~mask[:, None], -torch.inf)
        y = torch.bmm(torch.softmax(scores, -1).view(rows, self.heads * some, -1), x)
        y = torch.einsum("rhsd,hed->rshe", y.view(rows, self.heads, some, width), to_v)
        out: Tensor = self.out(y.reshape(rows, some, width))
        return out

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Return float [R, L, D] for queries [R, H, L, D / H] over keys and values [R, H, S, D / H].

        `mask` is bool [R, 1, L, S].
        """
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.out(y.transpose(1, 2).flatten(2))  # [R, L, D]
        return out


class FeedForward(nn.Module):
    """Two linear maps around a GELU."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return float [R, L, D]."""
        out: Tensor = self.down(F.gelu(self.up(x)))
        return out


class GatedFeedForward(nn.Module):
    """SwiGLU: silu(x A) * (x B), mapped back (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return float [R, L, D]."""
        if _may_reuse_memory(x):
            return self._by_tiles(x)
        gate, value = self.up(x).chunk(2, dim=-1)
        out: Tensor = self.down(F.silu(gate) * value)
        return out

    def _by_tiles(self, x: Tensor) -> Tensor:
        """Do the same for some places at a time, in one buffer that stays in the core's cache.

        The wide inner layer of thousands of places is megabytes of fresh memory, which costs more than
        the products.
        """
        rows, out = (
            x.reshape(-1, x.shape[-1]),
            torch.empty_like(x, memory_format=torch.contiguous_format),
        )
        results = out.view(rows.shape)
        buffer = x.new_empty(min(TILE, len(rows)), self.up.out_features)
        for at in range(0, len(rows), TILE):
            tile = rows[at : at + TILE]
            inner = torch.mm(tile, self.up.weight.T, out=buffer[: len(tile)])
            gate, value = inner.chunk(2, dim=1)
            F.silu(gate, inplace=True).mul_(value)
            torch.mm(gate, self.down.weight.T, out=results[at : at + TILE])
        return out


def _may_reuse_memory(x: Tensor) -> bool:
    """Tell whether nobody looks back at what is computed on the way: on the CPU, without gradients."""
    plain = x.device.type == "cpu" and not torch.is_grad_enabled()
    return plain and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling()


class PreNormBlock(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, width: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, inner)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return float [R, L, D]."""
        return self.finish(x, self.attention(self.norm1(x), mask))

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """Return what the block makes of its input and what attention brought, float [R, L, D]."""
        x = x + self.dropout(attended)
        out: Tensor = x + self.dropout(self.feed_forward(self.norm2(x)))
        return out


class LiGRBlock(nn.Module):
    """Pre-norm block whose residual branches are gated: x + sigmoid(x G) * branch(norm(x)).

    The gated residual of LiGR (Borisyuk et al. 2025, arXiv 2502.03417) with a SwiGLU feed-forward, as
    combined with SASRec in eSASRec (Tikhonovich et al. 2025, arXiv 2508.06450).
    """

    def __init__(self, width: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.gate1 = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.feed_forward = GatedFeedForward(width, inner)
        self.gate2 = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return float [R, L, D]."""
        return self.finish(x, self.attention(self.norm1(x), mask))

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """Return what the block makes of its input and what attention brought, float [R, L, D]."""
        x = x + torch.sigmoid(self.gate1(x)) * self.dropout(attended)
        branch = self.dropout(self.feed_forward(self.norm2(x)))
        out: Tensor = x + torch.sigmoid(self.gate2(x)) * branch
        return out
