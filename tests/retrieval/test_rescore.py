"""A shortlist that is scored again: the list of full ranking, by exact search and by FAISS alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from recsys.config import IndexConfig, UniRecConfig
from recsys.data.batches import SequenceBatch, batch_from_lists
from recsys.models.unirec import UniRec
from recsys.retrieval import Exclusion, Histories, topk_rows
from recsys.retrieval.index import build_index, load_index
from recsys.retrieval.rescore import rescored_recall, search_rescored, shortlist_length

ITEMS, HOUR = 400, 3600


@pytest.fixture(scope="module")
def model() -> UniRec:
    torch.manual_seed(0)
    config = UniRecConfig(width=8, blocks=1, max_length=6, global_weight=3.0)
    net = UniRec(config, ITEMS).eval()
    with torch.no_grad():
        net.item_table.weight.normal_()
        net.item_table.weight[0] = 0.0
    return net


@pytest.fixture(scope="module")
def batch() -> SequenceBatch:
    rng = np.random.default_rng(0)
    histories = [rng.integers(1, ITEMS + 1, n).tolist() for n in (1, 4, 6, 0, 3, 2)]
    times = [[HOUR * place for place in range(len(h))] for h in histories]
    return batch_from_lists(histories, times, 6)


def histories_of(batch: SequenceBatch) -> Histories:
    return Histories.from_lists([[i for i in row if i] for row in batch.recent(6).tolist()])


@pytest.mark.parametrize("kind", ["exact", "flat"])
@torch.no_grad()
def test_it_is_full_ranking_where_the_shortlist_is_long_enough(
    kind: str, model: UniRec, batch: SequenceBatch
) -> None:
    index = build_index(IndexConfig(kind=kind, shortlist=150), model.encode_items())  # type: ignore[arg-type]
    rule, histories = Exclusion(), histories_of(batch)
    queries = model.encode_sequences(batch)
    items, scores = search_rescored(index, model, batch, queries, 10, rule, histories)
    expected, values = topk_rows(rule.mask_(model.score(batch), histories), 10)
    assert torch.equal(items, expected)
    torch.testing.assert_close(scores, values, rtol=0, atol=1e-5)
    by_product = index.search(queries, 10, rule, histories)[0]
    assert not torch.equal(by_product, expected)  # the product alone is another list
    found = rescored_recall(index, model, [batch], 10)
    assert found == {"k": 10, "queries": 6, "shortlist": 150, "recall": 1.0}


@torch.no_grad()
def test_a_short_shortlist_misses_and_says_how_much(
    model: UniRec, batch: SequenceBatch, tmp_path: Path
) -> None:
    index = build_index(IndexConfig(shortlist=1), model.encode_items())
    assert shortlist_length(index, 10) == 40  # four times the list at least
    short = rescored_recall(index, model, [batch], 10)["recall"]
    assert 0.3 < short < 1.0
    index.save(tmp_path)
    assert load_index(tmp_path).rescored == index.rescored
    assert index.facts()["rescored"]["recall"] == short


@torch.no_grad()
def test_few_allowed_items(model: UniRec, batch: SequenceBatch) -> None:
    index = build_index(IndexConfig(), model.encode_items())
    rule = Exclusion(seen=False, allowed=[7, 9, 11])
    queries = model.encode_sequences(batch)
    nothing = Histories.from_lists([[]] * len(batch))
    items, scores = search_rescored(index, model, batch, queries, 5, rule, nothing)
    whole = model.score(batch, torch.tensor([7, 9, 11]))
    order = whole.argsort(1, descending=True)
    assert torch.equal(items[:, :3], torch.tensor([7, 9, 11])[order])
    assert (items[:, 3:] == -1).all() and torch.isneginf(scores[:, 3:]).all()


@torch.no_grad()
def test_equal_scores_fall_to_the_smaller_item(batch: SequenceBatch) -> None:
    torch.manual_seed(0)
    net = UniRec(UniRecConfig(width=8, blocks=1, max_length=6), ITEMS).eval()
    net.item_table.weight[1:] = torch.randn(8)
    index = build_index(IndexConfig(), net.encode_items())
    nothing = Histories.from_lists([[]] * len(batch))
    rule = Exclusion(seen=False)
    queries = net.encode_sequences(batch)
    items, _ = search_rescored(index, net, batch, queries, 4, rule, nothing)
    assert items.tolist() == [[1, 2, 3, 4]] * len(batch)
