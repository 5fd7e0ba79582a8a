from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from recsys.losses import BCE, BPR
from recsys.losses.pairwise import gbce_beta


class Fixed(nn.Module):
    """A sampler that always gives the same negatives."""

    def __init__(self, negatives: Tensor) -> None:
        super().__init__()
        self.negatives = negatives

    def forward(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        return self.negatives, torch.zeros(self.negatives.shape)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def brute_force(
    kind: str,
    queries: Tensor,
    targets: Tensor,
    table: Tensor,
    negatives: Tensor,
    beta: float,
    t: float,
) -> float:
    total = 0.0
    for row, target in enumerate(targets.tolist()):
        score = [float(queries[row] @ v) / t for v in table]
        drawn = (negatives if negatives.dim() == 1 else negatives[row]).tolist()
        kept = [j for j in drawn if j != target]
        if kind == "bce":
            value = beta * math.log(sigmoid(score[target]))
            value += sum(math.log(1 - sigmoid(score[j])) for j in kept)
            total -= value / (len(kept) + 1)
        elif kept:
            total -= sum(math.log(sigmoid(score[target] - score[j])) for j in kept) / len(kept)
    return total / len(targets)


@pytest.mark.parametrize("kind", ["bce", "bpr"])
@pytest.mark.parametrize("shared", [True, False])
def test_equals_brute_force(kind: str, shared: bool) -> None:
    make = torch.Generator().manual_seed(2)
    queries = torch.randn(6, 3, generator=make, dtype=torch.float64, requires_grad=True)
    table = torch.randn(8, 3, generator=make, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([1, 2, 3, 4, 5, 5])
    negatives = torch.randint(1, 8, (4,) if shared else (6, 4), generator=make)
    assert (negatives == targets[:, None]).any()  # accidental hits are there to be left out
    sampler = Fixed(negatives)
    loss = (
        BCE(sampler, beta=0.3, temperature=0.5)  # type: ignore[arg-type]
        if kind == "bce"
        else BPR(sampler, temperature=0.5)  # type: ignore[arg-type]
    )
    value = loss(queries, targets, table)
    expected = brute_force(kind, queries.detach(), targets, table.detach(), negatives, 0.3, 0.5)
    assert value.item() == pytest.approx(expected, abs=1e-10)
    assert torch.autograd.gradcheck(lambda q, t: loss(q, targets, t), (queries, table))


def test_hand_computed() -> None:
    # Scores: target log 3 (sigmoid 3/4), negatives 0 (1/2) and -log 4 (1/5).
    table = torch.tensor([[0.0], [math.log(3)], [0.0], [-math.log(4)]])
    sampler = Fixed(torch.tensor([2, 3]))
    query, target = torch.ones(1, 1), torch.tensor([1])
    bce = BCE(sampler)(query, target, table)  # type: ignore[arg-type]
    assert bce.item() == pytest.approx(-math.log(3 / 4 * 1 / 2 * 4 / 5) / 3, abs=1e-6)
    gbce = BCE(sampler, beta=0.5)(query, target, table)  # type: ignore[arg-type]
    assert gbce.item() == pytest.approx(-math.log(math.sqrt(3 / 4) * 1 / 2 * 4 / 5) / 3, abs=1e-6)
    bpr = BPR(sampler)(query, target, table)  # type: ignore[arg-type]
    assert bpr.item() == pytest.approx(-math.log(3 / 4 * 12 / 13) / 2, abs=1e-6)


def test_only_hits_leave_bpr_nothing_and_bce_the_target() -> None:
    table, sampler = torch.tensor([[0.0], [math.log(3)]]), Fixed(torch.tensor([[1, 1]]))
    query, target = torch.ones(1, 1), torch.tensor([1])
    assert BPR(sampler)(query, target, table).item() == 0  # type: ignore[arg-type]
    assert BCE(sampler)(query, target, table).item() == pytest.approx(math.log(4 / 3))  # type: ignore[arg-type]


def test_gbce_beta() -> None:
    assert gbce_beta(0.0, 10, 101) == pytest.approx(1.0)
    assert gbce_beta(1.0, 10, 101) == pytest.approx(0.1)
    assert gbce_beta(0.75, 10, 101) == pytest.approx(0.1 * (0.75 * (1 - 10) + 10))  # 0.325
    assert gbce_beta(0.5, 500, 101) == pytest.approx(1.0)  # more negatives than items


def test_gbce_at_full_calibration_is_unbiased() -> None:
    # One item pair, t = 1, rate a: the optimum of gBCE is sigmoid(s) = p, the true probability,
    # where BCE's is p / (p + a (1 - p)). Minimise over s by a fine grid for p = 0.2, a = 0.1.
    p, rate = 0.2, 0.1
    scores = torch.linspace(-4, 4, 80_001, dtype=torch.float64)
    log = torch.nn.functional.logsigmoid

    def optimum(beta: float) -> float:
        value = p * beta * log(scores) + rate * (1 - p) * log(-scores)
        return float(torch.sigmoid(scores[value.argmax()]))

    assert optimum(gbce_beta(1.0, 10, 101)) == pytest.approx(p, abs=1e-3)
    assert optimum(gbce_beta(0.0, 10, 101)) == pytest.approx(p / (p + rate * (1 - p)), abs=1e-3)
