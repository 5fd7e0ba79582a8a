"""Searching the order in which a decoder best writes a set (Vinyals, Bengio and Kudlur 2015, 1511.06391).

The likelihood of a set is the sum over orders of that of its sequences, too many to write out. What is
minimised instead, after some steps in which all orders are taught alike (a naive maximum sticks to
whichever order chance preferred at first):

    hard       -log max_pi p(y_pi)                      the likeliest order, by beam search
    sampled    -log p(y_pi), pi ~ q                     one that the decoder itself would take now
    corrected  -log (1/M) sum_m w(pi_m), pi_m ~ q       an estimate of the marginal itself

Sampling element by element from what is left, renormalised, does not give the posterior p(y_pi) / sum
but q(pi) = prod_t p(y_t | prefix) / sum_{j in R_t} p(j | prefix). With the weight w = p(y_pi) / q(pi) =
prod_t sum_{j in R_t} p(j | prefix), E_q[w] = sum_pi p(y_pi) exactly; E_q[log w] is below its log, so the
corrected loss is above the marginal's on average and comes down to it as M grows. A maximum over orders
is no likelihood: perplexities of `hard` compare with none of the others.

`Scorer`, masks, copies and empty sets are as in `recsys.losses.order`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from recsys.losses.order import Scorer, front, log_likelihood
from recsys.losses.set_scores import NONE


@dataclass(frozen=True)
class OrderSearch:
    """How orders are searched.

    Attributes:
        method: `uniform`, `hard`, `sampled` or `corrected`, as above.
        warm_up: steps with uniformly random orders before that.
        samples: orders a set, where they are drawn.
        width: beams of the search; exact from k! on.
    """

    method: Literal["uniform", "hard", "sampled", "corrected"] = "sampled"
    warm_up: int = 1000
    samples: int = 1
    width: int = 8

    def loss(
        self,
        scorer: Scorer,
        targets: Tensor,
        mask: Tensor,
        step: int,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return the loss of every set at a training step, float [B]."""
        if step < self.warm_up or self.method == "uniform":
            return uniform_orders(scorer, targets, mask, self.samples, generator)
        match self.method:
            case "hard":
                return hard_em(scorer, targets, mask, self.width)
            case "sampled":
                return sampled_orders(scorer, targets, mask, self.samples, generator)
        return corrected_orders(scorer, targets, mask, self.samples, generator)


class Drawn(NamedTuple):
    """Orders that were drawn for N rows: `written` int64 [N, K], its mask, and log q of each [N]."""

    written: Tensor
    mask: Tensor
    rows: Tensor
    log_q: Tensor


