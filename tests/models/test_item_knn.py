from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.config import ItemKNNConfig
from recsys.data.batches import batch_from_lists
from recsys.data.sequences import SequenceStore, TrainingData
from recsys.models import build_model, item_knn
from recsys.models.following import FollowingPairs
from recsys.models.item_knn import ItemKNN


def fitted(lists: list[list[int]], n_items: int, held: int = 0, **changes: float) -> ItemKNN:
    offsets = np.concatenate([[0], np.cumsum([len(x) for x in lists])]).astype(np.int64)
    items = np.array([i for x in lists for i in x], dtype=np.int32)
    train_end = np.maximum(offsets[1:] - held, offsets[:-1])
    model = ItemKNN(ItemKNNConfig(**changes), n_items)  # type: ignore[arg-type]
    model.fit(TrainingData(SequenceStore(items, offsets, n_items), train_end))
    return model


def test_hand_computed() -> None:
    # Users per item: 1 -> 3, 2 -> 2, 3 -> 2; together: 1 and 2 twice, 1 and 3 once, 2 and 3 once.
    lists = [[1, 2, 1], [3, 2, 1], [1], [3]]
    model = fitted(lists, 4, shrinkage=1.0, decay=0.5)
    one_two, one_three, two_three = 2 / (math.sqrt(6) + 1), 1 / (math.sqrt(6) + 1), 1 / (2 + 1)
    first, second = model.score(batch_from_lists([[1], [2, 1]], None, 50))
    assert first[[2, 3]].tolist() == pytest.approx([one_two, one_three])
    assert first[1] < 0  # an item is not its own neighbour
    assert first[4] < first[1]  # filled up by popularity
    assert second[1:4].tolist() == pytest.approx(
        [0.5 * one_two, one_two, one_three + 0.5 * two_three]
    )


def test_keeps_the_nearest_and_breaks_ties_by_index() -> None:
    lists = [[1, 2], [1, 3], [1, 4], [1, 4]]
    model = fitted(lists, 4, neighbours=2, shrinkage=0.0)
    scores = model.score(batch_from_lists([[1]], None, 50))[0]
    # Cosine with 1: items 2 and 3 have 1/2 each, item 4 has 2/sqrt(8); 4 and then 2 stay.
    assert scores[[4, 2]].tolist() == pytest.approx([2 / math.sqrt(8), 0.5])
    assert scores[3] < 0


def test_held_out_events_do_not_move_it() -> None:
    one, other = fitted([[1, 2, 3], [2, 4]], 4, held=1), fitted([[1, 2, 4], [2, 1]], 4, held=1)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 6), max_size=6), min_size=1, max_size=6),
    st.lists(st.integers(1, 6), max_size=6),
    st.integers(1, 4),
    st.sampled_from([0.0, 2.0]),
    st.sampled_from([(0.5, 1.0), (0.8, 2.0), (0.0, 0.5), (1.0, 3.0)]),
    st.sampled_from([1, 20, 1000]),
)
def test_equals_brute_force(
    lists: list[list[int]],
    history: list[int],
    depth: int,
    shrinkage: float,
    form: tuple[float, float],
    block: int,
) -> None:
    a, q = form
    kept = item_knn.BLOCK_PAIRS
    item_knn.BLOCK_PAIRS = block
    try:
        more = {"history": depth, "shrinkage": shrinkage, "asymmetry": a, "locality": q}
        model = fitted(lists, 6, **more, decay=0.7, neighbours=3)
    finally:
        item_knn.BLOCK_PAIRS = kept
    sets = [set(x) for x in lists]
    count = [sum(i in s for s in sets) for i in range(7)]
    expected = np.zeros(7)
    for d, j in enumerate(history[::-1][:depth]):
        near = []
        for i in range(1, 7):
            both = sum(i in s and j in s for s in sets)
            if i != j and both:
                norm = count[j] ** a * count[i] ** (1 - a) + shrinkage
                near.append((-((both / norm) ** q), i))
        # Equal cosines may differ in the last bit; compare only lists without a tie at the border.
        near.sort()
        if len(near) > 3 and math.isclose(near[2][0], near[3][0]):
            return
        for similarity, i in near[:3]:
            expected[i] -= 0.7**d * similarity
    scores = model.score(batch_from_lists([history], None, depth))[0].numpy()
    for i in range(1, 7):
        if expected[i] > 0:
            assert scores[i] == pytest.approx(expected[i], rel=1e-5)
        else:
            assert scores[i] < 0


def test_items_that_follow_by_hand() -> None:
    # 1 2 1 3 | 2 3: n_12 = 1, n_13 = 1 + 3^-0.5, n_23 = 2^-0.5 + 1, n_21 = 1, n_3. = 0, of 2, 1, 2 users
    store = SequenceStore(np.array([1, 2, 1, 3, 2, 3], dtype=np.int32), np.array([0, 4, 6]), 3)
    config = ItemKNNConfig(pairs="following", shrinkage=0, decay=0.5, history=2)
    model = build_model(config, 3)
    model.fit(TrainingData(store, store.offsets[1:].copy()))  # type: ignore[operator]
    scores = model.score(batch_from_lists([[1, 2], [3]], None, 2))
    one_three, two_three, two_one = 1 + 3**-0.5, (1 + 2**-0.5) / 2, 1 / 2**0.5
    assert scores[0, 3].item() == pytest.approx(two_three + 0.5 * one_three / 2**0.5)
    assert scores[0, 1].item() == pytest.approx(two_one)
    assert (scores[1, 1:] < 0).all()


def test_what_follows_is_weighed_by_the_frequency_of_the_item_that_votes() -> None:
    # As above: n_12 = 1; item 1 was had by one user, item 2 by two.
    store = SequenceStore(np.array([1, 2, 1, 3, 2, 3], dtype=np.int32), np.array([0, 4, 6]), 3)
    config = ItemKNNConfig(pairs="following", shrinkage=0, asymmetry=0.25, locality=2)
    model = build_model(config, 3)
    model.fit(TrainingData(store, store.offsets[1:].copy()))  # type: ignore[operator]
    scores = model.score(batch_from_lists([[1], [2]], None, 1))
    assert scores[0, 2].item() == pytest.approx((1 / 2**0.75) ** 2)
    assert scores[1, 1].item() == pytest.approx((1 / 2**0.25) ** 2)


def test_pairs_of_blocks_are_the_pairs_of_all_items() -> None:
    rng = np.random.default_rng(0)
    store = SequenceStore(rng.integers(1, 9, 60).astype(np.int32), np.arange(0, 61, 6), 8)
    pairs = FollowingPairs(TrainingData(store, store.offsets[1:] - 1), reach=3, fading=1.0)
    whole = pairs.of_items(0, 9).toarray()
    blocks = [pairs.of_items(at, at + 4).toarray() for at in (0, 4, 8)]
    np.testing.assert_array_equal(np.concatenate(blocks), whole)
    expected = np.zeros((9, 9))
    for user in range(10):
        run = store.items[6 * user : 6 * user + 5]
        for a in range(5):
            for b in range(a + 1, min(a + 4, 5)):
                expected[run[a], run[b]] += 1 / (b - a)
    np.testing.assert_allclose(whole, expected)
