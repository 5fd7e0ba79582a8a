from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from recsys.losses import NegativeSampler, SampledSoftmax
from recsys.losses.scores import sampled_scores


class Fixed(nn.Module):
    """A sampler that always gives the same negatives and expected counts."""

    def __init__(self, negatives: Tensor, log_count: Tensor) -> None:
        super().__init__()
        self.given = negatives, log_count

    def forward(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        return self.given


def problem(tokens: int = 5, items: int = 9, width: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    make = torch.Generator().manual_seed(3)
    queries = torch.randn(tokens, width, generator=make, dtype=torch.float64)
    table = torch.randn(items + 1, width, generator=make, dtype=torch.float64)
    targets = torch.randint(1, items + 1, (tokens,), generator=make)
    return queries.requires_grad_(), targets, table.requires_grad_()


@pytest.mark.parametrize("shared", [True, False])
def test_every_item_once_is_the_full_softmax(shared: bool) -> None:
    queries, targets, table = problem()
    negatives = torch.arange(1, 10)
    if not shared:
        negatives = negatives.repeat(5, 1)
    loss = SampledSoftmax(Fixed(negatives, torch.zeros(negatives.shape)), temperature=0.5)  # type: ignore[arg-type]
    ours = loss(queries, targets, table)
    oracle = cross_entropy(queries @ table[1:].T / 0.5, targets - 1)
    torch.testing.assert_close(ours, oracle, atol=1e-10, rtol=0)
    for grad, expected in zip(
        torch.autograd.grad(ours, (queries, table)),
        torch.autograd.grad(oracle, (queries, table)),
        strict=True,
    ):
        torch.testing.assert_close(grad, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", ["uniform", "popularity"])
@pytest.mark.parametrize("shared", [True, False])
def test_many_negatives_tend_to_the_full_softmax(name: str, shared: bool) -> None:
    queries, targets, table = problem()
    counts = np.arange(10, dtype=np.int64) ** 2
    sampler = NegativeSampler(name, counts, 60_000, shared=shared, seed=1)  # type: ignore[arg-type]
    oracle = cross_entropy(queries @ table[1:].T, targets - 1)
    ours = SampledSoftmax(sampler)(queries, targets, table)
    assert ours.item() == pytest.approx(oracle.item(), abs=0.01)
    uncorrected = SampledSoftmax(sampler, logq=False)(queries, targets, table)
    assert uncorrected.item() > oracle.item() + 5  # so the correction is what brings it there


def test_denominator_is_unbiased_in_expectation() -> None:
    # All 9^2 equally likely draws of two negatives, for one token: the mean estimate is exact.
    queries, targets, table = (x.detach() for x in problem(tokens=1))
    exact = (queries @ table[1:].T).exp().sum()
    target_score = (queries * table[targets]).sum()
    total = 0.0
    for i in range(1, 10):
        for j in range(1, 10):
            sampler = Fixed(torch.tensor([[i, j]]), torch.full((1, 2), math.log(2 / 9)).double())
            loss = SampledSoftmax(sampler)(queries, targets, table)  # type: ignore[arg-type]
            total += (loss + target_score).exp().item() / 81
    assert total == pytest.approx(exact.item(), rel=1e-6)


def test_hand_computed_with_accidental_hit() -> None:
    # exp of scores: item 1 -> 1, item 2 -> 2, item 3 -> 5; the target 3 is drawn and left out.
    table = torch.tensor([[7.0], [0.0], [math.log(2)], [math.log(5)]])
    sampler = Fixed(torch.tensor([[3, 2, 1, 1]]), torch.tensor([[0.0, math.log(4), 0.0, 0.0]]))
    query, target = torch.ones(1, 1), torch.tensor([3])
    loss = SampledSoftmax(sampler)(query, target, table)  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(math.log((5 + 2 / 4 + 1 + 1) / 5), abs=1e-6)
    plain = SampledSoftmax(sampler, logq=False)(query, target, table)  # type: ignore[arg-type]
    assert plain.item() == pytest.approx(math.log((5 + 2 + 1 + 1) / 5), abs=1e-6)


def test_in_batch_hand_computed() -> None:
    # Targets 1, 2, 2 with training shares 1/4 and 3/4, so 3 Q is 3/4 and 9/4.
    table = torch.tensor([[7.0], [0.0], [math.log(2)]])
    sampler = NegativeSampler("in_batch", np.array([0, 1, 3]), 99, shared=False)
    loss = SampledSoftmax(sampler)(torch.ones(3, 1), torch.tensor([1, 2, 2]), table)
    first = math.log(1 + 2 * 2 / (9 / 4))
    others = math.log((2 + 1 / (3 / 4)) / 2)
    assert loss.item() == pytest.approx((first + 2 * others) / 3, abs=1e-6)


@pytest.mark.parametrize("shared", [True, False])
def test_scores_equal_plain_indexing(shared: bool) -> None:
    queries, targets, table = problem()
    shape = (7,) if shared else (5, 7)
    negatives = torch.randint(1, 10, shape, generator=torch.Generator().manual_seed(5))
    positive, scores = sampled_scores(queries, targets, negatives, table, 0.5)
    rows = table[negatives].expand(5, 7, 3)
    torch.testing.assert_close(scores, (rows * queries[:, None]).sum(2) / 0.5)
    torch.testing.assert_close(positive, (table[targets] * queries).sum(1) / 0.5)

    def both(q: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return sampled_scores(q, targets, negatives, t, 0.5)

    assert torch.autograd.gradcheck(both, (queries, table))


@pytest.mark.parametrize("shared", [True, False])
def test_scores_stay_float32_under_autocast(shared: bool) -> None:
    queries, targets, table = (x.detach() for x in problem())
    negatives = torch.arange(1, 8) if shared else torch.arange(1, 8).repeat(5, 1)
    plain = sampled_scores(queries.float(), targets, negatives, table.float(), 1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = sampled_scores(queries.float(), targets, negatives, table.float(), 1.0)
    assert all(torch.equal(a, b) for a, b in zip(plain, cast, strict=True))
    low = sampled_scores(queries.bfloat16(), targets, negatives, table.float(), 1.0)
    assert {s.dtype for s in low} == {torch.float32}


@pytest.mark.parametrize("wanted", ["queries", "table"])
def test_only_one_gradient_wanted(wanted: str) -> None:
    queries, targets, table = problem()
    negatives = torch.arange(1, 8).repeat(5, 1)
    if wanted == "queries":
        table = table.detach()
    else:
        queries = queries.detach()
    leaf = queries if wanted == "queries" else table
    (grad,) = torch.autograd.grad(
        sampled_scores(queries, targets, negatives, table, 1.0)[1].sum(), leaf
    )
    (oracle,) = torch.autograd.grad((queries @ table[1:8].T).sum(), leaf)
    torch.testing.assert_close(grad, oracle)
