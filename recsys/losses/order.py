"""Losses of autoregressive decoders that write a set one element after another.

A decoder is given by a callable, so that any will do:

    scorer(prefix int64 [N, t], rows int64 [N]) -> float [N, t + 1, C]

log-probabilities of the class that follows each of the prefixes of length 0..t of example `rows[n]`, of
which the one after s elements depends on those s alone. Targets are int64 [B, K] with a mask bool [B,
K]; where the mask is False they are padding, which costs nothing. Losses are float [B]; an empty set
costs 0 (but for a stop symbol).

Elements that stand twice are written twice. Their order among themselves is none, so sums over orders
are over distinct sequences: k! / prod_v m_v! of them, where class v stands m_v times.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations

import torch
from torch import Tensor

from recsys.losses.set_scores import NONE
from recsys.losses.subsets import membership, sum_over_orders

Scorer = Callable[[Tensor, Tensor], Tensor]
SetScorer = Callable[[Tensor, Tensor], Tensor]
"""`scorer(written bool [N, K], rows int64 [N]) -> float [N, C]`: log-probabilities of the class that
follows when those of the example's targets are written, in whatever order."""

ENUMERATED = 7
"""Targets up to which all orders are written out."""


def in_order(scorer: Scorer, targets: Tensor, mask: Tensor) -> Tensor:
    """Return -log p of the targets in the order they are given, float [B].

        loss = -sum_t log p(y_t | y_1 .. y_{t-1})

    Cost: one call with whole prefixes.
    """
    targets, mask = front(targets, mask)
    rows = torch.arange(len(targets), device=targets.device)
    return -log_likelihood(scorer, targets, mask, rows)


def every_order(scorer: Scorer, targets: Tensor, mask: Tensor) -> Tensor:
    """Return -log of the sum over all distinct orders pi of p(y_pi), float [B]: the exact marginal.

    Cost: k! sequences, so at most 7 targets; `recsys.losses.order_search` estimates it beyond.
    """
    targets, mask = front(targets, mask)
    count = targets.shape[1]
    if count > ENUMERATED:
        raise ValueError(
            f"{count} targets have {math.factorial(count):,} orders; at most {ENUMERATED} are enumerated"
        )
    listed = list(permutations(range(count)))
    orders = torch.tensor(listed, device=targets.device).view(len(listed), count)  # [M, K]
    orders = orders.long()  # of no targets, torch makes floats
    rows = torch.arange(len(targets), device=targets.device).repeat_interleave(len(orders))
    written = targets[:, orders].flatten(0, 1)  # [B M, K]
    # Padding stays at the end and in place, so that each order of the real targets is there once.
    real = mask[:, orders].flatten(0, 1)
    kept = torch.where(real, -1, orders.repeat(len(targets), 1))
    kept = ((kept == -1) | (kept == torch.arange(count, device=targets.device))).all(1)
    log_p = log_likelihood(scorer, written, real, rows)
    total = torch.where(kept, log_p, NONE).view(-1, len(orders)).logsumexp(1)
    return _log_copies(targets, mask).to(total.dtype) - total


def oracle_policy(
    scorer: Scorer,
    targets: Tensor,
    mask: Tensor,
    *,
    stop: int | None = None,
) -> Tensor:
    """Return the distance to a policy that takes any target still missing (Welleck et al. 2018).

        loss = sum_t KL(uniform(R_t) || p_t),    R_t = what is still to be written after y_1 .. y_{t-1}

    The prefixes are the targets in the order given: shuffle them, or write them by the decoder's own
    choice (`recsys.losses.order_search.sampled_order`). R_t is a set: a class that is missing twice is
    in it once. With `stop`, that class must follow the last element: -log p(stop) is added, also for an
    empty set. With one target the loss is its cross-entropy; the gradient by the logits is p_t -
    uniform(R_t). Cost: one call, k C.
    """
    targets, mask = front(targets, mask)
    count = targets.shape[1]
    rows = torch.arange(len(targets), device=targets.device)
    log_p = scorer(targets, rows)  # [B, K + 1, C]
    of_targets = log_p[:, :count].gather(2, targets[:, None, :].expand(-1, count, -1))  # [B, t, K]
    missing = (mask[:, None, :] & mask[:, :, None]).triu()  # [B, t, K], not written before t
    # Of several copies that are missing, the last stands for all.
    same = (targets[:, :, None] == targets[:, None, :]) & mask[:, None, :]
    last = ~same.triu(1).any(2)  # [B, K]
    wanted = missing & last[:, None, :]
    size = wanted.sum(2).clamp(min=1)  # [B, t]
    cross = -torch.where(wanted, of_targets, 0).sum(2) / size
    losses = torch.where(mask, cross - size.to(cross.dtype).log(), 0).sum(1)
    if stop is None:
        return losses
    end = log_p[:, :, stop].gather(1, mask.sum(1, keepdim=True))[:, 0]
    return losses - end


def every_order_of_pooled(scorer: SetScorer, targets: Tensor, mask: Tensor) -> Tensor:
    """Return -log of the sum over all distinct orders, for a decoder that forgets the order, float [B].

        f(A) = sum_{i in A} f(A without i) p(y_i | A without i),    loss = -log f(S)

    Equal to `every_order`, at 2^K states of the decoder instead of K! sequences; at most 14 targets.
    """
    count = targets.shape[1]
    written = membership(count, targets.device)  # [2^K, K]
    rows = torch.arange(len(targets), device=targets.device).repeat_interleave(len(written))
    states = (written & mask[:, None, :]).flatten(0, 1)  # [B 2^K, K]
    log_p = scorer(states, rows).view(len(targets), len(written), -1)  # [B, 2^K, C]
    steps = log_p.gather(2, targets[:, None, :].expand(-1, len(written), -1))  # [B, 2^K, K]
    return _log_copies(targets, mask).to(steps.dtype) - sum_over_orders(steps, mask)


def log_likelihood(scorer: Scorer, written: Tensor, mask: Tensor, rows: Tensor) -> Tensor:
    """Return log p of N sequences, float [N]; padding comes last in each."""
    if written.shape[1] == 0:
        return scorer(written, rows).new_zeros(len(written))
    log_p = scorer(written[:, :-1], rows)  # [N, K, C]
    each = log_p.gather(2, written[:, :, None])[:, :, 0]  # [N, K]
    return torch.where(mask, each, 0).sum(1)


def front(targets: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return `(targets, mask)` with padding last in each row, the rest in its order."""
    order = mask.long().argsort(dim=1, descending=True, stable=True)
    return targets.gather(1, order), mask.gather(1, order)


def _log_copies(targets: Tensor, mask: Tensor) -> Tensor:
    """Return log prod_v m_v! of each row, float64 [B]: how often each sequence is among the k!."""
    same = (targets[:, :, None] == targets[:, None, :]) & mask[:, None, :] & mask[:, :, None]
    nth = same.tril().sum(2).clamp(min=1)  # the second copy is 2, ...
    return nth.double().log().sum(1)
