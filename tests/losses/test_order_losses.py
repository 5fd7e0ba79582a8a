"""Losses of decoders that write sets: against all orders, written out by hand."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from recsys.losses.order import every_order, every_order_of_pooled, in_order, oracle_policy
from recsys.losses.order_search import (
    OrderSearch,
    best_order,
    corrected_orders,
    hard_em,
    sampled_order,
    sampled_orders,
    uniform_orders,
)

CLASSES, EXAMPLES = 6, 4
TARGETS = torch.tensor([[2, 0, 5], [3, 1, 3], [4, 0, 0], [1, 1, 1]])
MASK = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 0, 0], [0, 0, 0]]).bool()
"""Three targets, three of which two are the same, one, none."""


class Decoder(torch.nn.Module):
    """A decoder whose next class depends on the example and on all that is written, in its order."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        make = torch.Generator().manual_seed(seed)
        self.start = torch.nn.Parameter(
            torch.randn(EXAMPLES, CLASSES, generator=make, dtype=torch.float64)
        )
        self.after = torch.nn.Parameter(
            torch.randn(CLASSES, CLASSES, generator=make, dtype=torch.float64)
        )
        self.calls = 0

    def forward(self, prefix: Tensor, rows: Tensor) -> Tensor:
        self.calls += 1
        states = [self.start[rows]]
        for t in range(prefix.shape[1]):
            states.append(0.7 * states[-1] + self.after[prefix[:, t]])
        return torch.stack(states, 1).log_softmax(2)

    def pooled(self, written: Tensor, rows: Tensor) -> Tensor:
        """The same without a memory of the order; `written` speaks of TARGETS."""
        said = (written.double()[:, :, None] * self.after[TARGETS[rows]]).sum(1)
        return (self.start[rows] + said).log_softmax(1)


def log_p(decoder: Decoder, row: int, sequence: tuple[int, ...]) -> Tensor:
    """Return log p of one sequence, step by step."""
    total = torch.zeros((), dtype=torch.float64)
    for t, item in enumerate(sequence):
        prefix = torch.tensor([sequence[:t]], dtype=torch.int64).view(1, t)
        total = total + decoder(prefix, torch.tensor([row]))[0, -1, item]
    return total


def distinct(row: int) -> list[tuple[int, ...]]:
    return sorted(set(permutations(TARGETS[row][MASK[row]].tolist())))


def marginal(decoder: Decoder, row: int) -> Tensor:
    return torch.stack([log_p(decoder, row, one) for one in distinct(row)]).logsumexp(0)


def gradients(loss: Tensor, decoder: Decoder) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, list(decoder.parameters()), retain_graph=True)


def test_in_order_is_one_term() -> None:
    decoder = Decoder()
    losses = in_order(decoder, TARGETS, MASK)
    for row, sequence in enumerate([(2, 0, 5), (3, 1, 3), (4,), ()]):
        torch.testing.assert_close(losses[row], -log_p(decoder, row, sequence))


def test_every_order_by_hand() -> None:
    decoder = Decoder()
    assert [len(distinct(row)) for row in range(4)] == [6, 3, 1, 1]
    losses = every_order(decoder, TARGETS, MASK)
    for row in range(3):
        torch.testing.assert_close(losses[row], -marginal(decoder, row))
    assert losses[3].item() == 0
    assert all(grad.isfinite().all() for grad in gradients(losses.sum(), decoder))


def test_padding_may_stand_anywhere() -> None:
    decoder = Decoder()
    targets = torch.tensor([[9, 2, 0, 9, 5], [3, 9, 1, 3, 9], [9, 9, 9, 4, 9], [9] * 5]) % CLASSES
    mask = torch.tensor([[0, 1, 1, 0, 1], [1, 0, 1, 1, 0], [0, 0, 0, 1, 0], [0] * 5]).bool()
    for loss in (in_order, every_order, oracle_policy):
        torch.testing.assert_close(loss(decoder, targets, mask), loss(decoder, TARGETS, MASK))
    torch.testing.assert_close(
        hard_em(decoder, targets, mask, 6), hard_em(decoder, TARGETS, MASK, 6)
    )


