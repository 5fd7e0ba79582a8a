"""Neighbour votes: hand-made counts, times that weigh, and a shortlist that misses nobody who was lifted."""

from __future__ import annotations

from dataclasses import replace
from math import log, log1p

import numpy as np
import pytest
import torch
from scipy import sparse

from recsys.config import IndexConfig, NeighbourVotesConfig, UniRecConfig, VotesConfig
from recsys.data.batches import SequenceBatch, batch_from_lists
from recsys.data.sequences import SequenceStore, TrainingData
from recsys.errors import DataError
from recsys.models.neighbour_votes import NeighbourVotes, VotesAlone, kept_columns
from recsys.models.unirec import UniRec
from recsys.retrieval import Exclusion, Histories, topk_rows
from recsys.retrieval.index import build_index
from recsys.retrieval.rescore import search_rescored

HOUR, DAY = 3600, 86_400
ITEMS = 6


def data(histories: list[list[int]], times: list[list[int]] | None = None) -> TrainingData:
    lengths = np.array([len(h) for h in histories])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    items = np.concatenate(histories).astype(np.int32)
    stamps = None if times is None else np.concatenate(times).astype(np.int64)
    return TrainingData(SequenceStore(items, offsets, ITEMS, timestamps=stamps), offsets[1:])


def fitted(found: TrainingData, **settings: object) -> NeighbourVotes:
    votes = NeighbourVotes(VotesConfig(**settings), ITEMS)  # type: ignore[arg-type]
    votes.fit(found)
    return votes


def asked(histories: list[list[int]], times: list[list[int]] | None = None) -> SequenceBatch:
    return batch_from_lists(histories, times, 10)


def test_votes_are_shares_of_pairs_by_distance() -> None:
    """1 -> 2 twice side by side, 1 -> 3 once and two apart; one more pair shrinks the shares."""
    votes = fitted(data([[1, 2, 3], [1, 2]]), shrinkage=1.0, reach=2)
    found = votes.votes(asked([[1], [4, 1], [2, 1]]))
    total = 1 + 2 + 0.5
    assert found[0].tolist() == pytest.approx([0, 0, 2 / total, 0.5 / total, 0, 0, 0])
    # The newest event has twice the say of the one before it, which is why 4's silence costs a third.
    assert found[1].tolist() == pytest.approx((found[0] * 2 / 3).tolist())
    assert found[2, 3] == pytest.approx(2 / 3 * 0.5 / total + 1 / 3 * 1 / 2)
    bonus = votes.bonus(asked([[1]]))[0]
    assert bonus[2] == pytest.approx(log1p(2 / total / 1e-3), rel=1e-5) and bonus[4] == 0


def test_backward_pairs_and_reach() -> None:
    log_ = data([[1, 2, 3]])
    assert fitted(log_, reach=1, shrinkage=0).votes(asked([[1]]))[0, 3] == 0
    back = fitted(log_, reach=1, shrinkage=0, backward=0.5).votes(asked([[2]]))[0]
    assert back.tolist() == pytest.approx([0, 1 / 3, 0, 2 / 3, 0, 0, 0])


def test_times_weigh_pairs_and_voters() -> None:
    log_ = data([[1, 2], [1, 3]], [[0, 0], [0, HOUR]])
    near = 1 / (1 + log(2))
    votes = fitted(log_, gap_scale=HOUR, shrinkage=0).votes(asked([[1]], [[0]]))[0]
    assert votes[2:4].tolist() == pytest.approx([1 / (1 + near), near / (1 + near)])
    together = fitted(log_, gap_scale=HOUR, shrinkage=0)
    soon, late = together.votes(asked([[1, 5], [1, 5]], [[0, 0], [0, DAY]]))[:, 2]
    assert soon > late > 0
    half = fitted(log_, recency_half_life=1 / 24, shrinkage=0).votes(asked([[1]], [[0]]))[0]
    assert half[2:4].tolist() == pytest.approx(
        [1 / 3, 2 / 3]
    )  # the pair of an hour ago counts half


