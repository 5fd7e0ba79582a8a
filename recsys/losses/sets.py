"""Losses of a set of targets: the members have no order among themselves.

Every loss here takes `SetScores` (or, the first, logits) and returns a value for each set, float [B].
Members count once. An empty set costs 0 and gets no gradient. Throughout, for a set S of k members and
scores z over a catalogue, p = softmax(z); with one member `multi_positive`, `any_of` and
`plackett_luce_set` are all the usual cross-entropy.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from recsys.losses.set_scores import SetScores, segment_logsumexp, segment_sum


def multi_hot_bce(logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Return binary cross-entropy of every class against membership in the set, float [B].

        loss = sum_v BCE(sigmoid(z_v), 1[v in S])          gradient: sigmoid(z) - 1[S]

    Every class is a question of its own, so sizes of sets are learned too. Cost: C per set; `SetBCE`
    is the one with drawn negatives. An empty set costs 0, although its classes could say no.

    Args:
        logits: float [B, C].
        targets: int64 [B, K], classes 0..C-1; repeats count once.
        mask: bool [B, K], False where a target is only padding.
    """
    wanted = torch.zeros_like(logits)
    rows, members = mask.nonzero()[:, 0], targets[mask]
    wanted[rows, members] = 1
    losses = binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(1)
    return losses * mask.any(1)


def multi_positive(sets: SetScores) -> Tensor:
    """Return the cross-entropy between the set's uniform distribution and the softmax, float [B].

        loss = -(1/k) sum_{y in S} log p_y                 gradient: p - 1[S] / k

    Wants all members equally likely: the minimum, log k, is p = 1/k on the members. Cost: that of a
    softmax.
    """
    count, size = len(sets.log_rest), sets.sizes()
    inside = segment_logsumexp(sets.scores, sets.rows, count)
    mean = segment_sum(sets.scores, sets.rows, count) / size.clamp(min=1)
    return _of_members(inside + softplus(sets.log_rest - inside) - mean, size)


def any_of(sets: SetScores) -> Tensor:
    """Return the surprise that a draw falls into the set at all, float [B].

        loss = -log sum_{y in S} p_y          always at least 0 and at most `multi_positive` - log k

    Satisfied by one member that takes all the probability. Cost: that of a softmax.
    """
    inside = segment_logsumexp(sets.scores, sets.rows, len(sets.log_rest))
    return _of_members(softplus(sets.log_rest - inside), sets.sizes())


def _of_members(losses: Tensor, size: Tensor) -> Tensor:
    """Return the losses, 0 for sets without members."""
    return torch.where(size > 0, losses, 0.0)
