"""Scores of sets of targets, packed: what every loss of an unordered target needs to know.

B sets with S members in all. A loss of a set reads the scores of its members and, of everything else
in the catalogue, one number: the log of the sum of exp(score). So it costs the same whether that
number comes from the whole catalogue, from drawn negatives or from a shortlist.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

NONE = -1e30
"""Log of nothing. Finite, because the gradient of a logsumexp over minus infinities is not a number."""


class SetScores(NamedTuple):
    """The members' scores of B sets, one after another, and what they compete with.

    Attributes:
        scores: float [S], each member's score.
        rows: int64 [S], which set each member belongs to.
        log_rest: float [B], log sum of exp(score) over all classes outside the set, -inf for none.
    """

    scores: Tensor
    rows: Tensor
    log_rest: Tensor

    def sizes(self) -> Tensor:
        """Return the members of each set, in the scores' dtype, [B]."""
        return segment_sum(torch.ones_like(self.scores), self.rows, len(self.log_rest))


def set_scores(logits: Tensor, targets: Tensor, mask: Tensor) -> SetScores:
    """Return the packed scores of target sets; a class that a set names twice is in it once.

    All C classes compete: with a column for PAD pass `logits[:, 1:]` and `targets - 1`.

    Args:
        logits: float [B, C].
        targets: int64 [B, K], classes 0..C-1.
        mask: bool [B, K], False where a target is only padding.
    """
    mask = mask & ~repeated(targets, mask)
    rows = mask.nonzero()[:, 0]  # [S]
    members = targets[mask]  # [S]
    taken = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device)
    taken[rows, members] = True
    log_rest = logits.masked_fill(taken, NONE).logsumexp(1)  # [B]
    log_rest = torch.where(taken.all(1), -torch.inf, log_rest)
    return SetScores(logits[rows, members], rows, log_rest)


def repeated(targets: Tensor, mask: Tensor) -> Tensor:
    """Tell which targets have stood earlier in their row, bool [B, K]; padding never has."""
    same = (targets[:, :, None] == targets[:, None, :]) & mask[:, None, :]  # [B, K, K]
    return mask & same.tril(-1).any(2)


def segment_sum(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """Return the sums of `values` [S, ...] over the members of each of `count` rows, [count, ...]."""
    out = values.new_zeros(count, *values.shape[1:])
    return out.index_add(0, rows, values)


def segment_logsumexp(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """Return log sum exp of `values` [S] over each row, [count]; `NONE` for a row without members."""
    top = torch.full((count,), NONE, dtype=values.dtype, device=values.device)
    top = top.scatter_reduce(0, rows, values.detach(), "amax")
    total = segment_sum((values - top[rows]).exp(), rows, count)
    return top + total.clamp(min=1).log()  # the largest member alone makes it 1