def in_baskets(histories: list[list[list[int]]]) -> TrainingData:
    """A user's baskets, each a list of items."""
    found = data([[item for basket in history for item in basket] for history in histories])
    ids = [np.repeat(np.arange(len(h)), [len(basket) for basket in h]) for h in histories]
    baskets = np.concatenate(ids).astype(np.int32)
    store = SequenceStore(found.store.items, found.store.offsets, ITEMS, baskets=baskets)
    return TrainingData(store, found.train_end)


def test_a_basket_votes_alike_in_whichever_order_it_is_written() -> None:
    def fitted_to(histories: list[list[list[int]]]) -> NeighbourVotes:
        votes = NeighbourVotes(VotesConfig(reach=2, shrinkage=0), ITEMS, baskets_as_sets=True)
        votes.fit(in_baskets(histories))
        return votes

    votes = fitted_to([[[1, 2], [3]], [[4, 2, 1], [3, 5]]])
    for other in (
        [[[2, 1], [3]], [[4, 2, 1], [3, 5]]],
        [[[1, 2], [3]], [[1, 4, 2], [5, 3]]],
    ):
        assert torch.equal(votes.neighbours, fitted_to(other).neighbours)
        assert torch.equal(votes.shares, fitted_to(other).shares)
    # {1, 2} has each other at a half, the next basket at one step; the pairs are of 1 + 1/2 in all.
    alone = fitted_to([[[1, 2], [3]]])
    one = batch_from_lists([[1]], None, 10, [[0]])
    assert alone.votes(one)[0].tolist() == pytest.approx([0, 0, 1 / 2, 1 / 2, 0, 0, 0])
    one = batch_from_lists([[5, 1, 2]], None, 10, [[0, 1, 1]])
    other_way = batch_from_lists([[5, 2, 1]], None, 10, [[0, 1, 1]])
    torch.testing.assert_close(votes.votes(one), votes.votes(other_way))
    assert votes.votes(one)[0, 3] > 0


def test_baskets_as_sets_need_baskets() -> None:
    votes = NeighbourVotes(VotesConfig(), ITEMS, baskets_as_sets=True)
    with pytest.raises(DataError, match="map basket_id"):
        votes.fit(data([[1, 3], [2, 4]]))


def test_the_future_and_what_does_not_train_change_nothing() -> None:
    whole = data([[1, 2, 3, 4], [2, 3, 5]], [[0, 1, 2, 3], [0, 5, 9]])
    cut = TrainingData(whole.store, np.array([2, 6]))
    other = data([[1, 2, 6, 6], [2, 3, 1]], [[0, 1, 7, 90], [0, 5, 6]])
    moved = TrainingData(other.store, np.array([2, 6]))
    one, two = (fitted(d, gap_scale=1.0, recency_half_life=1.0) for d in (cut, moved))
    assert torch.equal(one.neighbours, two.neighbours) and torch.equal(one.shares, two.shares)


def test_an_empty_history_has_no_votes_and_missing_times_are_told() -> None:
    votes = fitted(data([[1, 2]], [[0, 1]]), gap_scale=5.0)
    assert not votes.votes(asked([[], [1]], [[], [0]]))[0].any()
    assert not votes.bonus(asked([[]], [[]])).any()
    with pytest.raises(DataError, match=r"votes\.gap_scale"):
        votes.votes(asked([[1]]))
    with pytest.raises(DataError, match=r"votes\.gap_scale"):
        fitted(data([[1, 2]]), gap_scale=5.0)


def test_the_largest_of_a_row_with_ties_by_column() -> None:
    matrix = sparse.csr_array(np.array([[0, 2.0, 5, 2], [0, 0, 0, 0], [1, 0, 0, 0]]))
    columns, values = kept_columns(matrix, 2)
    assert columns.tolist() == [[2, 1], [0, 0], [0, 0]]
    assert values.tolist() == [[5, 2], [0, 0], [1, 0]]


