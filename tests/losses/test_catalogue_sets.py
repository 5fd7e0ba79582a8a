"""Training losses of sets: the chunked and the sampled ones against the same loss written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from recsys.config import LossConfig
from recsys.data.item_sets import ItemSets
from recsys.errors import ConfigError
from recsys.losses import (
    BCE,
    FullSets,
    NegativeSampler,
    SampledSets,
    SetBCE,
    SetLoss,
    Softmax,
    build_set_loss,
)
from recsys.losses.catalogue_sets import is_member
from recsys.losses.plackett_luce import plackett_luce_set
from recsys.losses.set_scores import SetScores, set_scores
from recsys.losses.sets import any_of, multi_hot_bce, multi_positive

FORMS = {"softmax": multi_positive, "mass": any_of, "plackett_luce": plackett_luce_set}
ITEMS, WIDTH = 12, 3
SETS = [[3, 1, 12], [5], [], [2, 7, 8, 9, 4], [1, 12], [6], [11, 10]]


def problem(scale: float = 1.0) -> tuple[Tensor, ItemSets, Tensor]:
    make = torch.Generator().manual_seed(3)
    queries = torch.randn(len(SETS), WIDTH, generator=make, dtype=torch.float64) * scale
    table = torch.randn(ITEMS + 1, WIDTH, generator=make, dtype=torch.float64)
    return queries.requires_grad_(), ItemSets.of_lists(SETS), table.requires_grad_()


def padded(sets: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Return `(classes 0..V-1, mask)` of sets of items 1..V."""
    longest = max(len(one) for one in sets)
    rows = [[item - 1 for item in one] + [0] * (longest - len(one)) for one in sets]
    mask = [[True] * len(one) + [False] * (longest - len(one)) for one in sets]
    return torch.tensor(rows), torch.tensor(mask)


def whole(name: str, queries: Tensor, table: Tensor, temperature: float = 1.0) -> Tensor:
    logits = queries @ table[1:].T / temperature
    return FORMS[name](set_scores(logits, *padded(SETS))).mean()


class Fixed(nn.Module):
    """A sampler that always gives the same negatives and expected counts."""

    def __init__(self, negatives: Tensor, log_count: Tensor) -> None:
        super().__init__()
        self.given = negatives, log_count

    def draw(self, tokens: int, device: torch.device) -> tuple[Tensor, Tensor]:
        return self.given


def assert_same(ours: Tensor, oracle: Tensor, queries: Tensor, table: Tensor) -> None:
    torch.testing.assert_close(ours, oracle, atol=1e-9, rtol=0)
    for grad, expected in zip(
        torch.autograd.grad(3 * ours, (queries, table)),
        torch.autograd.grad(3 * oracle, (queries, table)),
        strict=True,
    ):
        torch.testing.assert_close(grad, expected, atol=1e-8, rtol=0)


def test_packed_sets() -> None:
    sets = ItemSets.of_lists(SETS)
    assert len(sets) == 7
    assert sets.items.tolist() == [item for one in SETS for item in one]
    assert sets.rows.tolist() == [row for row, one in enumerate(SETS) for _ in one]
    assert sets.offsets.tolist() == [0, 3, 4, 4, 9, 11, 12, 14]


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("rows", [1, 2, 3, 50])
def test_any_chunk_equals_the_whole(name: str, rows: int) -> None:
    queries, sets, table = problem()
    loss = FullSets(FORMS[name], temperature=0.7, memory_mb=(rows * ITEMS * 8 + 4) / 1e6)
    assert_same(loss(queries, sets, table), whole(name, queries, table, 0.7), queries, table)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("shared", [True, False])
def test_every_item_once_is_the_whole(name: str, shared: bool) -> None:
    queries, sets, table = problem()
    negatives = torch.arange(1, ITEMS + 1)
    if not shared:
        negatives = negatives.repeat(len(SETS), 1)
    sampler = Fixed(negatives, torch.zeros(negatives.shape))
    loss = SampledSets(FORMS[name], sampler)  # type: ignore[arg-type]
    assert_same(loss(queries, sets, table), whole(name, queries, table), queries, table)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("shared", [True, False])
