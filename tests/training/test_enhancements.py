"""UniRec's enhancements: whom they concern, what they compare, and what they leave alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from recsys.config import UniRecConfig
from recsys.data.batches import batch_from_lists
from recsys.data.statistics import TrainingStatistics
from recsys.errors import ArtifactError
from recsys.models.enhancement import ItemEnhancer, aggregate
from recsys.models.unirec import UniRec
from recsys.training.enhancements import (
    ItemEnhancement,
    SequenceEnhancement,
    irregular_parts,
    neighbours_of,
    rare_in_parts,
    rare_items,
    rarity,
    regular_users,
)
from recsys.training.schedules import frequent_weight, rare_weight, sequence_weight

HOUR, ITEMS = 3600, 10


def config(**changes: object) -> UniRecConfig:
    settings = {"width": 4, "heads": 2, "max_length": 8, "dropout": 0.0, "blocks": 1}
    settings |= {"attention_noise": 0.0} | changes
    return UniRecConfig(**settings)  # type: ignore[arg-type]


def statistics(users: list[float], items: list[float] | None = None) -> TrainingStatistics:
    variance = np.arange(ITEMS + 1.0) if items is None else np.array([np.nan, *items])
    near = (np.arange(ITEMS + 1)[:, None] + np.arange(1, 6)) % ITEMS + 1
    counts = np.array([0, *[1] * ITEMS])
    return TrainingStatistics(np.array(users), variance, counts, near.astype(np.int32))


def test_regular_users_by_hand() -> None:
    """Variances 0, 4.32e6, 100, 9e6, 5e5 of users 1 to 5: 40 % are two."""
    found = statistics([0, 4.32e6, 100, 9e6, 5e5])
    assert (regular_users(config(), found).nonzero()[0] + 1).tolist() == [1, 3]
    published = regular_users(config(mode="reference"), found)
    assert (published.nonzero()[0] + 1).tolist() == [2, 4]


def test_frequent_items_and_rarity_by_hand() -> None:
    found = statistics([0.0])  # variances 1 to 10
    assert rare_items(config(), found).nonzero()[0].tolist() == [4, 5, 6, 7, 8, 9, 10]
    np.testing.assert_allclose(rarity(config(), found)[1:], 100 * np.arange(10) / 9)
    skewed = statistics([0.0], [1, 2, 3, 4, 5, 6, 7, 8, 9, 1000])
    np.testing.assert_allclose(rarity(config(), skewed)[1:], 100 * np.arange(10) / 9)
    published = rarity(config(mode="reference"), skewed)[1:]
    np.testing.assert_allclose(published[:2], [0, 100 / 999])
    kept = rare_in_parts(config(mode="reference"), skewed)  # of rarity 1 and more
    assert kept.nonzero()[0].tolist() == [10]
    # Where counts say what is frequent they say what is rare as well; item 10 was seen most often.
    counted = replace(skewed, item_counts=np.arange(11))
    for mode in ("corrected", "reference"):
        by_count = rarity(config(mode=mode, frequency_by="count"), counted)[1:]
        np.testing.assert_allclose(by_count, 100 * np.arange(10)[::-1] / 9)


def test_the_irregular_part_by_hand() -> None:
    """[a, b, c, d, e, f] with rare a and c keeps a, c, e, f, with the times of these."""
    rare = np.isin(np.arange(12), [1, 3])
    histories = [[1, 2, 3, 4, 5, 6], [8, 9], [7, 8, 9], [], [2, 4, 6]]
    times = [[HOUR * place for place in range(len(history))] for history in histories]
    batch = replace(batch_from_lists(histories, times, 8), users=torch.tensor([2, 2, 0, 2, 2]))
    parts = irregular_parts(batch, np.array([False, True, True]), rare)
    assert parts is not None  # of sequence 0 and 4: 1 and 3 are whole or empty, 2 is irregular
    assert torch.equal(parts.newest, batch.last[[0, 4]])
    assert parts.batch.recent(5).tolist() == [[6, 5, 3, 1, 0], [6, 4, 0, 0, 0]]
    assert parts.batch.times is not None
    end = int(parts.batch.last[0])
    found = parts.batch.times.flatten()[end - 3 : end + 1]
    assert found.tolist() == [0, 2 * HOUR, 4 * HOUR, 5 * HOUR]
    assert irregular_parts(batch, np.zeros(3, dtype=np.bool_), rare) is None


def sequence_enhancement(
    settings: UniRecConfig, users: list[float]
) -> tuple[UniRec, SequenceEnhancement]:
    torch.manual_seed(0)
    net = UniRec(settings, ITEMS)
    rare = np.isin(np.arange(ITEMS + 1), [1, 3])
    return net, SequenceEnhancement(settings, regular_users(settings, statistics(users)), rare)


def unused(encodings: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    raise AssertionError("the published part predicts nothing")


def test_the_part_may_predict_what_follows_the_whole() -> None:
    net, loss = sequence_enhancement(config(sequence_teacher="target"), [1.0, 2.0, 3.0, 4.0, 5.0])
    assert not list(loss.parameters())
    batch = batch_from_lists([[1, 2, 3, 4, 5], [1, 4, 5, 6]], [[0, 5, 9, 9, 9], [0, 1, 2, 3]], 8)
    targets = torch.zeros_like(batch.items)
    targets.view(-1)[batch.last] = torch.tensor([7, 0])  # the second has none
    batch = replace(batch, users=torch.tensor([0, 1]), targets=targets)
    asked = []

    def predict(encodings: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        asked.append((encodings, wanted.tolist()))
        return encodings.new_tensor(2.0)

    got = loss(net, batch, net.branches(batch)[0], 0.0, predict)
    assert got.item() == pytest.approx(0.2 * 2 * 2.0)  # both branches, from the first epoch
    alone = batch_from_lists([[1, 3, 4, 5]], [[0, 9, 9, 9]], 8)
    for (encodings, wanted), branch in zip(asked, net.branches(alone), strict=True):
        assert wanted == [7]
        torch.testing.assert_close(encodings[0], branch.flatten(0, 1)[alone.last[0]])


def test_the_part_is_compared_with_the_whole_by_hand() -> None:
    net, loss = sequence_enhancement(config(), [1.0, 2.0, 3.0, 4.0, 5.0])  # users 0 and 1
    histories = [[1, 2, 3, 4, 5, 6], [2, 3, 4, 5], [1, 7, 5, 6], [1, 8]]
    times = [[HOUR * p * p for p in range(len(h))] for h in histories]
    batch = replace(batch_from_lists(histories, times, 8), users=torch.tensor([0, 4, 1, 0]))
    whole = net.branches(batch)[0]
    got = loss(net, batch, whole, 0.8, unused)
    mapped = loss.map
    assert mapped is not None
    expected = 0.0
    for row, part, when in (
        (0, [1, 3, 5, 6], [0, 4, 16, 25]),
        (2, [1, 5, 6], [0, 4, 9]),
    ):  # user 4 is irregular, and [1, 8] is its own part
        alone = batch_from_lists([part], [[HOUR * t for t in when]], 8)
        again = net.branches(alone)[0].flatten(0, 1)[alone.last[0]]
        teacher = whole.flatten(0, 1)[batch.last[row]]
        weight = sequence_weight(0.8, torch.tensor(float(len(part))), 8)
        expected += (weight * (mapped(again) - teacher).square().mean()).item()
    assert got.item() == pytest.approx(0.2 * expected / 2, rel=1e-5)


def test_it_begins_late_and_the_whole_is_the_teacher() -> None:
    net, loss = sequence_enhancement(config(), [1.0, 2.0, 3.0])
    batch = batch_from_lists([[1, 2, 3, 4, 5, 6]], [[HOUR * p for p in range(6)]], 8)
    batch = replace(batch, users=torch.tensor([0]))
    whole = net.branches(batch)[0].detach().requires_grad_()
    assert loss(net, batch, whole, 0.4, unused).item() == 0.0
    late = loss(net, batch, whole, 0.5, unused)
    late.backward()
    assert whole.grad is None and late.item() > 0
    published, again = sequence_enhancement(config(mode="reference"), [5.0, 2.0, 3.0])
    batch = replace(batch, users=torch.tensor([0]))
    early, twice = (again(published, batch, whole, at, unused).item() for at in (0.4, 0.8))
    assert early > 0 and twice > 0
    weights = [sequence_weight(at, torch.tensor(4.0), 8).item() for at in (0.4, 0.8)]
    assert twice / early == pytest.approx(2 * weights[1] / weights[0], rel=1e-4)


def test_nobody_concerned_costs_nothing_but_derives_every_weight() -> None:
    net, loss = sequence_enhancement(config(), [1.0, 2.0, 3.0])
    batch = replace(batch_from_lists([[1, 2]], [[0, HOUR]], 8), users=torch.tensor([2]))
    value = loss(net, batch, net.branches(batch)[0], 0.9, unused)
    value.backward()
    assert value.item() == 0.0
    assert loss.map is not None and loss.map.weight.grad is not None


def test_aggregation_by_hand() -> None:
    near = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    got = aggregate(torch.tensor([1.0, 0.0]), near)
    assert got.tolist() == pytest.approx([0.57521, 0.24473], abs=1e-5)


def test_aggregation_of_halves_whose_weights_are_floats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autocast on a GPU makes a float32 softmax of bfloat16 products."""
    softmax = torch.Tensor.softmax
    monkeypatch.setattr(torch.Tensor, "softmax", lambda x, dim: softmax(x.float(), dim))
    own = torch.randn(4, 5, dtype=torch.bfloat16, requires_grad=True)
    near = torch.randn(4, 3, 5, dtype=torch.bfloat16, requires_grad=True)
    rough = aggregate(own, near)
    found = torch.autograd.grad(rough.float().sum(), (own, near))
    assert {tensor.dtype for tensor in (rough, *found)} == {torch.bfloat16}


