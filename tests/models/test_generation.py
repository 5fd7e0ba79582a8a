"""Lists grow step by step as if their histories had been encoded anew."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from recsys.config import SASRecConfig, TrainingConfig
from recsys.data.batches import SequenceBatch, batch_from_lists
from recsys.models import EncoderModel, build_model
from recsys.models.generation import GenerationState, ReencodedState, Windows
from recsys.models.key_cache import CachedState

N_ITEMS = 30
SMALL = {"width": 8, "heads": 2, "max_length": 7, "dropout": 0.3}
CONFIGS = {
    "ligr": SASRecConfig(**SMALL),
    "prenorm_cosine": SASRecConfig(**SMALL, normalise=True, block="prenorm"),
    "no_positions": SASRecConfig(**SMALL, positions="none"),
    "baskets": SASRecConfig(
        **SMALL, baskets="set", training=TrainingConfig(objective="next_basket")
    ),
}
HISTORIES = [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5], [], [7], [30, 1, 2], [8, 8, 8, 2, 4]]


def model_of(name: str) -> EncoderModel:
    torch.manual_seed(1)
    model = build_model(CONFIGS[name], N_ITEMS).eval()
    assert isinstance(model, EncoderModel)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) / 2)
        model.default_query.normal_()
    return model


def pack(model: EncoderModel, histories: list[list[int]]) -> SequenceBatch:
    baskets = [list(range(len(h))) for h in histories]
    return batch_from_lists(histories, None, model.max_length, baskets)


def check(model: EncoderModel, state: GenerationState, lists: list[list[int]]) -> None:
    """A state equals the encoding of whole lists, and so do its scores."""
    whole = pack(model, lists)
    torch.testing.assert_close(
        state.query, model.encode_sequences(whole), atol=1e-5, rtol=1e-5, check_stride=False
    )
    some = torch.tensor([4, 30, 1])
    own = torch.randint(1, N_ITEMS + 1, (len(lists), 5))
    expected = model.score(whole)
    torch.testing.assert_close(model.score_next(state), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        model.score_next(state, some), expected[:, some], atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(
        model.score_next(state, own), expected.gather(1, own), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_steps_equal_encoding_anew(name: str) -> None:
    """Past the window's end, with rows that share a history, change places and die out."""
    model, generator = model_of(name), torch.Generator().manual_seed(2)
    state = model.start(pack(model, HISTORIES))
    check(model, state, HISTORIES)
    n, lists = len(HISTORIES), 3
    rows = torch.arange(n).repeat_interleave(lists)
    state, grown = state.select(rows), [list(HISTORIES[i]) for i in rows.tolist()]
    for _ in range(2 * model.max_length):
        items = torch.randint(1, N_ITEMS + 1, (n * lists,), generator=generator)
        state = model.step(state, items)
        grown = [[*row, item] for row, item in zip(grown, items.tolist(), strict=True)]
        check(model, state, grown)
        inside = torch.randint(0, lists, (n, lists), generator=generator)
        rows = (torch.arange(n)[:, None] * lists + inside).flatten()
        state, grown = state.select(rows), [grown[i] for i in rows.tolist()]


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_any_rows_may_be_selected(name: str) -> None:
    model = model_of(name)
    state = model.step(model.start(pack(model, HISTORIES)), torch.tensor([1, 2, 3, 4, 5]))
    rows = [3, 3, 0, 1, 3, 2]
    grown = [[*HISTORIES[i], i + 1] for i in rows]
    state = state.select(torch.tensor(rows))
    check(model, state, grown)
    state = model.step(state, torch.tensor([9, 8, 7, 6, 5, 4]))
    check(model, state, [[*row, item] for row, item in zip(grown, [9, 8, 7, 6, 5, 4], strict=True)])


@torch.no_grad()
def test_the_history_is_computed_once_and_never_copied() -> None:
    model = model_of("ligr")
    state = model.start(pack(model, [[1, 2], [3, 4]])).select(torch.tensor([0, 0, 1, 1]))
    assert isinstance(state, CachedState)
    later = model.step(state, torch.tensor([5, 6, 7, 8])).select(torch.tensor([1, 0, 2, 2]))
    assert isinstance(later, CachedState)
    assert all(one is other for one, other in zip(later.past, state.past, strict=True))
    assert state.own.shape[2] == 0, "a state is a value: a step does not change it"


@torch.no_grad()
def test_no_histories_and_only_empty_ones() -> None:
    model = model_of("ligr")
    assert len(model.start(pack(model, []))) == 0
    state = model.start(pack(model, [[], []]))
    assert torch.equal(state.query, model.default_query.expand(2, -1))
    check(model, model.step(state, torch.tensor([3, 4])), [[3], [4]])


class Timed(EncoderModel):
    """Its query is what it sees of the times; a stand-in for models that read them."""

    max_length = 4

    def __init__(self) -> None:
        super().__init__(N_ITEMS, 4)

    def hidden(self, batch: SequenceBatch) -> Tensor:
        raise NotImplementedError

    def encode_items(self, items: Tensor | None = None) -> Tensor:
        raise NotImplementedError

    def encode_sequences(self, batch: SequenceBatch) -> Tensor:
        assert batch.times is not None
        seen = Windows.of_batch(batch).times
        assert seen is not None
        return torch.nn.functional.pad(seen, (0, 4 - seen.shape[1])).float()


def times_after(steps: int, gap: float | None = None) -> list[list[float]]:
    model = Timed()
    batch = batch_from_lists(
        [[1, 2, 3], [4], [], [5, 6, 7]], [[10, 20, 60], [100], [], [0, 2, 6]], 4
    )
    state = model.start(batch, gap)
    for _ in range(steps):
        state = model.step(state, torch.ones(4, dtype=torch.int64))
    assert isinstance(state, ReencodedState)
    return state.query.tolist()


def test_a_chosen_item_comes_after_the_median_gap() -> None:
    assert times_after(1) == [[10, 20, 60, 85], [100, 100, 0, 0], [0, 0, 0, 0], [0, 2, 6, 9]]
    assert times_after(2)[0] == [20, 60, 85, 110]  # the window slides
    assert times_after(2, gap=7)[:3] == [[20, 60, 67, 74], [100, 107, 114, 0], [0, 7, 0, 0]]