def test_many_negatives_tend_to_the_whole(name: str, shared: bool) -> None:
    queries, sets, table = problem()
    counts = np.arange(ITEMS + 1, dtype=np.int64) ** 2
    sampler = NegativeSampler("popularity", counts, 40_000, shared=shared, seed=1)
    exact = whole(name, queries, table).item()
    ours = SampledSets(FORMS[name], sampler)(queries, sets, table)
    assert ours.item() == pytest.approx(exact, abs=0.05)
    uncorrected = SampledSets(FORMS[name], sampler, logq=False)(queries, sets, table)
    assert uncorrected.item() > exact + 3


@pytest.mark.parametrize("name", FORMS)
def test_sets_of_one_are_the_softmax(name: str) -> None:
    queries, _, table = problem()
    targets = torch.tensor([3, 1, 12, 7, 7, 2, 5])
    sets = ItemSets.of_lists([[item] for item in targets.tolist()])
    loss, softmax = FullSets(FORMS[name]), Softmax()
    assert_same(loss(queries, sets, table), softmax(queries, targets, table), queries, table)


def test_bce_against_every_item_is_multi_hot_bce() -> None:
    queries, sets, table = problem()
    targets, mask = padded(SETS)
    for negatives in (torch.arange(1, ITEMS + 1), torch.arange(1, ITEMS + 1).repeat(7, 1)):
        each = multi_hot_bce(queries @ table[1:].T, targets, mask) / ITEMS
        loss = SetBCE(Fixed(negatives, negatives))  # type: ignore[arg-type]
        assert_same(loss(queries, sets, table), each.mean(), queries, table)


def test_bce_of_one_member_is_bce() -> None:
    queries, _, table = problem()
    targets = torch.tensor([3, 1, 12, 7, 7, 2, 5])
    sets = ItemSets.of_lists([[item] for item in targets.tolist()])
    counts = np.ones(ITEMS + 1, dtype=np.int64)
    losses = [
        loss(NegativeSampler("uniform", counts, 5, shared=False, seed=2), temperature=0.5)
        for loss in (SetBCE, BCE)
    ]
    ours, single = losses[0](queries, sets, table), losses[1](queries, targets, table)  # type: ignore[operator]
    assert_same(ours, single, queries, table)


def test_members_among_the_negatives_are_found() -> None:
    sets = ItemSets.of_lists(SETS)
    make = torch.Generator().manual_seed(0)
    for shape in ((9,), (len(SETS), 9)):
        negatives = torch.randint(1, ITEMS + 1, shape, generator=make)
        found = is_member(negatives, sets, ITEMS + 1)
        each = negatives.expand(len(SETS), 9).tolist()
        expected = [[item in one for item in row] for one, row in zip(SETS, each, strict=True)]
        assert found.tolist() == expected
    nothing = ItemSets.of_lists([[], []])
    assert not is_member(torch.ones(2, 3, dtype=torch.int64), nothing, ITEMS + 1).any()


def losses() -> list[SetLoss]:
    counts = np.ones(ITEMS + 1, dtype=np.int64)
    sampler = NegativeSampler("uniform", counts, 5, shared=True)
    made: list[SetLoss] = [SetBCE(sampler)]
    for form in FORMS.values():
        made += [FullSets(form), SampledSets(form, sampler)]
    return made


@pytest.mark.parametrize("loss", losses())
def test_no_tokens_and_empty_sets_cost_nothing(loss: SetLoss) -> None:
    for count in (0, 2):
        queries = torch.ones(count, WIDTH, requires_grad=True)
        table = torch.ones(ITEMS + 1, WIDTH, requires_grad=True)
        value = loss(queries, ItemSets.of_lists([[]] * count), table)
        value.backward()
        assert value.item() == 0
        assert queries.grad is not None and (queries.grad == 0).all()
        assert table.grad is not None and (table.grad == 0).all()


