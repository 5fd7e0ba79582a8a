"""Losses between slots and a set: the worked example, all orders, inequalities, padding."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from recsys.losses.matching import (
    assignment,
    chamfer,
    match,
    permanent,
    permutation_invariant,
    sinkhorn,
    slot_cost,
    square_cost,
)

P = torch.tensor([[0.6, 0.3, 0.1], [0.5, 0.2, 0.3], [0.2, 0.3, 0.4]], dtype=torch.float64)
EXAMPLE = -P.log()[None]
ALL = torch.ones(1, 3).bool()


def made(seed: int, slots: int, targets: int, rows: int = 2) -> Tensor:
    make = torch.Generator().manual_seed(seed)
    cost = -torch.rand(rows, slots, targets, generator=make, dtype=torch.float64).log()
    return cost.requires_grad_()


def order_costs(cost: Tensor) -> Tensor:
    """Return the cost of every order of a square [K, K], [K!]."""
    count = len(cost)
    return torch.stack(
        [cost[torch.arange(count), list(o)].sum() for o in permutations(range(count))]
    )


def test_the_worked_example() -> None:
    assert assignment(EXAMPLE, ALL).item() == pytest.approx(2.813411, abs=1e-6)
    assert match(EXAMPLE).tolist() == [[1, 0, 2]]
    assert permutation_invariant(EXAMPLE, ALL).item() == pytest.approx(2.813411, abs=1e-6)
    assert permanent(EXAMPLE, ALL).item() == pytest.approx(3.406210, abs=1e-6)
    assert chamfer(EXAMPLE, ALL).item() == pytest.approx(2.631089, abs=1e-6)
    assert sinkhorn(EXAMPLE, ALL, epsilon=0.1).item() == pytest.approx(2.869408, abs=1e-6)
    assert sinkhorn(EXAMPLE, ALL, epsilon=1).item() == pytest.approx(3.253511, abs=1e-6)
    assert order_costs(EXAMPLE[0]).mean().item() == pytest.approx(3.751214, abs=1e-6)
    assert EXAMPLE.sum().item() / 3 == pytest.approx(3.751214, abs=1e-6)


@given(st.integers(0, 10_000), st.integers(1, 5))
def test_every_loss_against_all_orders(seed: int, count: int) -> None:
    cost = made(seed, count, count).detach()
    mask = torch.ones(2, count).bool()
    orders = torch.stack([order_costs(one) for one in cost])  # [2, K!]
    best = orders.amin(1)
    torch.testing.assert_close(assignment(cost, mask), best)
    if count <= 4:
        torch.testing.assert_close(permutation_invariant(cost, mask), best)
    torch.testing.assert_close(permanent(cost, mask), -(-orders).exp().mean(1).log())
    mean = cost.sum((1, 2)) / count
    torch.testing.assert_close(sinkhorn(cost, mask, epsilon=1e8), mean, atol=1e-5, rtol=0)
    soft = sinkhorn(cost, mask, epsilon=0.5, iterations=300)
    room = 1e-5
    assert (chamfer(cost, mask) <= best + room).all()
    assert (best <= soft + room).all() and (soft <= cost.sum((1, 2)) / count + room).all()
    assert (best <= permanent(cost, mask) + room).all()
    assert (permanent(cost, mask) <= orders.mean(1) + room).all()
    assert (-(-orders).exp().sum(1).log() <= best + room).all()


def test_a_small_epsilon_is_the_assignment() -> None:
    costs = [sinkhorn(EXAMPLE, ALL, epsilon=e, iterations=3000).item() for e in (0.1, 0.02, 0.005)]
    best = assignment(EXAMPLE, ALL).item()
    assert costs[0] > costs[1] > costs[2] > best
    assert costs[2] == pytest.approx(best, abs=2e-4)


def test_gradients() -> None:
    cost = made(1, 3, 3)
    mask = torch.ones(2, 3).bool()
    for loss in (assignment, permutation_invariant, sinkhorn, permanent, chamfer):
        assert torch.autograd.gradcheck(lambda c, loss=loss: loss(c, mask), (cost,)), loss.__name__
    (grad,) = torch.autograd.grad(assignment(cost, mask).sum(), cost)
    assert set(grad.unique().tolist()) == {0.0, 1.0}  # the assignment is a constant
    assert grad.sum((1, 2)).tolist() == [3, 3]


def test_padded_targets_cost_nothing() -> None:
    cost = made(2, 3, 5)
    mask = torch.tensor([[0, 1, 0, 1, 1], [0, 0, 0, 0, 0]]).bool()
    real = cost[:1, :, [1, 3, 4]]
    for loss in (assignment, permutation_invariant, sinkhorn, permanent, chamfer):
        losses = loss(cost, mask)
        torch.testing.assert_close(losses[0], loss(real, ALL)[0])
        assert losses[1].item() == pytest.approx(0, abs=1e-12), loss.__name__
        (grad,) = torch.autograd.grad(losses.sum(), cost)
        assert grad.isfinite().all()
        assert (grad[0, :, [0, 2]] == 0).all() and (grad[1] == 0).all()


def test_no_target_columns_at_all() -> None:
    cost, mask = torch.zeros(2, 3, 0), torch.zeros(2, 0).bool()
    for loss in (assignment, permutation_invariant, sinkhorn, permanent, chamfer):
        assert loss(cost, mask).tolist() == [0, 0]
    assert assignment(torch.zeros(0, 3, 2), torch.zeros(0, 2).bool()).shape == (0,)


@given(st.integers(0, 10_000), st.integers(0, 3))
def test_spare_slots_say_no_object(seed: int, targets: int) -> None:
    cost = made(seed, 4, max(1, targets), rows=1).detach()
    empty = -torch.rand(1, 4, generator=torch.Generator().manual_seed(seed)).double().log()
    mask = (torch.arange(max(1, targets)) < targets)[None]
    best = min(
        sum(cost[0, i, j].item() for j, i in enumerate(chosen))
        + sum(empty[0, i].item() for i in range(4) if i not in chosen)
        for chosen in permutations(range(4), targets)
    )
    assert assignment(cost, mask, empty).item() == pytest.approx(best)
    assert permutation_invariant(cost, mask, empty).item() == pytest.approx(best)
    assert sinkhorn(cost, mask, empty, epsilon=0.3, iterations=300).item() >= best - 1e-6


def test_targets_that_stand_twice_are_two() -> None:
    cost = slot_cost(torch.tensor([[[2.0, 0, 0], [0, 1, 0]]]), torch.tensor([[0, 0]]))
    both = torch.ones(1, 2).bool()
    torch.testing.assert_close(assignment(cost, both), cost[0, :, 0].sum()[None])


def test_more_targets_than_slots_are_refused() -> None:
    with pytest.raises(ValueError, match="3 targets but there are only 2 slots"):
        square_cost(torch.zeros(1, 2, 3), ALL)
    with pytest.raises(ValueError, match="5 slots have 120 orders"):
        permutation_invariant(torch.zeros(1, 5, 2), ALL[:, :2])


def ryser(p: Tensor) -> float:
    count = len(p)
    total = 0.0
    for subset in range(1, 2**count):
        columns = [j for j in range(count) if subset >> j & 1]
        total += (-1) ** len(columns) * p[:, columns].sum(1).prod().item()
    return (-1) ** count * total


def test_permanent_against_ryser_and_where_ryser_fails() -> None:
    assert ryser(P) == pytest.approx(0.199)
    p = made(3, 6, 6, rows=1).neg().exp().detach()
    assert (-permanent(-p.log(), torch.ones(1, 6).bool())).exp().item() * 720 == pytest.approx(
        ryser(p[0]), rel=1e-9
    )
    # All slots agree on the first target: perm = 6! (1e-4)^5.
    collapsed = torch.full((6, 6), 1e-4, dtype=torch.float64)
    collapsed[:, 0] = 1
    exact = 720 * 1e-20
    assert abs(ryser(collapsed) / exact - 1) > 1
    ours = permanent(-collapsed.log()[None], torch.ones(1, 6).bool())
    assert torch.exp(-ours).item() * 720 == pytest.approx(exact, rel=1e-10)


def test_slot_cost_by_hand() -> None:
    logits = torch.tensor([[[1.0, 2.0, 0.5], [0.0, 0.0, 0.0]]])
    cost = slot_cost(logits, torch.tensor([[2, 1]]))
    expected = -logits.log_softmax(2)[0][:, [2, 1]]
    torch.testing.assert_close(cost[0], expected)