@pytest.mark.parametrize("shape", [(), (4,), (3, 2), (0,)])
def test_aggregation_has_the_gradients_of_its_formula(shape: tuple[int, ...]) -> None:
    def formula(own: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
        alpha = (near @ own[..., None]).softmax(dim=-2)
        return (alpha * near).sum(dim=-2)

    torch.manual_seed(0)
    own = torch.randn(*shape, 5, dtype=torch.float64, requires_grad=True)
    near = torch.randn(*shape, 3, 5, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(*shape, 5, dtype=torch.float64)
    found = [
        (f(own, near), *torch.autograd.grad(f(own, near), (own, near), grad))
        for f in (aggregate, formula)
    ]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_aggregation_learns_in_lower_precision() -> None:
    own, near = torch.randn(4, 5, requires_grad=True), torch.randn(4, 3, 5, requires_grad=True)
    exact = torch.autograd.grad(aggregate(own, near).sum(), (own, near))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = aggregate(own, near).sum()
    for one, other in zip(exact, torch.autograd.grad(rough, (own, near)), strict=True):
        assert other.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=0.1, atol=0.1)


def item_enhancement(settings: UniRecConfig) -> tuple[UniRec, ItemEnhancement]:
    torch.manual_seed(0)
    net, found = UniRec(settings, ITEMS), statistics([0.0])
    return net, ItemEnhancement(settings, found, net.enhancer)


def test_items_by_hand() -> None:
    settings = config(
        drawn_neighbours=5, kept_neighbours=5
    )  # all of them: nothing is left to chance
    net, loss = item_enhancement(settings)
    assert loss.enhancer is not None
    batch = batch_from_lists([[1, 3, 8], [9, 1]], None, 8)
    table, near = net.item_table.weight, loss.neighbours
    error = {
        i: (loss.enhancer(table[i], table[near[i]]) - table[i]).square().mean().item()
        for i in (1, 3, 8, 9)
    }
    weight = {i: frequent_weight(0.7, torch.tensor(100 * (i - 1) / 9)).item() for i in (1, 3)}
    frequent = (2 * weight[1] * error[1] + weight[3] * error[3]) / 3
    rare = (error[8] + error[9]) / 2
    expected = 0.3 * frequent + 0.1 * rare_weight(0.7) * rare
    assert loss(net, batch, 0.7).item() == pytest.approx(expected, rel=1e-5)


def test_items_come_to_what_their_neighbours_alone_say() -> None:
    settings = config(
        item_teacher="neighbours", drawn_neighbours=5, kept_neighbours=5, inject_tail="inputs"
    )
    net, loss = item_enhancement(settings)
    assert loss.enhancer is not None and loss.enhancer is not net.enhancer
    table, out = net.item_table.weight.detach().double().numpy(), loss.enhancer.out
    weight, bias = (x.detach().double().numpy() for x in (out.weight, out.bias))

    def error(item: int) -> float:
        near = table[loss.neighbours[item]]
        likeness = np.exp(near @ table[item])
        made = weight @ (likeness / likeness.sum() @ near) + bias
        return float(1 - made @ table[item] / np.linalg.norm(made) / np.linalg.norm(table[item]))

    easy = [frequent_weight(0.7, torch.tensor(100 * (i - 1) / 9)).item() for i in (1, 3)]
    frequent = (2 * easy[0] * error(1) + easy[1] * error(3)) / 3
    expected = 0.3 * frequent + 0.1 * rare_weight(0.7) * (error(8) + error(9)) / 2
    batch = batch_from_lists([[1, 3, 8], [9, 1]], None, 8)
    assert loss(net, batch, 0.7).item() == pytest.approx(expected, rel=1e-5)
    with torch.no_grad():
        net.item_table.weight.mul_(0.01)  # a direction is the same for short vectors
    assert loss(net, batch, 0.7).item() == pytest.approx(expected, rel=0.2)


def test_the_map_of_an_item_and_its_neighbours_can_return_the_item() -> None:
    batch = batch_from_lists([[1, 3, 8], [9, 1]], None, 8)
    left = {}
    for teacher in ("own_and_neighbours", "neighbours"):
        net, loss = item_enhancement(config(item_teacher=teacher))
        assert loss.enhancer is not None
        with torch.no_grad():
            loss.enhancer.out.weight.zero_()[:, : net.config.width].fill_diagonal_(1.0)
        left[teacher] = loss(net, batch, 0.7).item()
    assert left["own_and_neighbours"] == 0 and left["neighbours"] > 1e-3


def test_rare_items_do_not_train_the_map() -> None:
    net, loss = item_enhancement(config())
    assert loss.enhancer is not None
    loss(net, batch_from_lists([[8, 9]], None, 8), 0.7).backward()
    gradient = loss.enhancer.out.weight.grad
    assert gradient is None or gradient.abs().max() == 0
    assert net.item_table.weight.grad is not None
    assert net.item_table.weight.grad[8].abs().max() > 0
    net, loss = item_enhancement(config(mode="reference"))
    assert loss.enhancer is not None
    loss(net, batch_from_lists([[8, 9]], None, 8), 0.7).backward()
    assert loss.enhancer.out.weight.grad is not None
    assert loss.enhancer.out.weight.grad.abs().max() > 0


def test_neighbours_are_drawn_anew_from_a_seed() -> None:
    net, loss = item_enhancement(config(drawn_neighbours=2))
    batch = batch_from_lists([[1, 3, 8], [9, 1]], None, 8)
    loss.reseed(5)
    first, second = loss(net, batch, 0.7).item(), loss(net, batch, 0.7).item()
    loss.reseed(5)
    assert first != second
    assert [loss(net, batch, 0.7).item(), loss(net, batch, 0.7).item()] == [first, second]


def test_an_injected_map_is_the_models_own() -> None:
    net, loss = item_enhancement(config(inject_tail="inputs"))
    assert loss.enhancer is None and isinstance(net.enhancer, ItemEnhancer)
    assert not list(loss.parameters())


def test_missing_neighbours_are_an_error() -> None:
    without = replace(statistics([0.0]), neighbours=None)
    with pytest.raises(ArtifactError, match="run the features stage again with neighbours"):
        neighbours_of(config(), without)
    few = neighbours_of(config(kept_neighbours=7), statistics([0.0]))
    assert few.shape == (ITEMS + 1, 7)
    assert few[4, 5:].tolist() == [4, 4]  # filled up with the item itself
