from __future__ import annotations

import numpy as np
import pytest

from recsys.decoding.rerank import dpp, mmr, round_robin, within_quota
from recsys.errors import DataError

RELEVANCE = np.array([[0.9, 0.85, 0.6]])
ANGLE = 0.199
SIMILAR = np.array([[[1.0, 0.98, 0.0], [0.98, 1.0, ANGLE], [0.0, ANGLE, 1.0]]])


def random_case(seed: int, n: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return rng.uniform(0.1, 1.0, size=n), vectors @ vectors.T


def test_three_items_by_hand() -> None:
    """Alike items 0 and 1 go together by relevance; half of it, or a determinant, takes 0 and 2."""
    assert set(mmr(RELEVANCE, SIMILAR, 2, 1.0)[0].tolist()) == {0, 1}
    assert set(mmr(RELEVANCE, SIMILAR, 2, 0.5)[0].tolist()) == {0, 2}
    assert set(dpp(RELEVANCE, SIMILAR, 2)[0].tolist()) == {0, 2}
    kernel = RELEVANCE[0][:, None] * SIMILAR[0] * RELEVANCE[0]
    pairs = [np.linalg.det(kernel[np.ix_(p, p)]) for p in ([0, 1], [0, 2], [1, 2])]
    assert pairs == pytest.approx([0.0232, 0.2916, 0.2498], abs=1e-4)


@pytest.mark.parametrize("seed", range(20))
def test_the_fast_dpp_is_the_naive_greedy_one(seed: int) -> None:
    quality, similarity = random_case(seed)
    kernel = quality[:, None] * similarity * quality
    chosen: list[int] = []
    for _ in range(5):  # as many as the vectors have dimensions
        left = [i for i in range(len(quality)) if i not in chosen]
        values = [np.linalg.det(kernel[np.ix_([*chosen, i], [*chosen, i])]) for i in left]
        chosen.append(left[int(np.argmax(values))])
    found = dpp(quality[None], similarity[None], 12)[0].tolist()
    assert found[:5] == chosen
    # The rest adds no volume and comes by quality.
    assert found[5:] == sorted(found[5:], key=lambda i: -quality[i])
    assert sorted(found) == list(range(12))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("balance", [0.0, 0.3, 0.8, 1.0])
def test_mmr_is_its_definition(seed: int, balance: float) -> None:
    relevance, similarity = random_case(seed)
    chosen: list[int] = []
    for _ in range(6):

        def value(i: int) -> float:
            nearest = max((similarity[i, j] for j in chosen), default=0.0)
            return float(balance * relevance[i] - (1 - balance) * nearest)

        left = [i for i in range(len(relevance)) if i not in chosen]
        chosen.append(max(left, key=lambda i: (round(value(i), 12), -i)))
    assert mmr(relevance[None], similarity[None], 6, balance)[0].tolist() == chosen


def test_rows_have_their_own_candidates() -> None:
    first, second = random_case(1), random_case(2)
    relevance, similarity = np.stack([first[0], second[0]]), np.stack([first[1], second[1]])
    relevance[1, 3:] = -np.inf
    together = mmr(relevance, similarity, 5, 0.5)
    assert together[0].tolist() == mmr(relevance[:1], similarity[:1], 5, 0.5)[0].tolist()
    assert sorted(together[1].tolist()) == [-1, -1, 0, 1, 2]
    quality = np.where(np.isneginf(relevance), 0.0, relevance)
    chosen = dpp(quality, similarity, 5)
    assert sorted(chosen[1].tolist()) == [-1, -1, 0, 1, 2]
    assert dpp(quality[:, :0], similarity[:, :0, :0], 3).tolist() == [[-1] * 3] * 2
    with pytest.raises(DataError, match=r"balance of MMR is 1\.5"):
        mmr(relevance, similarity, 2, 1.5)


def test_equal_items_do_not_break_the_factor() -> None:
    chosen = dpp(np.array([[0.5, 0.9, 0.9, 0.7]]), np.ones((1, 4, 4)), 4)[0]
    assert chosen.tolist() == [1, 2, 3, 0]


def test_quotas_and_turns() -> None:
    labels = np.array([0, 0, 1, -1, 0, 1, -1, 2])
    assert within_quota(labels, 5, 1).tolist() == [0, 2, 3, 6, 7]
    assert within_quota(labels, 3, 2).tolist() == [0, 1, 2]
    assert round_robin(labels, 8).tolist() == [0, 2, 3, 6, 7, 1, 5, 4]
    assert round_robin(labels, 3).tolist() == [0, 2, 3]
    assert within_quota(labels[:0], 3, 1).tolist() == round_robin(labels[:0], 3).tolist() == []