@pytest.mark.parametrize("loss", losses())
def test_pad_never_competes_and_gets_no_gradient(loss: SetLoss) -> None:
    queries, sets, table = problem()
    loss.reseed(0)
    value = loss(queries, sets, table)
    value.backward()
    assert table.grad is not None and (table.grad[0] == 0).all()
    moved = table.detach().clone()
    moved[0] = 1e6
    loss.reseed(0)
    assert loss(queries, sets, moved).item() == value.item()


@pytest.mark.parametrize("name", FORMS)
def test_a_set_of_the_whole_catalogue_and_far_scores_give_numbers(name: str) -> None:
    queries = torch.tensor([[1e3], [-1e3], [5.0]], requires_grad=True)
    table = torch.tensor([[0.0], [1], [2], [-3]], requires_grad=True)
    sets = ItemSets.of_lists([[1, 2, 3], [1, 2], [1, 2, 3]])
    loss = FullSets(FORMS[name])(queries, sets, table)
    loss.backward()
    assert loss.isfinite()
    assert queries.grad is not None and queries.grad.isfinite().all()
    assert table.grad is not None and table.grad.isfinite().all()


def test_without_gradients_none_are_made() -> None:
    queries, sets, table = problem()
    with torch.no_grad():
        assert not FullSets(any_of)(queries, sets, table).requires_grad
    FullSets(any_of)(queries, sets, table.detach()).backward()
    assert table.grad is None and queries.grad is not None


def test_autocast_keeps_float32_scores() -> None:
    queries, sets, table = problem()
    single, items = queries.detach().float(), table.detach().float()
    for loss in losses():
        loss.reseed(0)
        plain = loss(single, sets, items)
        loss.reseed(0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert loss(single, sets, items).item() == plain.item()


def test_build_set_loss() -> None:
    counts = np.ones(101, dtype=np.int64)

    def built(**settings: object) -> SetLoss:
        return build_set_loss(LossConfig(**settings), counts, 10)  # type: ignore[arg-type]

    for kind, form in (
        ("auto", multi_positive),
        ("set_softmax", multi_positive),
        ("set_mass", any_of),
        ("set_plackett_luce", plackett_luce_set),
    ):
        full = built(kind=kind, temperature=0.5, memory_mb=7)
        assert isinstance(full, FullSets)
        assert (full.form, full.temperature, full.memory_mb) == (form, 0.5, 7)
        sampled = built(kind=kind, against="sampled", negatives=9, logq=False, share="batch")
        assert isinstance(sampled, SampledSets)
        assert (sampled.form, sampled.logq, sampled.sampler.count) == (form, False, 9)
        assert sampled.sampler.shared
        assert isinstance(built(kind=kind, memory_mb=1e-3), SampledSets)
        assert isinstance(built(kind=kind, memory_mb=1e-3, against="all"), FullSets)
    bce = built(kind="set_bce", sampler="popularity")
    assert isinstance(bce, SetBCE) and bce.sampler.name == "popularity"
    with pytest.raises(ConfigError, match=r"label_smoothing is 0.1.*this loss is set_mass"):
        built(kind="set_mass", label_smoothing=0.1)


def test_the_sampler_of_the_batch_has_no_draws_of_its_own() -> None:
    sampler = NegativeSampler("in_batch", np.ones(4, dtype=np.int64), 3, shared=True)
    with pytest.raises(ValueError, match="in_batch"):
        sampler.draw(2, torch.device("cpu"))


def test_a_form_is_told_each_set_s_own_rest() -> None:
    """What a form is given in chunks is what it is given of the whole logits."""
    queries, sets, table = problem()
    seen: list[SetScores] = []

    def spy(scores: SetScores) -> Tensor:
        seen.append(scores)
        return any_of(scores)

    FullSets(spy, memory_mb=(2 * ITEMS * 8 + 4) / 1e6)(queries, sets, table)
    expected = set_scores(queries @ table[1:].T, *padded(SETS))
    assert len(seen) == 4
    torch.testing.assert_close(torch.cat([one.scores for one in seen]), expected.scores)
    torch.testing.assert_close(torch.cat([one.log_rest for one in seen]), expected.log_rest)
