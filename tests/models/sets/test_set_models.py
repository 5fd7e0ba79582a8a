"""Set encoders as next-item models: what they ask, what they embed, how their places are drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_set_encoders import CONFIGS, config_of, training_data

from recsys.config import SetModelConfig
from recsys.data.batches import batch_from_lists
from recsys.data.item_sets import ItemSets
from recsys.losses import FullSets, Softmax
from recsys.losses.sets import multi_positive
from recsys.models.playlists import Embedder
from recsys.models.sets.mean import SIF
from recsys.models.sets.model import SetModel
from recsys.training.list_objectives import PrefixPrediction

N_ITEMS = 20
HISTORIES = [[3, 1, 4, 15, 9], [2, 6], [], [5, 5, 8]]


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> SetModel:
    torch.manual_seed(0)
    config = SetModelConfig(encoder=config_of(**CONFIGS[request.param]), max_length=6, prefixes=2)
    return SetModel(config, N_ITEMS).double().eval()


@torch.no_grad()
def test_order_changes_neither_query_nor_vector(model: SetModel) -> None:
    assert isinstance(model, Embedder)
    batch, turned = (
        batch_from_lists(lists, None, 6) for lists in (HISTORIES, [one[::-1] for one in HISTORIES])
    )
    torch.testing.assert_close(model.score(batch), model.score(turned), atol=1e-12, rtol=0)
    items = torch.tensor([[3, 1, 4, 15], [2, 6, 0, 0], [0, 0, 0, 0]])
    z = model.embed(items)
    torch.testing.assert_close(model.embed(items.flip(1)), z, atol=1e-12, rtol=0)
    assert z.shape == (3, model.embedding_width)
    assert (z[2] == 0).all() and z.isfinite().all()


@torch.no_grad()
def test_every_place_asks_by_the_set_up_to_it(model: SetModel) -> None:
    batch = batch_from_lists(HISTORIES, None, 6)
    hidden = model.hidden(batch).flatten(0, 1)
    for row, history in enumerate(HISTORIES):
        for size in range(1, len(history) + 1):
            alone = model.encode_sequences(batch_from_lists([history[:size]], None, 6))
            place = int(batch.last[row]) - len(history) + size
            torch.testing.assert_close(hidden[place], alone[0], atol=1e-12, rtol=0)


@torch.no_grad()
def test_sif_corrects_vectors_and_not_the_query() -> None:
    torch.manual_seed(0)
    model = SetModel(SetModelConfig(encoder=config_of(kind="sif")), N_ITEMS).double().eval()
    batch, items = batch_from_lists(HISTORIES, None, 6), torch.tensor([[3, 1, 4]])
    scores, z = model.score(batch), model.embed(items)
    model.finish(training_data())
    assert torch.equal(model.score(batch), scores)
    assert (model.embed(items) - z).abs().max() > 1e-3
    assert isinstance(model.encoder, SIF)
    torch.testing.assert_close(model.embed(items), model.encoder(items))


@torch.no_grad()
def test_sif_of_vectors_along_one_line_is_zero() -> None:
    torch.manual_seed(0)
    model = SetModel(SetModelConfig(encoder=config_of(kind="sif")), N_ITEMS).double().eval()
    line = torch.randn(model.width, dtype=torch.float64)
    model.item_table.weight.copy_(torch.rand(N_ITEMS + 1, 1, dtype=torch.float64) * line)
    model.finish(training_data())
    assert model.embed(torch.tensor([[3, 1, 4], [2, 6, 0]])).abs().max() < 1e-12


def test_a_step_learns_from_some_places_and_in_time_from_all() -> None:
    torch.manual_seed(0)
    model = SetModel(SetModelConfig(encoder=config_of(kind="mean"), prefixes=2), N_ITEMS).double()
    batch = batch_from_lists([[3, 1, 4, 15, 9], [2, 6, 7]], None, 6)
    targets = torch.where(
        batch.items > 0, 11 + torch.arange(batch.items.numel()).view_as(batch.items) % 8, 0
    )
    places = (targets.flatten() > 0).nonzero()[:, 0]
    batch = replace(batch, targets=targets, target_places=places)
    objective, seen = PrefixPrediction(Softmax()), set[int]()
    spy: list[int] = []
    plain = model.prefix_queries
    model.prefix_queries = lambda b, p: (spy.extend(p.tolist()), plain(b, p))[1]  # type: ignore[method-assign]
    for seed in range(12):
        spy.clear()
        objective.reseed(seed)
        loss = objective(model, batch, 0.0)
        assert loss.isfinite() and len(set(spy)) == len(spy) == 4  # 2 for each of 2 sequences
        seen |= set(spy)
    assert seen == set(places.tolist())


def test_all_places_at_once_is_the_plain_loss() -> None:
    torch.manual_seed(0)
    model = SetModel(
        SetModelConfig(encoder=config_of(kind="deep_sets"), prefixes=9), N_ITEMS
    ).double()
    batch = batch_from_lists([[3, 1, 4], [2, 6]], None, 6)
    places = (batch.items.flatten() > 0).nonzero()[:, 0]
    sets = ItemSets.of_lists([[1, 2], [3], [4, 5, 6], [7], [8, 9]])
    batch = replace(batch, target_sets=sets, target_places=places)
    loss = FullSets(multi_positive)
    queries = model.hidden(batch).flatten(0, 1)[places]
    expected = loss(queries, sets, model.encode_items())
    torch.testing.assert_close(PrefixPrediction(loss)(model, batch, 0.0), expected)


def test_chosen_sets_are_those_sets() -> None:
    sets = ItemSets.of_lists([[1, 2], [], [4, 5, 6], [7]])
    some = sets.select(np.array([2, 0, 1]))
    assert some.items.tolist() == [4, 5, 6, 1, 2]
    assert some.rows.tolist() == [0, 0, 0, 1, 1]
    assert some.offsets.tolist() == [0, 3, 5, 5]
