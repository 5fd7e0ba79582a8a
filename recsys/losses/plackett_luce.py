"""Plackett-Luce likelihoods of sets: draws without replacement whose order was not observed.

Draw items one after another, each with probability proportional to w = exp(z) among those left. The
probability that the first k draws are the set S, in whatever order, is with W = sum_{v not in S} w_v

    P(S) = sum over orders of prod_t w_t / (W + w of what is left of S)         (k! terms)
         = sum_{A in S} (-1)^|A| W / (W + w(A))                                  (2^k terms)
         = int_0^1 prod_{i in S} (1 - u^(w_i / W)) du
         = int_0^inf e^-s prod_{i in S} (1 - e^(-s w_i / W)) ds                  (u = e^-s)

In a large catalogue w_i << W, and then the alternating sum loses every digit and a rule over u is per
cents off. `plackett_luce_set` takes the last integral with s = e^t, where the integrand's logarithm

    h(t) = t - e^t + sum_i log(1 - exp(-e^(t + rho_i))),    rho_i = z_i - log W

is concave. Equal steps between the two points where h has fallen out of sight converge as fast for
rho of -30 as for +30; the fixed nodes of Gauss-Laguerre do so for small w_i / W only, and an easy
target's gradient, at w_i / W = 100, is a third off with 64 of them. The integral over the exponential
races of the draws is well known (Plackett 1975; Yellott 1977); the substitution is ours.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recsys.losses.set_scores import NONE, SetScores, segment_sum
from recsys.losses.subsets import membership, sum_over_orders

EASY = 60.0
"""Scores above those of all the rest by more than this are as likely as can be told: 1 - e^-60."""


def plackett_luce_set(sets: SetScores) -> Tensor:
    """Return -log P(the first k draws are the set), float [B]; an empty set costs 0.

    Cost: k times 32 nodes (float32; 128 in float64), beside the softmax that gives `log_rest`. Relative
    error of P about 1e-6 and 1e-12. With one member it is the cross-entropy. The gradient is made in
    the forward pass.
    """
    losses: Tensor = _SetSurprise.apply(sets.scores, sets.log_rest, sets.rows)  # type: ignore[no-untyped-call]
    return losses


def plackett_luce_set_by_subsets(scores: Tensor, mask: Tensor, log_rest: Tensor) -> Tensor:
    """Return the same by the sum over subsets: all terms positive, exact, for up to 14 members.

        f(A) = sum_{i in A} f(A without i) w_i / (W + w(S) - w(A without i)),    P = f(S)

    Cost: K 2^K.

    Args:
        scores: float [B, K], the members' scores.
        mask: bool [B, K], False where there is no member.
        log_rest: float [B], log W.
    """
    inside = membership(scores.shape[1], scores.device)  # [2^K, K]
    scores = scores.masked_fill(~mask, NONE)
    left = scores[:, None, :].masked_fill(inside, NONE)  # [B, 2^K, K], not drawn yet
    rest = log_rest.clamp(min=NONE)[:, None, None].expand(-1, len(inside), 1)
    total = torch.cat([left, rest], 2).logsumexp(2, keepdim=True)  # [B, 2^K, 1]
    return -sum_over_orders(scores[:, None, :] - total, mask)


def plackett_luce_blocks(scores: Tensor, blocks: Tensor, log_rest: Tensor) -> Tensor:
    """Return -log P of a partial order, float [B]: block 0 is drawn first, then block 1, ...

        loss = sum_b -log P(the next |S_b| draws are S_b | S_0, ..., S_{b-1} are gone)

    Within a block nothing is said of the order. Blocks of one member each are ListMLE (Xia et al.
    2008), one block is `plackett_luce_set`. A block number that no member has is passed over.

    Args:
        scores: float [B, K], the members' scores; each member stands once.
        blocks: int64 [B, K], 0..K-1, -1 where there is no member.
        log_rest: float [B], log sum exp of all that is in no block.
    """
    count = scores.shape[1]
    numbers = torch.arange(count, device=scores.device)
    later = blocks[:, None, :] > numbers[:, None]  # [B, block, K]
    candidates = scores[:, None, :].masked_fill(~later, NONE)
    rest = log_rest.clamp(min=NONE)[:, None, None].expand(-1, count, 1)
    log_rests = torch.cat([candidates, rest], 2).logsumexp(2)  # [B, block]
    present = blocks >= 0
    rows = (torch.arange(len(scores), device=scores.device)[:, None] * count + blocks)[present]
    packed = SetScores(scores[present], rows, log_rests.flatten())
    return plackett_luce_set(packed).view(-1, count).sum(1)


class _Precision(NamedTuple):
    """How finely an integral is taken: where e^h counts as nothing, and the nodes in between."""

    drop: float
    nodes: int


class _SetSurprise(torch.autograd.Function):
    """-log P(S) and its gradients: -d log P / d z_i = -E_t[phi(t + rho_i)], t ~ e^h, and for log W the
    negative sum of them."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, log_rest: Tensor, rows: Tensor) -> Tensor:
        count = len(log_rest)
        rho = (scores - log_rest[rows]).clamp(max=EASY)  # [S]
        precision = _Precision(38.0, 128) if rho.dtype == torch.float64 else _Precision(18.0, 32)
        low, high = _support(rho, rows, count, precision.drop)
        share = torch.linspace(0, 1, precision.nodes, dtype=rho.dtype, device=rho.device)
        t = low[:, None] + (high - low)[:, None] * share  # [B, Q]
        log_factor, phi = _factors(t[rows] + rho[:, None])  # [S, Q]
        h = t - t.exp() + segment_sum(log_factor, rows, count)  # [B, Q]
        log_sum = h.logsumexp(1)
        step = (high - low) / (precision.nodes - 1)
        some = segment_sum(torch.ones_like(rho), rows, count) > 0
        if any(ctx.needs_input_grad[:2]):
            weight = (h - log_sum[:, None]).exp()  # [B, Q]
            ctx.save_for_backward((phi * weight[rows]).sum(1), rows)
            ctx.count = count
        return torch.where(some, -log_sum - step.log(), 0.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        slope, rows = ctx.saved_tensors
        slope = slope * grad[rows]
        return -slope, segment_sum(slope, rows, ctx.count), None


def _factors(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return log(1 - exp(-e^x)) and its derivative phi(x) = e^x / (exp(e^x) - 1), anywhere."""
    e = x.clamp(-60.0, 4.3).exp()  # beyond, the logarithm is 0 (or x) and phi is 0 (or 1)
    value = torch.where(e < 1e-5, x - e / 2, torch.log(-torch.expm1(-e)))
    return value, e / torch.expm1(e)


def _support(rho: Tensor, rows: Tensor, count: int, drop: float) -> tuple[Tensor, Tensor]:
    """Return `(low [B], high [B])` between which h is within `drop` of its maximum.

    At the maximum e^t = 1 + sum phi, which lies in [1, k + 1]. Both ends are then sought by Newton's
    method from outside: under a concave h its steps never come too far in.
    """
    size = segment_sum(torch.ones_like(rho), rows, count)

    def at(t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sums over a set of log factors and of phi, both [B]."""
        value, phi = _factors(t[rows] + rho)
        return segment_sum(value, rows, count), segment_sum(phi, rows, count)

    low, high = torch.zeros_like(size), (size + 1).log()
    for _ in range(8):
        middle = (low + high) / 2
        rising = 1 + at(middle)[1] > middle.exp()
        low, high = torch.where(rising, middle, low), torch.where(rising, high, middle)
    value, slope = at(low)
    mass = low.exp()
    aim = low - mass + value - drop
    # Right of a point the sum lies under its tangent: h falls at least as mass (e^d - 1) rises.
    ahead = torch.full_like(low, math.log(2 * drop + 8))
    for _ in range(8):
        fallen = mass * torch.expm1(ahead) - (1 + slope) * ahead - drop
        ahead = ahead - fallen / (mass * ahead.exp() - 1 - slope)
    behind = torch.minimum(aim, low)  # h(t) <= t
    for _ in range(10):
        value, steep = at(behind)
        here = behind - behind.exp() + value
        behind = behind + (aim - here) / (1 - behind.exp() + steep)
    return behind, low + ahead
