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

BLOCK_VALUES = 1 << 24
"""Likenesses held at once: 64 MiB of float32."""


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
    weights = _weights(vectors @ rows.mT, distinct[:, None])  # [B, H, J]
    mixed = 0.5 * vectors * (1.0 + weights @ rows)  # g(s_p), [B, H, D]
    real = (events > 0).to(mixed.dtype)  # [B, H]
    return torch.einsum("bh,bhd->bd", real, mixed) / (real.sum(1, keepdim=True) + 1.0)


def own_part(items: Tensor, events: Tensor, distinct: Tensor, table: Tensor) -> Tensor:
    """Return m_i.g(m_i) / (n + 1) of candidates [C], or [B, C] for each sequence its own, float [B, C].

    Bounded by blocks of sequences; an empty history has n = 0 and nothing to attend to.
    """
    step = max(1, BLOCK_VALUES // max(1, items.shape[-1] * distinct.shape[1]))
    length = (events > 0).sum(1, keepdim=True).to(table.dtype)  # [B, 1]
    parts = []
    for at in range(0, len(events), step):
        part = slice(at, at + step)
        own = embedding(items if items.dim() == 1 else items[part], table)  # [C, D] or [b, C, D]
        rows = embedding(distinct[part], table)  # [b, J, D]
        weights = _weights(own @ rows.mT, distinct[part, None])  # [b, C, J]
        squared = own.square()
        like = (weights * (squared @ rows.mT)).sum(-1)  # [b, C]
        parts.append(0.5 * (squared.sum(-1) + like) / (length[part] + 1.0))
    return torch.cat(parts) if parts else table.new_zeros(0, items.shape[-1])


def _weights(scores: Tensor, distinct: Tensor) -> Tensor:
    """Return softmax over J of [B, C, J], 0 where `distinct` [B, 1, J] is padding."""
    empty = distinct == 0
    # A history without items has nothing but padding: its weights are uniform before they are cleared.
    scores = scores.masked_fill(empty & ~empty.all(-1, keepdim=True), -torch.inf)
    return scores.softmax(-1).masked_fill(empty, 0.0)