@torch.no_grad()
def test_unirec_scores_with_them_and_the_shortlist_holds_them() -> None:
    torch.manual_seed(0)
    config = UniRecConfig(
        width=8, blocks=1, max_length=6, votes=VotesConfig(weight=50.0, kept=3), global_term=False
    )
    net = UniRec(config, 400).eval()
    net.item_table.weight.normal_()
    assert net.votes is not None and not net.is_inner_product
    net.votes.neighbours.copy_(torch.randint(1, 401, net.votes.neighbours.shape))
    net.votes.shares.copy_(torch.rand(net.votes.shares.shape))
    batch = batch_from_lists([[1, 2], [7], [], [9, 8, 5]], [[0, 9], [3], [], [1, 2, 3]], 6)
    histories = Histories.from_lists([[1, 2], [7], [], [9, 8, 5]])
    whole = net.score(batch)
    plain = net.encode_sequences(batch) @ net.encode_items().T
    torch.testing.assert_close(whole - plain, net.votes.bonus(batch), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(whole[:, [7, 9]], net.score(batch, torch.tensor([7, 9])))
    index = build_index(IndexConfig(shortlist=1), net.encode_items())
    rule = Exclusion()
    expected, values = topk_rows(rule.mask_(whole, histories), 3)
    queries = net.encode_sequences(batch)
    items, scores = search_rescored(index, net, batch, queries, 3, rule, histories)
    assert torch.equal(items, expected)
    torch.testing.assert_close(scores, values, rtol=0, atol=1e-4)
    # Only as many are lifted as are asked for, and they are those of most votes.
    lifted, votes = net.lifted(batch, 2), net.votes.votes(batch)
    assert lifted is not None and lifted.shape == (4, 2) and (votes[3] > 0).sum() > 2
    assert set(lifted[3].tolist()) == set(votes[3].topk(2).indices.tolist())
    assert lifted[2].tolist() == [0, 0]


def test_alone_votes_score_and_popularity_fills_up() -> None:
    found = data([[1, 2, 3], [1, 2], [5, 5]])
    settings = {"reach": 2, "shrinkage": 1.0}
    model = VotesAlone(NeighbourVotesConfig(**settings), ITEMS)  # type: ignore[arg-type]
    model.fit(found)
    votes = fitted(found, **settings).votes(asked([[1], []]))
    scores = model.score(asked([[1], []]))
    voted = votes > 0
    assert voted[0].nonzero().flatten().tolist() == [2, 3]
    torch.testing.assert_close(scores[voted], votes[voted], rtol=0, atol=0)
    assert (scores[~voted] < 0).all()
    # 1, 2 and 5 came twice, 3 once, 4 and 6 never.
    order = [scores[1, item].item() for item in (1, 2, 5, 3, 4, 6)]
    assert order[0] == order[1] == order[2] > order[3] > order[4] == order[5]


def test_alone_votes_read_baskets_where_they_are_sets() -> None:
    found = data([[1, 2, 3], [2, 1, 4]])
    baskets = np.array([0, 0, 1, 0, 0, 1], dtype=np.int32)
    found = replace(found, store=replace(found.store, baskets=baskets))
    model = VotesAlone(NeighbourVotesConfig(baskets="set", reach=1), ITEMS)
    model.fit(found)
    batch = batch_from_lists([[1, 2], [2, 1]], None, 10, [[0, 0], [0, 0]])
    one, other = model.score(batch)
    assert model.reads_baskets
    # 1 has 3 and 4 a basket later (each 1, of baskets one apart: halved) and 2 in its own basket.
    lone = model.score(batch_from_lists([[1, 3]], None, 10, [[0, 1]]))[0]
    expected = model.votes.votes(batch_from_lists([[1]], None, 10, [[0]]))[0]
    assert lone[4] == pytest.approx(
        expected[4].item() * 0.5 / 1.5
    )  # 3 is newer, and votes for nobody
    torch.testing.assert_close(one, other, rtol=0, atol=1e-7)  # in which order a basket is written
    with pytest.raises(DataError, match="need baskets"):
        model.fit(data([[1, 2]]))


def test_alone_votes_weigh_by_times() -> None:
    found = data([[1, 2], [1, 3]], [[0, 60], [0, 86_400]])
    model = VotesAlone(NeighbourVotesConfig(gap_scale=60, shrinkage=0), ITEMS)
    model.fit(found)
    assert model.reads_times
    scores = model.score(asked([[1]], [[0]]))[0]
    near = [1 / (1 + log1p(seconds / 60)) for seconds in (60, 86_400)]
    assert scores[[2, 3]].tolist() == pytest.approx([n / sum(near) for n in near])
    with pytest.raises(DataError, match="there are none"):
        model.score(asked([[1]]))
