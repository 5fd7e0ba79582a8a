"""Scores of a few items per token, without ever gathering their vectors into a [T, N, D] block."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding, embedding_bag

from recsys.data.item_sets import ItemSets


def set_member_scores(
    queries: Tensor, sets: ItemSets, negatives: Tensor, table: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Return `(scores of the sets' members [S], negative scores [T, N])`, as `sampled_scores` does."""
    dtype = torch.promote_types(torch.promote_types(queries.dtype, table.dtype), torch.float32)
    with torch.autocast(queries.device.type, enabled=False):
        query = queries.to(dtype) / temperature  # [T, D]
        table = table.to(dtype)
        inside = (embedding(sets.rows, query) * embedding(sets.items, table)).sum(1)  # [S]
        if negatives.dim() == 2:
            outside: Tensor = _TokenScores.apply(query, table, negatives)  # type: ignore[no-untyped-call]
            return inside, outside
        return inside, query @ embedding(negatives, table).T


def sampled_scores(
    queries: Tensor, targets: Tensor, negatives: Tensor, table: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Return `(target scores [T], negative scores [T, N])` in at least float32, also under autocast.

    `negatives` is int64 [T, N], or [N] for all tokens alike, which costs one matrix product.
    """
    dtype = torch.promote_types(torch.promote_types(queries.dtype, table.dtype), torch.float32)
    with torch.autocast(queries.device.type, enabled=False):
        query = queries.to(dtype) / temperature  # [T, D]
        table = table.to(dtype)
        if negatives.dim() == 2:
            items = torch.cat([targets[:, None], negatives], 1)  # [T, 1 + N]
            scores: Tensor = _TokenScores.apply(query, table, items)  # type: ignore[no-untyped-call]
            return scores[:, 0], scores[:, 1:]
        # `embedding` and not indexing: its backward adds rows up in parallel.
        positive = (query * embedding(targets, table)).sum(1)  # [T]
        return positive, query @ embedding(negatives, table).T


class _TokenScores(torch.autograd.Function):
    """scores[t, n] = <queries[t], table[items[t, n]]>.

    With weights w [T, N], bag(w)[t] = sum_n w[t, n] table[items[t, n]] is a fused kernel, and it has
    all three parts: the scores are the gradient of <queries, bag(w)> by w, the queries' gradient is
    bag(w) with the incoming gradient as w, and the table's is that bag's own.
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, table: Tensor, items: Tensor) -> Tensor:
        ctx.save_for_backward(queries, table, items)
        with torch.enable_grad():
            weights = torch.ones(items.shape, dtype=table.dtype, device=table.device)
            weights.requires_grad_()
            bag = embedding_bag(items, table.detach(), per_sample_weights=weights, mode="sum")
            (scores,) = torch.autograd.grad(bag, weights, queries.detach())
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        queries, table, items = ctx.saved_tensors
        want_queries, want_table = ctx.needs_input_grad[:2]
        grad = grad.contiguous()
        with torch.enable_grad():
            leaf = table.detach().requires_grad_(want_table)
            bag = embedding_bag(items, leaf, per_sample_weights=grad, mode="sum")  # [T, D]
            grad_table = torch.autograd.grad(bag, leaf, queries)[0] if want_table else None
        return bag.detach() if want_queries else None, grad_table, None
