from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recsys.config import EvaluationConfig
from recsys.data.batches import SequenceBatch
from recsys.data.sequences import SequenceStore, Targets
from recsys.errors import DataError
from recsys.evaluation.ranking import _count_on_cpu, _count_on_device, rank_targets
from recsys.models.contract import EncoderModel, Model
from recsys.retrieval import Exclusion, Histories, topk_rows


class Fixed(Model):
    """Gives every history the same scores."""

    def __init__(self, scores: list[float]) -> None:
        super().__init__(len(scores) - 1)
        self.max_length = 5
        self.register_buffer("fixed", torch.tensor(scores))

    def score(self, batch: SequenceBatch, items: Tensor | None = None) -> Tensor:
        scores = self.fixed if items is None else self.fixed[items]
        return scores.expand(len(batch), -1)


class Newest(EncoderModel):
    """The query is the vector of the newest item."""

    def __init__(self, table: Tensor) -> None:
        super().__init__(len(table) - 1, table.shape[1])
        self.max_length = 5
        self.table = torch.nn.Parameter(table)

    def hidden(self, batch: SequenceBatch) -> Tensor:
        return self.table[batch.items]

    def encode_items(self, items: Tensor | None = None) -> Tensor:
        return self.table if items is None else self.table[items]


def settings_of(
    exclude: Literal["seen", "none"] | int = "seen", repeats: Literal["drop", "miss"] = "drop"
) -> EvaluationConfig:
    return EvaluationConfig(exclude=exclude, repeats=repeats, list_length=4)


# user 0: 1 2 | 3 ; user 1: 4 | 4 5 5 ; user 2: | 6
STORE = SequenceStore(
    items=np.array([1, 2, 3, 4, 4, 5, 5, 6], dtype=np.int32),
    offsets=np.array([0, 3, 7, 8]),
    n_items=6,
)
TARGETS = Targets(np.array([0, 1, 2], np.int32), np.array([2, 4, 7]), np.array([3, 7, 8]))
SCORES = [99.0, 0.5, 0.4, 0.3, 0.9, 0.3, 0.3]


def test_ranks_by_hand_after_exclusion() -> None:
    ranked = rank_targets(Fixed(SCORES), STORE, TARGETS, settings_of())
    assert ranked.index.tolist() == [0, 1, 2]
    assert ranked.user.tolist() == [0, 1, 2]
    assert ranked.history_length.tolist() == [2, 1, 0]
    # user 0 may see 4, then 3 5 6 tied at 2..4: rank 3; item 4 of user 1 is seen, so 1, 2, then ties
    assert ranked.items.tolist() == [3, 5, 6]
    assert ranked.ranks.tolist() == [3.0, 4.0, 5.0]
    assert ranked.top.tolist() == [[4, 3, 5, 6], [1, 2, 3, 5], [4, 1, 2, 3]]
    assert (ranked.n_targets, ranked.dropped, ranked.forbidden) == (3, 0, 1)


def test_forbidden_items_can_count_as_misses() -> None:
    ranked = rank_targets(Fixed(SCORES), STORE, TARGETS, settings_of(repeats="miss"))
    assert ranked.n_relevant.tolist() == [1, 2, 1]
    assert ranked.items.tolist() == [3, 5, 4, 6]
    assert ranked.ranks.tolist() == [3.0, 4.0, np.inf, 5.0]
    assert ranked.forbidden == 1


def test_without_exclusion_everything_but_pad_is_ranked() -> None:
    ranked = rank_targets(Fixed(SCORES), STORE, TARGETS, settings_of("none"))
    assert ranked.items.tolist() == [3, 4, 5, 6]
    assert ranked.ranks.tolist() == [5.0, 1.0, 5.0, 5.0]


def test_targets_without_relevant_items_are_dropped_and_counted() -> None:
    store = SequenceStore(np.array([1, 1, 2], np.int32), np.array([0, 3]), 3)
    targets = Targets(np.array([0, 0], np.int32), np.array([1, 2]), np.array([2, 3]))
    ranked = rank_targets(Fixed([0.0, 1.0, 2.0, 3.0]), store, targets, settings_of())
    assert ranked.index.tolist() == [1]
    assert (ranked.n_targets, ranked.dropped, ranked.forbidden) == (2, 1, 1)
    assert ranked.top.tolist() == [[3, 2, 0, 0]]


