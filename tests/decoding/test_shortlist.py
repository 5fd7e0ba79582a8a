"""Searches by an index, with exact and estimated log Z, against the search of the whole catalogue."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.config import IndexConfig, SASRecConfig, UniRecConfig, VotesConfig
from recsys.data.batches import SequenceBatch, batch_from_lists
from recsys.decoding import Catalogue, Rules, SearchSettings, search
from recsys.decoding.normaliser import Estimate, error_of, exact_log_z
from recsys.decoding.shortlist import Closed, Shortlist
from recsys.models import EncoderModel, build_model
from recsys.models.generation import GenerationState
from recsys.models.unirec import UniRec
from recsys.retrieval.index import build_index

N_ITEMS, STEPS = 600, 6
CONFIG = SASRecConfig(width=16, heads=2, max_length=12)
HISTORIES = [[3, 1, 4, 15, 9, 2, 6], [5], [], [535, 89, 79]]
FORBIDDEN = [np.unique(np.array(history, dtype=np.int64)) for history in HISTORIES]
RULES = [Rules(forbidden=items) for items in FORBIDDEN]


@pytest.fixture(scope="module")
def model() -> EncoderModel:
    torch.manual_seed(5)
    built = build_model(CONFIG, N_ITEMS).eval()
    assert isinstance(built, EncoderModel)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.copy_(torch.randn(parameter.shape) / 3)
        built.default_query.normal_()
    built.temperature = 0.8
    return built


@torch.no_grad()
def catalogue(model: EncoderModel, kind: Any = "exact") -> Catalogue:
    return Catalogue(model, build_index(IndexConfig(kind=kind), model.encode_items()))


def histories() -> SequenceBatch:
    return batch_from_lists(HISTORIES, None, CONFIG.max_length)


@torch.no_grad()
def find(where: Catalogue, rules: list[Rules] | None = None, **settings: Any) -> Any:
    asked = SearchSettings(**{"groups": 3, "beams": 2, "candidates": 60, **settings})
    return search(where, histories(), STEPS, asked, rules or RULES)


def test_a_shortlist_of_enough_finds_what_the_whole_catalogue_holds(model: EncoderModel) -> None:
    """With exact log Z, and Hamming penalties, which touch only few items."""
    whole = find(catalogue(model), candidates=600)
    for some in (find(catalogue(model)), find(Catalogue(model), candidates=40)):
        assert np.array_equal(some.items, whole.items)
        assert some.score == pytest.approx(whole.score, abs=1e-4)
        assert some.exact


def test_an_estimate_from_all_items_is_exact(model: EncoderModel) -> None:
    whole = find(catalogue(model))
    for settings in ({"refresh": 1}, {"refresh": 1, "candidates": 300}):
        found = find(catalogue(model), log_z="estimate", sample=N_ITEMS, **settings)
        assert not found.exact
        assert np.array_equal(found.items, whole.items)
        assert found.log_probability == pytest.approx(whole.log_probability, abs=1e-3)


def test_kept_candidates_are_scored_anew_exactly(model: EncoderModel) -> None:
    """A list's gains are right whatever search found its candidates."""
    where = catalogue(model)
    found = find(where, log_z="estimate", sample=N_ITEMS, refresh=4)
    with torch.no_grad():
        for row, history in enumerate(HISTORIES):
            for items, gains in zip(found.items[row], found.gains[row], strict=True):
                grown = list(history)
                for item, gain in zip(items.tolist(), gains, strict=True):
                    batch = batch_from_lists([grown], None, CONFIG.max_length)
                    logits = model.score(batch)[0, 1:] / model.temperature
                    assert gain == pytest.approx(float(logits.log_softmax(0)[item - 1]), abs=1e-3)
                    grown.append(item)


def test_log_z_can_wait_where_groups_have_one_list(model: EncoderModel) -> None:
    late = find(catalogue(model), groups=4, beams=1, refresh=1, sets=False)
    early = find(Catalogue(model), groups=4, beams=1, refresh=1, sets=False)
    assert np.array_equal(late.items, early.items)
    assert late.log_probability == pytest.approx(early.log_probability, abs=1e-4)
    assert late.score == pytest.approx(early.score, abs=1e-4)


@torch.no_grad()
def test_the_error_of_an_estimate_is_measured(model: EncoderModel) -> None:
    where = catalogue(model)
    queries = torch.randn(64, model.width)
    large, small = (error_of(where, queries, candidates=50, sample=s) for s in (400, 40))
    assert large["queries"] == 64 and large["sample"] == 400
    assert 0 < large["mean_abs"] < small["mean_abs"] < 0.2
    assert large["mean_abs"] <= large["max_abs"]
    whole = error_of(where, queries, candidates=50, sample=N_ITEMS)
    assert whole["max_abs"] < 1e-4


