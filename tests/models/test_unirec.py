"""UniRec: what it ranks by, that each part is a switch, and that nothing reaches over a sequence's edge."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from recsys.config import TrainingConfig, UniRecConfig
from recsys.data.batches import SequenceBatch, batch_from_lists
from recsys.errors import DataError
from recsys.models.unirec import UniRec

HOUR, DAY = 3600, 86_400
BEGIN = 1_388_534_400
HISTORIES = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11], [], [12, 13]]
TIMES = [[BEGIN + 5 * HOUR * (p + len(h)) ** 2 for p in range(len(h))] for h in HISTORIES]
FORMS: dict[str, dict[str, object]] = {
    "published": {},
    "ligr": {"block": "ligr", "gaps": "log"},
    "fused": {"block": "ligr", "fusion": "sum", "time_bias": True, "gaps": "log"},
    "biased": {"time_bias": True, "uniformity": True, "interval_context": "own", "item_bias": True},
    "injected": {"inject_tail": "both", "separate_interval": True, "normalise": True},
}
ALL_FORMS = pytest.mark.parametrize("form", FORMS)


def model(**changes: object) -> UniRec:
    torch.manual_seed(0)
    settings = {"width": 8, "heads": 2, "max_length": 6, "dropout": 0.0} | changes
    net = UniRec(UniRecConfig(**settings), 20).double().eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    if net.enhancer is not None:
        net.neighbours.copy_(torch.randint(1, 21, net.neighbours.shape))
        net.is_rare[5:] = True
        net.injected.fill_(0.5)
    return net


def batch(histories: list[list[int]] = HISTORIES, times: list[list[int]] = TIMES) -> SequenceBatch:
    return batch_from_lists(histories, times, 6)


@ALL_FORMS
@torch.no_grad()
def test_sharing_a_row_changes_nothing(form: str) -> None:
    net = model(**FORMS[form])
    together = net.score(batch())
    assert torch.equal(together, net.score(batch()))  # nothing is drawn
    for i, (history, when) in enumerate(zip(HISTORIES, TIMES, strict=True)):
        alone = net.score(batch([history], [when]))
        torch.testing.assert_close(together[i], alone[0], rtol=0, atol=1e-10)


@ALL_FORMS
@torch.no_grad()
def test_the_future_does_not_change_the_past(form: str) -> None:
    net = model(**FORMS[form])
    first = net.branches(batch([[1, 2, 3, 4]], [[0, HOUR, DAY, 2 * DAY]]))
    second = net.branches(batch([[1, 2, 3, 9]], [[0, HOUR, DAY, 9 * DAY]]))
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one[0, :3], other[0, :3], rtol=0, atol=1e-12)
        assert (one[0, 3] - other[0, 3]).abs().max() > 1e-6


@torch.no_grad()
def test_the_score_is_both_branches_and_the_global_term() -> None:
    net = model(global_weight=0.3)
    calendar, interval = net.branches(batch())
    assert calendar.shape[-1] == interval.shape[-1] == 16
    last = batch().last
    query = (calendar + interval)[..., :8].flatten(0, 1)[
        last.clamp(min=0)
    ]  # the time halves drop out
    plain = query @ net.item_table.weight.T
    whole = net.score(batch())
    off = model(global_term=False)
    off.load_state_dict(net.state_dict())
    kept = last >= 0
    torch.testing.assert_close(off.score(batch())[kept], plain[kept])
    assert off.is_inner_product and not net.is_inner_product
    more = (
        net.encode_sequences(batch()) @ net.encode_items().T - plain + net.beyond_product(batch())
    )
    torch.testing.assert_close((whole - plain)[kept], more[kept], rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("switched", "matters"),
    [
        ({"interval": False, "gaps": "hours"}, "calendar"),
        ({"calendar": False}, "gap"),
        ({"calendar": False, "interval": False, "block": "ligr"}, "nothing"),
        ({"calendar": False, "interval": False, "block": "ligr", "time_bias": True}, "gap"),
    ],
)
@torch.no_grad()
def test_a_part_that_is_off_does_not_read_its_times(
    switched: dict[str, object], matters: str
) -> None:
    """A year later at the same hour is another calendar with the same gaps; later hours are both."""
    net = model(**switched)
    assert len(net.branches(batch())) == 1
    history, times = [[1, 2, 3]], [BEGIN, BEGIN + HOUR, BEGIN + 4 * HOUR]
    now = net.score(batch(history, [times]))
    next_year = net.score(batch(history, [[t + 365 * DAY for t in times]]))
    slower = net.score(batch(history, [[times[0], times[1], times[2] + 2 * DAY]]))
    assert torch.equal(now, next_year) == (matters != "calendar")
    assert torch.equal(now, slower) == (matters == "nothing")


@torch.no_grad()
def test_interval_context() -> None:
    """Attention of the published interval branch goes by the calendar, of the other by its own gaps."""
    history, times = [[1, 2, 3]], [BEGIN, BEGIN + HOUR, BEGIN + 4 * HOUR]
    later = [t + 200 * DAY for t in times]
    for context, same in (("calendar", False), ("own", True)):
        net = model(interval_context=context)
        now, then = (net.branches(batch(history, [when]))[1] for when in (times, later))
        assert torch.allclose(now, then, rtol=0, atol=1e-12) == same


@torch.no_grad()
def test_rare_items_are_made_of_their_neighbours_as_far_as_injected() -> None:
    net = model(inject_tail="both")
    assert net.enhancer is not None
    raw = net.item_table.weight
    items = net.encode_items()
    assert torch.equal(items[:5], raw[:5])
    made = net.enhancer(raw[7], raw[net.neighbours[7]])
    torch.testing.assert_close(items[7], 0.5 * raw[7] + 0.5 * made)
    inputs = model(inject_tail="inputs")
    assert torch.equal(inputs.encode_items(), inputs.item_table.weight)
    net.injected.fill_(0.0)
    assert torch.equal(net.encode_items(), raw)


def test_to_make_each_rare_item_once_changes_neither_values_nor_gradients() -> None:
    net = model(inject_tail="both")
    assert net.enhancer is not None
    items = torch.tensor([[7, 2, 7, 0], [5, 7, 6, 1], [1, 2, 3, 0]])
    assert net.is_rare[items].sum() > len(set(items[net.is_rare[items]].tolist())) > 1

    def everywhere() -> torch.Tensor:
        raw = net.item_table(items)
        made = net.enhancer(raw, net.item_table(net.neighbours[items]))  # type: ignore[misc]
        return raw + (net.is_rare[items] * net.injected)[..., None] * (made - raw)

    weights = [net.item_table.weight, *net.enhancer.parameters()]
    grad = torch.randn(*items.shape, net.config.width, dtype=weights[0].dtype)
    ours, theirs = net._read(items), everywhere()
    torch.testing.assert_close(ours, theirs)
    for one, other in zip(
        torch.autograd.grad(ours, weights, grad),
        torch.autograd.grad(theirs, weights, grad),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@torch.no_grad()
def test_an_item_bias_counts_once_for_every_branch() -> None:
    net = model(item_bias=True, global_term=False)
    assert net.item_bias is not None and net.width == 9
    before = net.score(batch([[1, 2]], [[0, HOUR]]))
    net.item_bias.weight[7] += 1.0
    after = net.score(batch([[1, 2]], [[0, HOUR]]))
    difference = (after - before)[0]
    assert difference[7].item() == pytest.approx(2.0)
    assert difference.count_nonzero() == 1


@torch.no_grad()
def test_order_inside_a_basket_does_not_matter() -> None:
    training = TrainingConfig(objective="next_basket")
    net = model(baskets="set", training=training, block="ligr", fusion="sum", gaps="log")
    times, baskets = [[0, 0, DAY, DAY]], [[1, 1, 2, 2]]
    vectors = [
        net.encode_sequences(batch_from_lists([items], times, 6, baskets=baskets))
        for items in ([1, 2, 3, 4], [1, 2, 4, 3], [3, 2, 1, 4])
    ]
    torch.testing.assert_close(vectors[0], vectors[1], rtol=0, atol=1e-10)
    assert (vectors[0] - vectors[2]).abs().max() > 1e-6


def test_times_are_needed_where_they_are_read() -> None:
    with pytest.raises(DataError, match="reads times"):
        model().score(batch_from_lists([[1, 2]], None, 6))
    plain = model(block="ligr", calendar=False, interval=False)
    assert plain.score(batch_from_lists([[1, 2]], None, 6)).shape == (1, 21)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"fusion": "sum"}, "use fusion: branches, or block: ligr"),
        ({"calendar": False, "interval": False}, "calendar or interval must be on"),
        ({"width": 7, "heads": 3}, r"width \(14\) must be a multiple of heads \(3\)"),
        ({"baskets": "set"}, "objective must be next_basket"),
    ],
)
def test_settings_that_do_not_fit_together(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        UniRecConfig(**changes)  # type: ignore[arg-type]
