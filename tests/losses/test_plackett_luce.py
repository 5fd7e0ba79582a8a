"""The likelihood of an unordered draw against all orders, against closed forms, in every regime."""

from __future__ import annotations

import math
from itertools import combinations, permutations

import numpy as np
import pytest
import torch
from scipy.special import roots_laguerre
from torch import Tensor

from recsys.losses.plackett_luce import (
    plackett_luce_blocks,
    plackett_luce_set,
    plackett_luce_set_by_subsets,
)
from recsys.losses.set_scores import SetScores


def one(z: Tensor, log_rest: Tensor) -> SetScores:
    return SetScores(z, torch.zeros(len(z), dtype=torch.int64), log_rest)


def enumerated(z: Tensor, log_rest: Tensor) -> Tensor:
    """Return -log P by all k! orders, in the log domain."""
    terms = []
    for order in permutations(range(len(z))):
        log_p = torch.zeros((), dtype=z.dtype)
        for t, i in enumerate(order):
            left = torch.cat([z[list(order[t:])], log_rest])
            log_p = log_p + z[i] - left.logsumexp(0)
        terms.append(log_p)
    return -torch.stack(terms).logsumexp(0)


def random_set(k: int, shift: float, spread: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    make = torch.Generator().manual_seed(seed)
    z = torch.randn(k, generator=make, dtype=torch.float64) * spread + shift
    log_rest = torch.randn(1, generator=make, dtype=torch.float64)
    return z.requires_grad_(), log_rest.requires_grad_()


REGIMES = [
    (k, shift, spread)
    for k in (1, 2, 5, 6)
    for shift in (-25.0, -10.0, 0.0, 3.0)
    for spread in (0.1, 1.0, 8.0)
]


@pytest.mark.parametrize(("k", "shift", "spread"), REGIMES)
def test_three_ways_agree(k: int, shift: float, spread: float) -> None:
    z, log_rest = random_set(k, shift, spread)
    ways = [
        enumerated(z, log_rest),
        plackett_luce_set(one(z, log_rest))[0],
        plackett_luce_set_by_subsets(z[None], torch.ones(1, k).bool(), log_rest)[0],
    ]
    grads = [torch.autograd.grad(way, (z, log_rest)) for way in ways]
    for way, grad in zip(ways[1:], grads[1:], strict=True):
        torch.testing.assert_close(way, ways[0], atol=1e-10, rtol=1e-11)
        torch.testing.assert_close(grad, grads[0], atol=1e-10, rtol=1e-9)


@pytest.mark.parametrize(("k", "shift", "spread"), REGIMES)
def test_float32_is_enough_to_train(k: int, shift: float, spread: float) -> None:
    z, log_rest = (x.detach().float().requires_grad_() for x in random_set(k, shift, spread))
    exact = plackett_luce_set(one(z.double(), log_rest.double()))
    loss = plackett_luce_set(one(z, log_rest))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), exact, atol=3e-5, rtol=3e-6)
    expected = torch.autograd.grad(exact.sum(), (z, log_rest))
    torch.testing.assert_close(
        torch.autograd.grad(loss.sum(), (z, log_rest)), expected, atol=1e-4, rtol=1e-4
    )


def test_inclusion_exclusion_agrees_where_it_can() -> None:
    w, rest = torch.tensor([5.0, 3.0, 0.7], dtype=torch.float64), 2.0
    total = sum(
        (-1) ** size * rest / (rest + sum(w[i].item() for i in group))
        for size in range(4)
        for group in combinations(range(3), size)
    )
    loss = plackett_luce_set(one(w.log(), torch.tensor([rest]).double().log()))
    assert math.exp(-loss.item()) == pytest.approx(total, rel=1e-11)


def test_a_large_catalogue_where_inclusion_exclusion_has_no_digit() -> None:
    """Five members with w / W about 1e-5: P is about 120e-25, far below the rounding of 1."""
    z, log_rest = torch.full((5,), -math.log(1e5), dtype=torch.float64), torch.zeros(1).double()
    loss = plackett_luce_set(one(z, log_rest))
    expected = enumerated(z, log_rest)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    alternating = sum((-1) ** a * math.comb(5, a) / (1 + a * 1e-5) for a in range(6))
    assert abs(alternating / math.exp(-expected.item()) - 1) > 0.1


def test_gauss_laguerre_agrees_for_small_weights_and_is_worse_for_large_ones() -> None:
    nodes, weights = (torch.from_numpy(x) for x in roots_laguerre(64))

    def laguerre(z: Tensor) -> Tensor:
        factors = -torch.expm1(-nodes[:, None] * z.exp())  # [Q, k]
        return -(weights.double() @ factors.prod(1)).log()

    small = torch.tensor([-9.0, -11.0, -8.5], dtype=torch.float64)
    log_rest = torch.zeros(1).double()
    ours = plackett_luce_set(one(small, log_rest))
    assert ours.item() == pytest.approx(laguerre(small).item(), rel=1e-12)
    easy = torch.tensor([math.log(100.0)], dtype=torch.float64, requires_grad=True)
    exact = 1 / 101  # of one member: 1 - p
    (fixed,) = torch.autograd.grad(laguerre(easy), easy)
    (own,) = torch.autograd.grad(plackett_luce_set(one(easy, log_rest)).sum(), easy)
    assert own.item() == pytest.approx(-exact, rel=1e-9)
    assert abs(fixed.item() / -exact - 1) > 0.1


