"""Losses between K slots, each a distribution of its own, and a set of k <= K targets without order.

C[b, i, j] = -log P_i(y_j) is what it costs slot i to say target j. The losses differ in who says what:
the cheapest assignment (6 by search, 7 by listing), a soft one (8), the mean over all of them (9), or
the cheapest slot for each target, whoever else it serves (10). For k = K always

    Chamfer <= assignment <= Sinkhorn <= sum C / K,    assignment <= permanent <= mean over orders

Targets that stand twice are two targets. Slots that are left without a target pay `empty[b, i]`, their
cost of saying "no object"; nothing without it. Each loss is float [B], and 0 for a set without targets
and without `empty`.
"""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import torch
from torch import Tensor

from recsys.losses.subsets import membership, sum_over_orders

LISTED = 4
"""Slots up to which permutation-invariant training lists all orders."""


def assignment(cost: Tensor, mask: Tensor, empty: Tensor | None = None) -> Tensor:
    """Return the cost of the cheapest assignment of targets to slots, float [B].

        loss = min_pi sum_i C[i, pi(i)]

    The assignment is found for the values as they are (`match`) and is a constant to the gradient, as
    in DETR (Carion et al. 2020). Cost: K^3 on the CPU, which the device waits for.

    Args:
        cost: float [B, K, k], k <= K.
        mask: bool [B, k], False where a target is only padding.
        empty: float [B, K], the cost of each slot's "no object".
    """
    square = square_cost(cost, mask, empty)
    return square.gather(2, match(square)[:, :, None]).sum((1, 2))


def permutation_invariant(cost: Tensor, mask: Tensor, empty: Tensor | None = None) -> Tensor:
    """Return the same minimum by listing all K! orders, K <= 4 (Yu et al. 2017), float [B].

    Without the wait for the CPU that `assignment` has.
    """
    square = square_cost(cost, mask, empty)
    count = square.shape[1]
    if count > LISTED:
        raise ValueError(f"{count} slots have {math.factorial(count):,} orders; use `assignment`")
    orders = torch.tensor(list(permutations(range(count))), device=cost.device)  # [K!, K]
    listed = square[:, torch.arange(count, device=cost.device), orders].sum(2)  # [B, K!]
    return listed.amin(1)


def sinkhorn(
    cost: Tensor,
    mask: Tensor,
    empty: Tensor | None = None,
    *,
    epsilon: float = 0.1,
    iterations: int = 100,
) -> Tensor:
    """Return the cost under the entropic optimal plan, float [B].

        loss = <Pi, C>,    Pi = argmin over doubly stochastic Pi of <Pi, C> - epsilon H(Pi)

    by alternate scaling of rows and columns in the log domain (Cuturi 2013), rounded to sums of exactly
    one (Altschuler et al. 2017), so that too few iterations still give a plan and never less than the
    assignment. The gradient goes through the iterations. epsilon -> 0 is the assignment, epsilon ->
    infinity the mean over all of them, sum C / K. Cost: `iterations` times K^2; a small epsilon needs
    many (about the spread of C / epsilon).
    """
    square = square_cost(cost, mask, empty)
    log_plan = -square / epsilon  # [B, K, K]
    for _ in range(iterations):
        log_plan = log_plan - log_plan.logsumexp(1, keepdim=True)
        log_plan = log_plan - log_plan.logsumexp(2, keepdim=True)
    return (_rounded(log_plan.exp()) * square).sum((1, 2))


def _rounded(plan: Tensor) -> Tensor:
    """Return the doubly stochastic plan nearby: too full columns scaled, what is missing spread."""
    plan = plan / plan.sum(1, keepdim=True).clamp(min=1)
    rows = (1 - plan.sum(2)).clamp(min=0)  # missing, [B, K]
    columns = (1 - plan.sum(1)).clamp(min=0)
    missing = rows.sum(1)[:, None, None].clamp(min=torch.finfo(plan.dtype).tiny)
    return plan + rows[:, :, None] * columns[:, None, :] / missing


def permanent(cost: Tensor, mask: Tensor) -> Tensor:
    """Return -log of the chance that the slots say the set in an order drawn at random, float [B].

        loss = -log( perm(P) / k! ),    P[i, j] = exp(-C[i, j]),    i, j < k

    A row's first k slots speak for its k targets, the others are not read. Cost: k 2^k, by the sum over
    subsets of targets that the first slots have said. Ryser's formula costs the same, but its terms
    alternate: when the slots agree on one target it has no correct digit left. At most 14 targets.
    """
    count = cost.shape[2]
    if count == 0:
        return cost.sum((1, 2))
    _refuse_too_many(mask, cost.shape[1])
    said = membership(count, cost.device).sum(1)  # [2^k], how many slots have spoken
    said = said.clamp(max=cost.shape[1] - 1)  # of subsets that no set reaches
    log_sum = sum_over_orders(-cost[:, said], mask)  # [B]
    return mask.sum(1).to(cost.dtype).add(1).lgamma() - log_sum


def chamfer(cost: Tensor, mask: Tensor) -> Tensor:
    """Return what the targets cost if each goes to its cheapest slot, float [B].

        loss = sum_j min_i C[i, j]

    Slots may serve several targets or none, and nothing keeps them apart. Cost: K k.
    """
    return (cost.amin(1) * mask).sum(1)


def match(square: Tensor) -> Tensor:
    """Return the column of each row in the cheapest assignment, int64 [B, K], for costs [B, K, K].

    Equal assignments: the one scipy's `linear_sum_assignment` finds. A cost that is no number is an
    error (ValueError).
    """
    from scipy.optimize import linear_sum_assignment

    columns = np.empty(square.shape[:2], dtype=np.int64)
    for row, one in zip(columns, square.detach().cpu().numpy(), strict=True):
        row[:] = linear_sum_assignment(one)[1]
    return torch.from_numpy(columns).to(square.device)


def square_cost(cost: Tensor, mask: Tensor, empty: Tensor | None = None) -> Tensor:
    """Return costs float [B, K, K] in which padding and missing targets are "no object" columns."""
    slots, targets = cost.shape[1:]
    _refuse_too_many(mask, slots)
    none = cost.new_zeros(cost.shape[:2]) if empty is None else empty
    if targets > slots:  # the surplus is padding; let what is real come first
        front = mask.long().argsort(dim=1, descending=True, stable=True)[:, :slots]
        cost = cost.gather(2, front[:, None, :].expand(-1, slots, -1))
        mask = mask.gather(1, front)
    else:
        cost = torch.nn.functional.pad(cost, (0, slots - targets))
        mask = torch.nn.functional.pad(mask, (0, slots - targets))
    return torch.where(mask[:, None, :], cost, none[:, :, None])


def _refuse_too_many(mask: Tensor, slots: int) -> None:
    """Raise ValueError if a set has more targets than there are slots."""
    if mask.shape[1] > slots and bool((mask.sum(1) > slots).any()):
        raise ValueError(
            f"a set has {int(mask.sum(1).max())} targets but there are only {slots} slots"
        )


def slot_cost(logits: Tensor, targets: Tensor) -> Tensor:
    """Return C[b, i, j] = -log softmax(logits[b, i])[targets[b, j]], float [B, K, k].

    Args:
        logits: float [B, K, V].
        targets: int64 [B, k], classes 0..V-1; padding may be any of them.
    """
    index = targets[:, None, :].expand(-1, logits.shape[1], -1)
    return logits.logsumexp(2, keepdim=True) - logits.gather(2, index)
