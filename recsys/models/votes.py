"""Votes of a history through item-to-item weights, and popularity where there are none."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from recsys.data.sequences import Int32, Int64
from recsys.models.pairs import Float64

BLOCK_VOTES = 4_000_000
"""Votes that are expanded at once; bounds memory at about 150 MB."""

Csr = tuple[Tensor, Tensor, Tensor]
"""`indptr` int64 [V + 2], `indices` int32 [nnz], `weights` float32 [nnz]: row j says whom an event of
item j votes for, and how strongly; row 0 (PAD) is empty."""


def largest(row: Int32 | Int64, column: Int32, value: Float64, count: int) -> Int64:
    """Return which entries are among the `count` largest of their row (ties by column), rows in order."""
    order = np.lexsort((column, -value, row))
    ordered = row[order]
    place = np.arange(len(ordered)) - np.searchsorted(ordered, ordered)
    return order[place < count]


def keep_votes(
    model: nn.Module,
    matrix: sparse.csr_array | None,
    item_counts: Int64 | Float64,
    device: torch.device | None = None,
) -> None:
    """Keep the weights and the popularity fill as buffers of a model: its whole state.

    Registers `indptr`, `indices`, `weights` and `fill` [V + 1]; without a matrix nobody votes yet.
    """
    if matrix is None:
        matrix = sparse.csr_array((len(item_counts), len(item_counts)))
    tensors = (*csr_tensors(matrix), popularity_fill(item_counts))
    for name, tensor in zip(("indptr", "indices", "weights", "fill"), tensors, strict=True):
        model.register_buffer(name, tensor.to(device))


def vote_scores(
    recent: Tensor, distance_weights: Tensor, matrix: Csr, fill: Tensor, items: Tensor | None
) -> Tensor:
    """Return the votes for the candidates, filled up by popularity, float32 [B, C].

    Args:
        recent: int64 [B, H], items newest first, 0-filled.
        distance_weights: float32 [H], the newest event's weight first.
        matrix: positive weights.
        fill: float32 [V + 1], negative.
        items: int64 [C] candidates; all of 0..V by default.
    """
    candidates, spread = distinct_candidates(items, len(fill) - 1, recent.device)
    votes = count_votes(recent, distance_weights, matrix, candidates)
    scores = fill_up(votes, fill[candidates])
    return scores if spread is None else scores[:, spread]


def count_votes(
    recent: Tensor,
    distance_weights: Tensor,
    matrix: Csr,
    items: Tensor,
    n_columns: int | None = None,
) -> Tensor:
    """Return votes[b, c] = sum over d of distance_weights[d] * matrix[recent[b, d], items[c]].

    Args:
        recent: int64 [B, H], items newest first, 0-filled.
        distance_weights: float32 [H], the newest event's weight first.
        matrix: positive weights.
        items: int64 [C] candidates, each at most once.
        n_columns: of the matrix; as many as rows by default.
    """
    indptr, indices, weights = matrix
    votes = torch.zeros(len(recent), len(items), device=recent.device)
    column = torch.full(
        (n_columns or len(indptr) - 1,), -1, device=recent.device
    )  # of each candidate
    column[items] = torch.arange(len(items), device=recent.device)
    who, back = recent.nonzero(as_tuple=True)  # [P]: one pair per history event
    voter = recent[who, back]
    first, degree = indptr[voter], indptr[voter + 1] - indptr[voter]
    for part in _blocks(degree):
        count = degree[part]
        pair = torch.repeat_interleave(count)  # [M], which pair of the part casts the vote
        place = torch.arange(len(pair), device=pair.device) - (count.cumsum(0) - count)[pair]
        source = first[part][pair] + place
        target = column[indices[source].long()]
        value = weights[source] * distance_weights[back[part]][pair]
        flat = who[part][pair] * len(items) + target
        kept = target >= 0
        votes.view(-1).index_add_(0, flat[kept], value[kept])
    return votes


def _blocks(degree: Tensor) -> Iterator[slice]:
    """Cut pairs into runs of about BLOCK_VOTES votes, at least one pair each."""
    block = (degree.cumsum(0) - 1).clamp(min=0) // BLOCK_VOTES  # [P], never falls
    start = 0
    for size in torch.unique_consecutive(block, return_counts=True)[1].tolist():
        yield slice(start, start + size)
        start += size


def fill_up(votes: Tensor, fill: Tensor) -> Tensor:
    """Return the votes [B, C], with `fill` [C] (negative) where there is none."""
    return torch.where(votes > 0, votes, fill)


def popularity_fill(item_counts: Int64 | Float64) -> Tensor:
    """Return popularity as float32 [V + 1] in [-1, 0): below any vote, equal counts stay ties."""
    distinct, rank = np.unique(item_counts, return_inverse=True)
    return torch.from_numpy((rank / len(distinct) - 1).astype(np.float32))


def csr_tensors(matrix: sparse.csr_array) -> Csr:
    """Return a scipy CSR array as tensors, without the weights that are zero in float32."""
    matrix = matrix.astype(np.float32)
    matrix.eliminate_zeros()
    return (
        torch.from_numpy(matrix.indptr.astype(np.int64)),
        torch.from_numpy(matrix.indices.astype(np.int32)),
        torch.from_numpy(matrix.data),
    )


def distinct_candidates(
    items: Tensor | None, n_items: int, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Return the candidates, each once, and the column of each of `items` among them.

    Without `items` they are 0..n_items, as they are (None).
    """
    if items is None:
        return torch.arange(n_items + 1, device=device), None
    distinct, inverse = items.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    return distinct, inverse