def test_pooled_states_by_all_orders() -> None:
    decoder = Decoder()
    losses = every_order_of_pooled(decoder.pooled, TARGETS, MASK)
    for row in range(4):
        terms = []
        places = [j for j in range(3) if MASK[row, j]]
        for order in permutations(places):
            total = torch.zeros((), dtype=torch.float64)
            for t, place in enumerate(order):
                written = torch.zeros(1, 3).bool()
                written[0, list(order[:t])] = True
                total = total + decoder.pooled(written, torch.tensor([row]))[0, TARGETS[row, place]]
            terms.append(total)
        copies = math.factorial(len(places)) / len(distinct(row))
        expected = torch.stack(terms).logsumexp(0) - math.log(copies)
        torch.testing.assert_close(losses[row], -expected, atol=1e-12, rtol=1e-12)


def test_oracle_policy_by_hand() -> None:
    decoder = Decoder()
    losses = oracle_policy(decoder, TARGETS, MASK)
    for row, sequence in enumerate([(2, 0, 5), (3, 1, 3), (4,), ()]):
        expected = torch.zeros((), dtype=torch.float64)
        for t in range(len(sequence)):
            wanted = sorted(set(sequence[t:]))
            prefix = torch.tensor([sequence[:t]], dtype=torch.int64).view(1, t)
            log_probability = decoder(prefix, torch.tensor([row]))[0, -1, wanted]
            share = 1 / len(wanted)
            expected = expected + (share * (math.log(share) - log_probability)).sum()
        torch.testing.assert_close(losses[row], expected)
        assert losses[row] >= -1e-12


def test_oracle_policy_of_one_target_is_cross_entropy_and_its_gradient_is_p_less_uniform() -> None:
    logits = torch.randn(2, 4, CLASSES, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[2, 4, 1], [3, 0, 0]])
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]]).bool()
    losses = oracle_policy(lambda prefix, rows: logits[rows].log_softmax(2), targets, mask)
    torch.testing.assert_close(losses[1], cross_entropy(logits[1, 0], torch.tensor(3)))
    (grad,) = torch.autograd.grad(losses[0], logits)
    missing = [[2, 4, 1], [4, 1], [1]]
    for t, left in enumerate(missing):
        uniform = torch.zeros(CLASSES, dtype=torch.float64)
        uniform[left] = 1 / len(left)
        expected = logits[0, t].softmax(0).detach() - uniform
        torch.testing.assert_close(grad[0, t], expected, atol=1e-12, rtol=0)
    assert (grad[0, 3] == 0).all()


def test_the_stop_symbol_follows_the_last_element() -> None:
    decoder = Decoder()
    plain = oracle_policy(decoder, TARGETS, MASK)
    stopped = oracle_policy(decoder, TARGETS, MASK, stop=5)
    for row, sequence in enumerate([(2, 0, 5), (3, 1, 3), (4,), ()]):
        prefix = torch.tensor([sequence], dtype=torch.int64).view(1, len(sequence))
        end = decoder(prefix, torch.tensor([row]))[0, -1, 5]
        torch.testing.assert_close(stopped[row] - plain[row], -end)


def test_too_many_orders_are_refused() -> None:
    with pytest.raises(ValueError, match=r"8 targets have 40,320 orders.*7"):
        every_order(Decoder(), torch.zeros(1, 8, dtype=torch.int64), torch.ones(1, 8).bool())


def test_a_wide_beam_finds_the_likeliest_order() -> None:
    decoder = Decoder()
    losses = hard_em(decoder, TARGETS, MASK, width=6)
    written, mask = best_order(decoder, TARGETS, MASK, width=6)
    for row in range(4):
        best = max(distinct(row), key=lambda one, row=row: log_p(decoder, row, one).item())
        assert tuple(written[row][mask[row]].tolist()) == best
        torch.testing.assert_close(losses[row], -log_p(decoder, row, best))
    narrow = hard_em(decoder, TARGETS, MASK, width=1)
    assert (narrow >= losses - 1e-12).all()
    make = torch.Generator().manual_seed(0)
    for _ in range(20):
        assert (losses <= sampled_orders(decoder, TARGETS, MASK, 1, make) + 1e-12).all()
        assert (losses <= uniform_orders(decoder, TARGETS, MASK, 1, make) + 1e-12).all()
    assert (every_order(decoder, TARGETS, MASK) <= losses + 1e-12).all()


def local(decoder: Decoder, row: int, sequence: tuple[int, ...]) -> tuple[float, float]:
    """Return `(q, w)` of one order: the chance to draw it and its weight, by the definition."""
    q = w = 1.0
    for t, item in enumerate(sequence):
        prefix = torch.tensor([sequence[:t]], dtype=torch.int64).view(1, t)
        p = decoder(prefix, torch.tensor([row]))[0, -1].exp()
        left = p[sorted(set(sequence[t:]))].sum().item()
        q, w = q * p[item].item() / left, w * left
    return q, w


