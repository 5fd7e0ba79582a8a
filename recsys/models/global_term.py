"""The global term: how like an item is to a history as a whole (UniRec's FISM branch).

With the history's events s_1..s_n, the matrix F of its newest distinct items and w.x the product of
vectors:

    att(x)  = softmax(F x) F
    g(x)    = x / 2 + x * att(x) / 2
    glob(i) = m_i.( g(m_i) + sum_p g(s_p) ) / (n + 1)

The sum over the history is a vector, so its part is an inner product; m_i.g(m_i) is not, and is added
to a shortlist's scores. The published code has a vector of the user among F, draws F from all training
items of the user (the target among them), divides by the padded length, skips the oldest event and
trains m_i.g(m_i) alone; here nobody needs a row, F is the past, and what is trained is what is used.

Shapes: B sequences, H events read, J rows of F, C candidates, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding

from recsys.data.batches import SequenceBatch

BLOCK_VALUES = 1 << 22
"""Likenesses held at once: 16 MiB of float32, which caches hold better than more."""


def newest_distinct(batch: SequenceBatch, max_length: int, count: int) -> tuple[Tensor, Tensor]:
    """Return `(events [B, H], distinct items [B, J])` of the histories, newest first, 0-filled."""
    recent = batch.recent(max_length)  # [B, H]
    same = recent[:, :, None] == recent[:, None, :]  # [B, H, H]
    newer = torch.ones(same.shape[1:], dtype=torch.bool, device=same.device).tril(-1)  # [H, H]
    fresh = (recent > 0) & ~(same & newer).any(-1)  # no newer event is of the same item
    order = (~fresh).long().argsort(dim=1, stable=True)[:, :count]
    return recent, torch.where(fresh.gather(1, order), recent.gather(1, order), 0)


def history_part(events: Tensor, distinct: Tensor, table: Tensor) -> Tensor:
    """Return sum_p g(s_p) / (n + 1), float [B, D], of int64 [B, H] events over `table` [V + 1, D]."""
    # `embedding` and not indexing: its backward adds rows up in parallel.
    vectors, rows = embedding(events, table), embedding(distinct, table)  # [B, H, D], [B, J, D]
    weights = _weights(rows @ vectors.mT, distinct)  # [B, J, H]
    mixed = 0.5 * vectors * (1.0 + weights.mT @ rows)  # g(s_p), [B, H, D]
    real = (events > 0).to(mixed.dtype)  # [B, H]
    return torch.einsum("bh,bhd->bd", real, mixed) / (real.sum(1, keepdim=True) + 1.0)


def own_part(items: Tensor, events: Tensor, distinct: Tensor, table: Tensor) -> Tensor:
    """Return m_i.g(m_i) / (n + 1) of candidates [C], or [B, C] for each sequence its own, float [B, C].

    Bounded by blocks of sequences, those of few distinct items together, so that few are padded; an empty
    history has n = 0 and nothing to attend to.
    """
    counts = (distinct > 0).sum(1)
    order = counts.argsort(stable=True)
    widths = counts[order].tolist()
    step = max(1, BLOCK_VALUES // max(1, items.shape[-1] * distinct.shape[1]))
    length = (events > 0).sum(1, keepdim=True).to(table.dtype)  # [B, 1]
    parts = []
    for at in range(0, len(events), step):
        part = order[at : at + step]
        some = distinct[part, : max(1, widths[at : at + step][-1])]  # [b, J]
        own = embedding(items if items.dim() == 1 else items[part], table)  # [C, D] or [b, C, D]
        rows, squared = embedding(some, table), own.square()  # rows [b, J, D]
        weights = _weights(_products(rows, own), some)  # [b, J, C]
        like = (weights * _products(rows, squared)).sum(1)  # [b, C]
        parts.append(0.5 * (squared.sum(-1) + like) / (length[part] + 1.0))
    return torch.cat(parts)[order.argsort()] if parts else table.new_zeros(0, items.shape[-1])


def _products(rows: Tensor, own: Tensor) -> Tensor:
    """Return [b, J, C] of [b, J, D] and [C, D] or [b, C, D]; candidates of all at once are one product."""
    if own.dim() == 3:
        return rows @ own.mT
    return (rows.flatten(0, 1) @ own.T).view(*rows.shape[:2], len(own))


def _weights(scores: Tensor, distinct: Tensor) -> Tensor:
    """Return softmax over J of [B, J, C], 0 where `distinct` [B, J] is padding.

    J is not the last dimension: over a short last one a softmax is slow on the CPU.
    """
    empty = distinct[..., None] == 0  # [B, J, 1]
    # A history without items has nothing but padding: its weights are uniform before they are cleared.
    scores = scores.masked_fill(empty & ~empty.all(1, keepdim=True), -torch.inf)
    return scores.softmax(1).masked_fill(empty, 0.0)