def test_no_targets() -> None:
    none = Targets(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int64))
    ranked = rank_targets(Fixed(SCORES), STORE, none, settings_of())
    assert len(ranked) == 0
    assert ranked.top.shape == (0, 4)


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 2**32 - 1),
    exclude=st.sampled_from(["seen", "none", 2]),
    repeats=st.sampled_from(["drop", "miss"]),
    encoder=st.booleans(),
)
def test_ranks_equal_counting_by_hand(
    seed: int,
    exclude: Literal["seen", "none"] | int,
    repeats: Literal["drop", "miss"],
    encoder: bool,
) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 9, size=7)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    store = SequenceStore(rng.integers(1, 10, offsets[-1]).astype(np.int32), offsets, 9)
    start = rng.integers(offsets[:-1], offsets[1:])
    end = rng.integers(start, offsets[1:]) + 1
    targets = Targets(np.arange(7, dtype=np.int32), start, end)
    levels = torch.from_numpy(rng.integers(-2, 3, size=(10, 3))).float()
    model: Model = Newest(levels) if encoder else Fixed(levels.sum(dim=1).tolist())
    ranked = rank_targets(model, store, targets, settings_of(exclude, repeats), batch_size=3)
    found = 0
    for t in range(7):
        history = store.items[offsets[t] : start[t]].tolist()
        closed = set(Exclusion.from_setting(exclude).forbidden(history).tolist())
        query = levels[history[-1]] if history else torch.zeros(3)
        scores = (levels @ query if encoder else levels.sum(dim=1)).tolist()
        expected = {}
        for item in set(store.items[start[t] : end[t]].tolist()):
            others = [scores[i] for i in range(1, 10) if i not in closed and i != item]
            better = sum(s > scores[item] for s in others)
            rank = 1 + better + sum(s == scores[item] for s in others) / 2
            if item not in closed:
                expected[item] = rank
            elif repeats == "miss":
                expected[item] = np.inf
        if not expected:
            assert t not in ranked.index
            continue
        row = int(np.flatnonzero(ranked.index == t)[0])
        own = slice(ranked.offsets[row], ranked.offsets[row + 1])
        assert dict(zip(ranked.items[own], ranked.ranks[own], strict=True)) == expected
        assert list(ranked.ranks[own]) == sorted(ranked.ranks[own])
        found += len(expected)
    assert found == len(ranked.ranks)


def test_lists_are_the_top_of_the_masked_scores() -> None:
    generator = torch.Generator().manual_seed(1)
    model = Newest(torch.randn(300, 4, generator=generator))
    rng = np.random.default_rng(1)
    store = SequenceStore(
        rng.integers(1, 300, 200).astype(np.int32), np.arange(0, 201, 20), n_items=299
    )
    targets = Targets(np.arange(10, dtype=np.int32), store.offsets[1:] - 1, store.offsets[1:])
    ranked = rank_targets(model, store, targets, settings_of("seen", "miss"), list_length=50)
    newest = store.items[targets.start - 1]
    scores = (model.table[newest] @ model.table.T).detach()
    Exclusion().mask_(scores, Histories.of_targets(store, targets))
    assert ranked.top.tolist() == topk_rows(scores, 50)[0].tolist()


def test_counts_on_a_device_equal_counts_on_the_cpu() -> None:
    rng = np.random.default_rng(2)
    scores = rng.integers(0, 5, size=(3, 40)).astype(np.float32)
    rows = np.array([0, 0, 1, 2, 2, 2, 2])
    own = scores[rows, rng.integers(0, 40, len(rows))]
    expected = _count_on_cpu(scores, rows, own)
    found = _count_on_device(torch.from_numpy(scores), rows, torch.from_numpy(own))
    assert [part.tolist() for part in found] == [part.tolist() for part in expected]


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(broken: float) -> None:
    with pytest.raises(DataError, match=r"model odd gives scores .* first for target 0 \(user 0\)"):
        rank_targets(Fixed([*SCORES[:6], broken]), STORE, TARGETS, settings_of(), name="odd")
    table = torch.ones(7, 2)
    table[5, 1] = broken
    with pytest.raises(DataError, match=r"model Newest: the vectors of 1 items .* is item 5"):
        rank_targets(Newest(table), STORE, TARGETS, settings_of())


def test_queries_that_are_not_finite_are_refused() -> None:
    model = Newest(torch.ones(7, 2))
    model.default_query.fill_(torch.nan)
    with pytest.raises(DataError, match=r"target 2 \(user 2\)"):
        rank_targets(model, STORE, TARGETS, settings_of())


def test_overflow_is_refused() -> None:
    with pytest.raises(DataError, match="NaN or infinite"):
        rank_targets(Newest(torch.full((7, 2), 1e30)), STORE, TARGETS, settings_of())


def test_model_keeps_its_mode_and_weights() -> None:
    model = Newest(torch.ones(7, 2)).train()
    rank_targets(model, STORE, TARGETS, settings_of())
    assert model.training
    assert not model.table.is_inference()
    assert model.table.tolist() == torch.ones(7, 2).tolist()


def test_progress_counts_targets() -> None:
    calls: list[tuple[int, int]] = []
    rank_targets(
        Fixed(SCORES),
        STORE,
        TARGETS,
        settings_of(),
        batch_size=2,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(2, 3), (3, 3)]