def test_the_expected_weight_is_the_marginal() -> None:
    decoder = Decoder()
    for row in range(4):
        drawn = [local(decoder, row, one) for one in distinct(row)]
        assert sum(q for q, _ in drawn) == pytest.approx(1)
        mean = sum(q * w for q, w in drawn)
        assert mean == pytest.approx(marginal(decoder, row).exp().item(), rel=1e-12)
        assert sum(q * math.log(w) for q, w in drawn) <= math.log(mean) + 1e-12
    # And q is not the posterior, which is why the weight is needed.
    posterior = [log_p(decoder, 0, one) - marginal(decoder, 0) for one in distinct(0)]
    q = [local(decoder, 0, one)[0] for one in distinct(0)]
    assert max(abs(a.exp().item() - b) for a, b in zip(posterior, q, strict=True)) > 0.02


def test_orders_are_drawn_by_q_and_weighted_by_w() -> None:
    decoder, count = Decoder(), 20_000
    drawn = sampled_order(decoder, TARGETS, MASK, count, torch.Generator().manual_seed(1))
    for row in range(4):
        own = drawn.rows == row
        sequences = [tuple(s[: MASK[row].sum()]) for s in drawn.written[own].tolist()]
        for one in distinct(row):
            q, _ = local(decoder, row, one)
            share = sequences.count(one) / count
            assert share == pytest.approx(q, abs=5 * math.sqrt(q * (1 - q) / count) + 1e-9)
        first = sequences[0]
        q, w = local(decoder, row, first)
        assert drawn.log_q[own][0].exp().item() == pytest.approx(q)
        assert (log_p(decoder, row, first) - drawn.log_q[own][0]).exp().item() == pytest.approx(w)


def test_many_corrected_samples_are_the_marginal_with_its_gradient() -> None:
    decoder = Decoder()
    estimate = corrected_orders(decoder, TARGETS, MASK, 20_000, torch.Generator().manual_seed(2))
    exact = every_order(decoder, TARGETS, MASK)
    torch.testing.assert_close(estimate, exact, atol=0.02, rtol=0)
    for ours, expected in zip(
        gradients(estimate.sum(), decoder), gradients(exact.sum(), decoder), strict=True
    ):
        torch.testing.assert_close(ours, expected, atol=0.03, rtol=0)


def test_uniform_orders_teach_all_alike() -> None:
    decoder = Decoder()
    losses = uniform_orders(decoder, TARGETS, MASK, 20_000, torch.Generator().manual_seed(3))
    for row in range(4):
        mean = torch.stack([-log_p(decoder, row, one) for one in distinct(row)]).mean()
        assert losses[row].item() == pytest.approx(mean.item(), abs=0.03)


def test_the_search_starts_uniformly_and_then_follows_its_method() -> None:
    decoder = Decoder()
    for method, loss in {
        "hard": lambda: hard_em(decoder, TARGETS, MASK, 8),
        "sampled": lambda: sampled_orders(decoder, TARGETS, MASK, 2, seeded()),
        "corrected": lambda: corrected_orders(decoder, TARGETS, MASK, 2, seeded()),
        "uniform": lambda: uniform_orders(decoder, TARGETS, MASK, 2, seeded()),
    }.items():
        search = OrderSearch(method=method, warm_up=10, samples=2)  # type: ignore[arg-type]
        before = search.loss(decoder, TARGETS, MASK, 9, seeded())
        torch.testing.assert_close(before, uniform_orders(decoder, TARGETS, MASK, 2, seeded()))
        torch.testing.assert_close(search.loss(decoder, TARGETS, MASK, 10, seeded()), loss())


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(4)


def test_one_sample_costs_k_calls_and_one() -> None:
    decoder = Decoder()
    sampled_orders(decoder, TARGETS, MASK, 1, seeded())
    assert decoder.calls == 3 + 1


def test_no_targets_cost_nothing() -> None:
    decoder = Decoder()
    targets, mask = TARGETS[:, :0], MASK[:, :0]
    for losses in (
        in_order(decoder, targets, mask),
        every_order(decoder, targets, mask),
        every_order_of_pooled(decoder.pooled, TARGETS, MASK & ~MASK),
        oracle_policy(decoder, targets, mask),
        hard_em(decoder, targets, mask, 2),
        sampled_orders(decoder, targets, mask, 2),
        corrected_orders(decoder, targets, mask, 2),
        uniform_orders(decoder, targets, mask, 2),
    ):
        assert losses.tolist() == [0] * 4