@torch.no_grad()
def test_log_z_in_chunks_is_that_of_the_whole(
    model: EncoderModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = torch.randn(7, model.width)
    expected = torch.logsumexp(queries / 0.8 @ model.encode_items()[1:].T, dim=1).double()
    for chunk in (1 << 17, 100):
        monkeypatch.setattr("recsys.decoding.normaliser.CHUNK", chunk)
        torch.testing.assert_close(
            exact_log_z(catalogue(model), queries), expected, atol=1e-5, rtol=0
        )


@pytest.mark.parametrize("kind", ["exact", "flat", "hnsw"])
@torch.no_grad()
def test_a_search_less_what_is_closed_is_the_masked_search(model: EncoderModel, kind: str) -> None:
    """Top-(C + |X|) minus X equals the masked top-C."""
    where = catalogue(model, kind)
    state = model.start(histories()).select(torch.arange(4).repeat_interleave(3))
    items, scores = where.search(state, Closed(FORBIDDEN), 3, 25)
    logits = model.score_next(state) / model.temperature
    logits[:, 0] = -torch.inf
    for row in range(12):
        order = logits[row].sort(descending=True, stable=True).indices.tolist()
        expected = [i for i in order if i not in HISTORIES[row // 3]][:25]
        found = items[row].tolist()
        if kind == "hnsw":
            assert len(set(found) & set(expected)) >= 24
        else:
            assert found == expected
        torch.testing.assert_close(scores[row], logits[row, items[row]], atol=1e-4, rtol=1e-4)


def test_an_approximate_index_serves_the_search(model: EncoderModel) -> None:
    found = find(catalogue(model, "hnsw"), log_z="estimate", sample=N_ITEMS, refresh=1)
    whole = find(catalogue(model))
    same = np.mean([set(a) == set(b) for a, b in zip(found.items.reshape(-1, STEPS).tolist(),
                                                      whole.items.reshape(-1, STEPS).tolist(),
                                                      strict=True)])  # fmt: skip
    assert same > 0.9


class Shifted(torch.nn.Module):
    """A model whose score is more than a product: every item has an offset of its own."""

    def __init__(self, plain: EncoderModel) -> None:
        super().__init__()
        self.plain, self.n_items, self.temperature = plain, plain.n_items, plain.temperature
        self.offset = torch.linspace(-1, 1, plain.n_items + 1)

    def start(self, batch: SequenceBatch, gap: float | None = None) -> GenerationState:
        return self.plain.start(batch, gap)

    def step(self, state: GenerationState, items: Tensor) -> GenerationState:
        return self.plain.step(state, items)

    def score_next(self, state: GenerationState, items: Tensor | None = None) -> Tensor:
        shift = self.offset if items is None else self.offset[items]
        return self.plain.score_next(state, items) + shift


@torch.no_grad()
def test_a_score_that_is_no_product_is_found_by_the_index_and_scored_exactly(
    model: EncoderModel,
) -> None:
    shifted = Shifted(model)
    index = build_index(IndexConfig(), model.encode_items())
    whole = find(Catalogue(shifted), candidates=600)
    for settings in (
        {"candidates": 600},
        {"candidates": 600, "log_z": "estimate", "sample": N_ITEMS, "refresh": 3},
    ):
        found = find(Catalogue(shifted, index), **settings)
        assert np.array_equal(found.items, whole.items)
        assert found.log_probability == pytest.approx(whole.log_probability, abs=1e-3)


@torch.no_grad()
def test_what_the_model_lifts_is_found_however_small_its_product() -> None:
    torch.manual_seed(0)
    votes = VotesConfig(weight=200.0, kept=2)
    config = UniRecConfig(
        width=16, max_length=12, calendar=False, block="ligr", votes=votes, global_term=False
    )
    built = UniRec(config, N_ITEMS).eval()
    assert built.votes is not None
    built.votes.neighbours.copy_(torch.randint(1, N_ITEMS + 1, (N_ITEMS + 1, 2)))
    built.votes.shares.copy_(0.1 + torch.rand(N_ITEMS + 1, 2))  # no ties
    times = [[60 * place for place in range(len(history))] for history in HISTORIES]
    state = built.start(batch_from_lists(HISTORIES, times, 12))
    index = build_index(IndexConfig(), built.encode_items())
    nothing = Closed([np.empty(0, dtype=np.int64) for _ in HISTORIES], None)
    found = Catalogue(built, index).search(state, nothing, 1, 3)
    expected = Catalogue(built).search(state, nothing, 1, 3)
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1])


def test_required_items_are_candidates_whatever_their_score(model: EncoderModel) -> None:
    with torch.no_grad():
        last = int(model.score(histories())[0, 1:].argmin()) + 1
    rules = [Rules(forbidden=RULES[0].forbidden, required=np.array([last])), *RULES[1:]]
    for settings in ({}, {"log_z": "estimate", "refresh": 3}):
        found = find(catalogue(model), rules, candidates=20, **settings)
        assert all(last in one for one in found.items[0].tolist())


def test_what_is_chosen_does_not_depend_on_the_batch(model: EncoderModel) -> None:
    where = catalogue(model)
    together = find(where, log_z="estimate", sample=300, refresh=2)
    asked = SearchSettings(
        groups=3, beams=2, candidates=60, log_z="estimate", sample=300, refresh=2
    )
    for row, history in enumerate(HISTORIES):
        with torch.no_grad():
            batch = batch_from_lists([history], None, CONFIG.max_length)
            alone = search(where, batch, STEPS, asked, [RULES[row]])
        assert np.array_equal(alone.items[0], together.items[row])


def test_the_estimate_counts_every_item_once(model: EncoderModel) -> None:
    """Sampled items that are candidates, too, are in the exact part alone."""
    estimate = Estimate(catalogue(model), N_ITEMS)
    known = np.array([[1, 5, 600, 0], [2, 2, 0, 0]])
    outside = estimate.outside(known)
    assert outside.sum(1).tolist() == [N_ITEMS - 3, N_ITEMS - 1]
    found = Shortlist.of_found(torch.tensor([[1, 5, 600]]), torch.zeros(1, 3), N_ITEMS, False)
    assert found.find(np.array([[600]])).tolist() == [[2]]