@pytest.mark.parametrize("k", [50, 400])
def test_many_members_against_equal_weights(k: int) -> None:
    """Equal weights: P = prod_t (k - t) w / (W + (k - t) w)."""
    for log_ratio in (-12.0, 0.0, 6.0):
        left = np.arange(1, k + 1) * math.exp(log_ratio)
        expected = float(np.sum(np.log1p(1 / left)))
        for dtype, rel in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
            z = torch.full((k,), log_ratio, dtype=dtype)
            loss = plackett_luce_set(one(z, torch.zeros(1, dtype=dtype)))
            assert loss.item() == pytest.approx(expected, rel=rel)


def test_sets_of_different_sizes_share_a_batch() -> None:
    pieces = [random_set(k, shift, 1.0, seed=k) for k, shift in ((3, 0.0), (1, -9.0), (6, 2.0))]
    scores = torch.cat([z for z, _ in pieces])
    rows = torch.tensor([0] * 3 + [2] + [3] * 6)
    log_rest = torch.cat([pieces[0][1], torch.zeros(1), pieces[1][1], pieces[2][1]])
    losses = plackett_luce_set(SetScores(scores, rows, log_rest))
    assert losses[1].item() == 0
    for place, (z, rest) in zip((0, 2, 3), pieces, strict=True):
        alone = plackett_luce_set(one(z, rest))[0]
        torch.testing.assert_close(losses[place], alone, atol=1e-11, rtol=1e-11)


def test_gradients() -> None:
    z, log_rest = random_set(4, 0.0, 1.0)
    rows = torch.tensor([0, 1, 1, 1])
    rest = torch.cat([log_rest, log_rest + 1]).detach().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a, b: plackett_luce_set(SetScores(a, rows, b)), (z, rest)
    )
    mask = torch.tensor([[1, 1, 0, 1]]).bool()
    assert torch.autograd.gradcheck(
        lambda a, b: plackett_luce_set_by_subsets(a[None], mask, b), (z, log_rest)
    )
    blocks = torch.tensor([[0, 2, 2, 0]])
    assert torch.autograd.gradcheck(
        lambda a, b: plackett_luce_blocks(a[None], blocks, b), (z, log_rest)
    )


def test_subsets_pass_over_padding() -> None:
    z, log_rest = random_set(3, 0.0, 1.0)
    padded = torch.tensor([[9.0, 0, 0, 9, 0]]).double()
    padded[0, [1, 2, 4]] = z.detach()
    mask = torch.tensor([[0, 1, 1, 0, 1]]).bool()
    loss = plackett_luce_set_by_subsets(padded, mask, log_rest)
    torch.testing.assert_close(loss[0], enumerated(z, log_rest), atol=1e-12, rtol=0)
    assert plackett_luce_set_by_subsets(padded, ~mask & mask, log_rest).item() == 0


def test_too_many_members_for_subsets_are_refused() -> None:
    with pytest.raises(ValueError, match="15 members have 32,768 subsets; at most 14"):
        plackett_luce_set_by_subsets(torch.zeros(1, 15), torch.ones(1, 15).bool(), torch.zeros(1))


def test_blocks_of_one_are_listmle() -> None:
    z, log_rest = random_set(4, 0.0, 1.0)
    order = [2, 0, 3, 1]
    expected = torch.zeros((), dtype=torch.float64)
    for t, i in enumerate(order):
        left = torch.cat([z[order[t:]], log_rest])
        expected = expected - z[i] + left.logsumexp(0)
    blocks = torch.tensor([[order.index(i) for i in range(4)]])
    loss = plackett_luce_blocks(z[None], blocks, log_rest)[0]
    torch.testing.assert_close(loss, expected, atol=1e-10, rtol=0)


def test_one_block_is_the_set_and_padding_is_none() -> None:
    z, log_rest = random_set(3, 0.0, 1.0)
    padded = torch.cat([z, torch.tensor([7.0]).double()])[None]
    loss = plackett_luce_blocks(padded, torch.tensor([[0, 0, 0, -1]]), log_rest)[0]
    torch.testing.assert_close(loss, plackett_luce_set(one(z, log_rest))[0], atol=1e-11, rtol=0)
    nobody = plackett_luce_blocks(padded, torch.full((1, 4), -1), log_rest)
    assert nobody.item() == 0


def test_blocks_by_all_orders() -> None:
    """Blocks {0, 2} before {1, 3, 4}: the sum over the 2! 3! orders that keep to it."""
    z, log_rest = random_set(5, -1.0, 1.0)
    terms = []
    for first in permutations((0, 2)):
        for second in permutations((1, 3, 4)):
            order = [*first, *second]
            log_p = torch.zeros((), dtype=torch.float64)
            for t, i in enumerate(order):
                log_p = log_p + z[i] - torch.cat([z[order[t:]], log_rest]).logsumexp(0)
            terms.append(log_p)
    loss = plackett_luce_blocks(z[None], torch.tensor([[0, 1, 0, 1, 1]]), log_rest)[0]
    torch.testing.assert_close(loss, -torch.stack(terms).logsumexp(0), atol=1e-10, rtol=0)


def test_only_what_is_asked_is_differentiated() -> None:
    z, log_rest = random_set(3, 0.0, 1.0)
    (grad,) = torch.autograd.grad(plackett_luce_set(one(z, log_rest.detach())).sum(), z)
    assert grad.abs().min() > 0
    assert not plackett_luce_set(one(z.detach(), log_rest.detach())).requires_grad