def uniform_orders(
    scorer: Scorer,
    targets: Tensor,
    mask: Tensor,
    samples: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the mean of -log p(y_pi) over uniformly random orders, float [B]: a sum of logs."""
    targets, mask, rows = _repeat(targets, mask, samples)
    key = torch.rand(targets.shape, generator=generator, device=targets.device)
    order = (key + 2 * ~mask).argsort(1)
    written, real = targets.gather(1, order), mask.gather(1, order)
    return -log_likelihood(scorer, written, real, rows).view(-1, samples).mean(1)


def hard_em(scorer: Scorer, targets: Tensor, mask: Tensor, width: int) -> Tensor:
    """Return -log p of the likeliest order that a beam of `width` finds, float [B].

    Exact for width >= k!. Cost: k calls without gradient, width B sequences each, and one with.
    """
    written, mask = best_order(scorer, targets, mask, width)
    rows = torch.arange(len(written), device=written.device)
    return -log_likelihood(scorer, written, mask, rows)


def sampled_orders(
    scorer: Scorer,
    targets: Tensor,
    mask: Tensor,
    samples: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the mean of -log p(y_pi) over orders that the decoder draws itself, float [B]."""
    drawn = sampled_order(scorer, targets, mask, samples, generator)
    log_p = log_likelihood(scorer, drawn.written, drawn.mask, drawn.rows)
    return -log_p.view(-1, samples).mean(1)


def corrected_orders(
    scorer: Scorer,
    targets: Tensor,
    mask: Tensor,
    samples: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return -log of the mean weight of orders that the decoder draws itself, float [B].

    q is a constant to the gradient: since w q = p, the gradient of the marginal is E_q[w grad log p],
    and that of this loss is the same with the weights normalised over the samples.
    """
    drawn = sampled_order(scorer, targets, mask, samples, generator)
    log_p = log_likelihood(scorer, drawn.written, drawn.mask, drawn.rows)
    log_w = (log_p - drawn.log_q).view(-1, samples)
    log_count = torch.tensor(samples, dtype=log_w.dtype, device=log_w.device).log()
    return log_count - log_w.logsumexp(1)


@torch.no_grad()
def sampled_order(
    scorer: Scorer,
    targets: Tensor,
    mask: Tensor,
    samples: int = 1,
    generator: torch.Generator | None = None,
) -> Drawn:
    """Draw `samples` orders for every set, element by element among what is left; N = B samples.

    Cost: k calls with ever longer prefixes.
    """
    targets, mask, rows = _repeat(targets, mask, samples)
    left, written = mask.clone(), targets.clone()
    earlier = _earlier_copies(targets, mask)
    log_q: Tensor | None = None
    for t in range(targets.shape[1]):
        scores = _scores_of_left(scorer, written[:, :t], rows, targets, left, earlier)  # [N, K]
        noise = torch.rand(scores.shape, generator=generator, device=scores.device)
        gumbel = -(-noise.clamp(1e-30, 1 - 1e-7).log()).log().to(scores.dtype)
        pick = torch.where(scores > NONE / 2, scores + gumbel, NONE).argmax(1, keepdim=True)
        going_on = mask[:, t]
        written[:, t] = torch.where(going_on, targets.gather(1, pick)[:, 0], written[:, t])
        left = left & ~(_one_hot(pick, left) & going_on[:, None])
        gained = torch.where(going_on, scores.log_softmax(1).gather(1, pick)[:, 0], 0)
        log_q = gained if log_q is None else log_q + gained
    if log_q is None:
        log_q = torch.zeros(len(targets), device=targets.device)
    return Drawn(written, mask, rows, log_q)


@torch.no_grad()
def best_order(scorer: Scorer, targets: Tensor, mask: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return `(targets in the likeliest order found, their mask)`, both [B, K], padding last.

    Beam search over what is left, by log p of the sequence so far; ties go to the earlier target.
    """
    targets, mask = front(targets, mask)
    size, count = targets.shape
    wide, real, rows = _repeat(targets, mask, width)  # [B W, K]
    left, written = real.clone(), wide.clone()
    earlier = _earlier_copies(wide, real)
    total = torch.full((size, width), NONE, device=targets.device)
    total[:, 0] = 0  # one beam begins
    for t in range(count):
        scores = _scores_of_left(scorer, written[:, :t], rows, wide, left, earlier)
        going_on = real[:, t]
        # A finished set carries its beams on: one extension each, which costs nothing.
        stay = torch.full_like(scores, NONE)
        stay[:, 0] = 0
        scores = torch.where(going_on[:, None], scores, stay)
        whole = (total.to(scores.dtype)[:, :, None] + scores.view(size, width, count)).flatten(1)
        total, where = whole.topk(width, dim=1)
        total = total.clamp(min=NONE)
        parent = (
            where // count + width * torch.arange(size, device=where.device)[:, None]
        ).flatten()
        pick = (where % count).flatten()[:, None]
        written, left = written[parent], left[parent]
        written[:, t] = torch.where(going_on, wide.gather(1, pick)[:, 0], written[:, t])
        left = left & ~(_one_hot(pick, left) & going_on[:, None])
    return written.view(size, width, count)[:, 0], mask


def _repeat(targets: Tensor, mask: Tensor, times: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return `(targets, mask, rows)` with each row `times` times and padding last."""
    targets, mask = front(targets, mask)
    rows = torch.arange(len(targets), device=targets.device).repeat_interleave(times)
    return targets[rows], mask[rows], rows


def _earlier_copies(targets: Tensor, mask: Tensor) -> Tensor:
    """Tell for each target which others are earlier copies of it, bool [N, K, K]."""
    same = (targets[:, :, None] == targets[:, None, :]) & mask[:, None, :]
    return same.tril(-1)


def _scores_of_left(
    scorer: Scorer, prefix: Tensor, rows: Tensor, targets: Tensor, left: Tensor, earlier: Tensor
) -> Tensor:
    """Return log p of each target after the prefix, [N, K], `NONE` where it may not come next.

    Of several copies that are left only the first may, so that each sequence is drawn in one way.
    """
    log_p = scorer(prefix, rows)[:, -1]  # [N, C]
    free = left & ~(earlier & left[:, None, :]).any(2)
    return torch.where(free, log_p.gather(1, targets), NONE)


def _one_hot(pick: Tensor, like: Tensor) -> Tensor:
    """Return bool [N, K], True at the picked column."""
    return torch.zeros_like(like).scatter(1, pick, True)
