"""Losses of unordered targets by hand, by their inequalities, by their gradients."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

from recsys.losses.plackett_luce import plackett_luce_set
from recsys.losses.set_scores import SetScores, repeated, set_scores
from recsys.losses.sets import any_of, multi_hot_bce, multi_positive

FORMS = {"multi_positive": multi_positive, "any_of": any_of, "plackett_luce": plackett_luce_set}
TARGETS = torch.tensor([[0, 3, 2], [4, 4, 0], [1, 0, 0], [2, 2, 2]])
MASK = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0]]).bool()
"""Sets {0, 3, 2}, {4} named twice, {1} and nothing, over five classes."""


def logits(rows: int = 4, classes: int = 5, seed: int = 0) -> Tensor:
    make = torch.Generator().manual_seed(seed)
    return torch.randn(rows, classes, generator=make, dtype=torch.float64).requires_grad_()


def of_padded(name: str, z: Tensor, targets: Tensor = TARGETS, mask: Tensor = MASK) -> Tensor:
    return FORMS[name](set_scores(z, targets, mask))


def test_members_and_the_rest() -> None:
    z = logits()
    sets = set_scores(z, TARGETS, MASK)
    assert sets.rows.tolist() == [0, 0, 0, 1, 2]
    torch.testing.assert_close(
        sets.scores, torch.stack([z[0, 0], z[0, 3], z[0, 2], z[1, 4], z[2, 1]])
    )
    torch.testing.assert_close(sets.log_rest[0], z[0, [1, 4]].logsumexp(0))
    torch.testing.assert_close(sets.log_rest[3], z[3].logsumexp(0))
    assert sets.sizes().tolist() == [3, 1, 1, 0]
    assert repeated(TARGETS, MASK).tolist() == [
        [False] * 3,
        [False, True, False],
        *[[False] * 3] * 2,
    ]


def test_bce_by_hand() -> None:
    z = logits()
    losses = multi_hot_bce(z, TARGETS, MASK)
    p = z[0].sigmoid()
    assert losses[0].item() == pytest.approx(
        -(p[0].log() + p[2].log() + p[3].log() + (1 - p[1]).log() + (1 - p[4]).log()).item()
    )
    (grad,) = torch.autograd.grad(losses.sum(), z)
    wanted = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 0, 1], [0, 1, 0, 0, 0]])
    torch.testing.assert_close(grad[:3], z[:3].sigmoid().detach() - wanted)
    assert losses[3].item() == 0 and (grad[3] == 0).all()


def test_multi_positive_by_hand() -> None:
    z = logits()
    losses = of_padded("multi_positive", z)
    log_p = z.log_softmax(1)
    assert losses[0].item() == pytest.approx(-log_p[0, [0, 2, 3]].mean().item())
    (grad,) = torch.autograd.grad(losses.sum(), z)
    share = torch.tensor([1, 0, 1, 1, 0]).double() / 3
    torch.testing.assert_close(grad[0], z[0].softmax(0).detach() - share, atol=1e-12, rtol=0)


def test_multi_positive_is_least_at_log_k() -> None:
    z = torch.tensor([[40.0, -40, 40, 40, -40]]).double()
    assert of_padded("multi_positive", z, TARGETS[:1], MASK[:1]).item() == pytest.approx(
        math.log(3)
    )


def test_any_of_by_hand() -> None:
    z = logits()
    losses = of_padded("any_of", z)
    assert losses[0].item() == pytest.approx(-z[0].softmax(0)[[0, 2, 3]].sum().log().item())


def test_plackett_luce_by_hand() -> None:
    """w = 5, 3, 1, 1 and S the first two: 0.3 + 3/14 = 18/35, by the two orders and by the integral."""
    z = torch.tensor([[5.0, 3, 1, 1]]).double().log()
    loss = of_padded("plackett_luce", z, torch.tensor([[0, 1]]), torch.ones(1, 2).bool())
    assert math.exp(-loss.item()) == pytest.approx(18 / 35, rel=1e-11)


@pytest.mark.parametrize("name", FORMS)
def test_one_member_is_cross_entropy(name: str) -> None:
    z = logits(7, 9)
    targets = torch.arange(7)
    ours = of_padded(name, z, targets[:, None], torch.ones(7, 1).bool())
    expected = cross_entropy(z, targets, reduction="none")
    torch.testing.assert_close(ours, expected, atol=1e-10, rtol=0)
    both = (torch.autograd.grad(loss.sum(), z, retain_graph=True)[0] for loss in (ours, expected))
    torch.testing.assert_close(*both, atol=1e-10, rtol=0)


@given(st.integers(0, 999), st.integers(1, 5), st.sampled_from([0.1, 1.0, 5.0]))
def test_inequalities(seed: int, members: int, scale: float) -> None:
    z = logits(3, 7, seed).detach() * scale
    targets = torch.randperm(7, generator=torch.Generator().manual_seed(seed))[:members].expand(
        3, -1
    )
    mask = torch.ones(3, members).bool()
    positive, mass, order = (of_padded(name, z, targets, mask) for name in FORMS)
    assert (mass >= 0).all()
    assert (mass <= positive - math.log(members) + 1e-9).all()
    # The first draw of S is in S, and then more must follow.
    assert (order >= mass - 1e-9).all()


@pytest.mark.parametrize("name", FORMS)
def test_gradients(name: str) -> None:
    assert torch.autograd.gradcheck(lambda z: of_padded(name, z), logits(), atol=1e-7)
    assert torch.autograd.gradcheck(lambda z: multi_hot_bce(z, TARGETS, MASK), logits())


@pytest.mark.parametrize("name", FORMS)
def test_an_empty_set_costs_nothing_and_moves_nothing(name: str) -> None:
    z = logits()
    losses = of_padded(name, z)
    (grad,) = torch.autograd.grad(losses.sum(), z)
    assert losses[3].item() == 0 and (grad[3] == 0).all()
    assert grad.isfinite().all()
    nothing = of_padded(name, z, TARGETS[:, :0], MASK[:, :0])
    assert nothing.tolist() == [0] * 4


@pytest.mark.parametrize("name", FORMS)
def test_padding_and_repeats_change_nothing(name: str) -> None:
    z = logits()
    plain = of_padded(name, z[:1], torch.tensor([[0, 3, 2]]), torch.ones(1, 3).bool())
    targets = torch.tensor([[4, 2, 0, 0, 3, 2, 1]])
    mask = torch.tensor([[0, 1, 1, 1, 1, 1, 0]]).bool()
    torch.testing.assert_close(of_padded(name, z[:1], targets, mask), plain, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ["any_of", "plackett_luce"])
def test_the_whole_catalogue_is_certain(name: str) -> None:
    z = logits(1, 4)
    loss = of_padded(name, z, torch.arange(4)[None], torch.ones(1, 4).bool())
    (grad,) = torch.autograd.grad(loss.sum(), z)
    assert loss.item() == pytest.approx(0, abs=1e-9)
    assert grad.abs().max() < 1e-9
    whole = of_padded("multi_positive", z, torch.arange(4)[None], torch.ones(1, 4).bool())
    assert whole.item() == pytest.approx(-z.log_softmax(1).mean().item())


@pytest.mark.parametrize("name", FORMS)
def test_far_scores_give_numbers(name: str) -> None:
    z = torch.tensor([[1e4, -1e4, 0, 3e3, -5]], requires_grad=True)
    for members in ([0], [1], [0, 1], [1, 4, 3]):
        loss = of_padded(name, z, torch.tensor([members]), torch.ones(1, len(members)).bool())
        (grad,) = torch.autograd.grad(loss.sum(), z)
        assert loss.isfinite().all() and grad.isfinite().all()


def test_a_bare_set_without_classes_around_it() -> None:
    sets = SetScores(
        torch.tensor([1.0, 2.0]), torch.tensor([1, 1]), torch.tensor([0.5, -torch.inf])
    )
    for form in FORMS.values():
        assert form(sets).isfinite().all()
