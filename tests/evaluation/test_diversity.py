from __future__ import annotations

import doctest
import itertools
import math

import numpy as np
import pytest

import recsys.evaluation.diversity as diversity
from recsys.evaluation.diversity import (
    alpha_dcg,
    alpha_ndcg,
    best_alpha_dcg,
    distinct_n,
    greedy_alpha_dcg,
    oracle_at,
    overlap,
)

POOL = [frozenset(x) for x in ({3, 4}, {0, 1, 5, 7}, {1, 2, 3, 5, 7}, {2, 3, 5, 6})]


def test_the_greedy_ideal_is_not_the_best() -> None:
    """Greedy 6.425209 under any tie-break, exact 6.505882: a greedily normalised value exceeds 1."""
    for order in itertools.permutations(POOL):
        assert greedy_alpha_dcg(order, 3, 0.9) == pytest.approx(6.425209, abs=1e-6)
    assert best_alpha_dcg(POOL, 3, 0.9) == pytest.approx(6.505882, abs=1e-6)
    best = max(itertools.permutations(POOL, 3), key=lambda order: alpha_dcg(order, 3, 0.9))
    found = alpha_ndcg(best, POOL, 3, 0.9)
    assert found.exact and found.value == pytest.approx(1.0)
    assert not alpha_ndcg(best, POOL, 7, 0.9).exact


@pytest.mark.parametrize("seed", range(10))
def test_the_exact_ideal_is_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pool = [frozenset(rng.choice(6, rng.integers(0, 4), replace=False).tolist()) for _ in range(7)]
    for k, alpha in ((1, 0.5), (3, 0.9), (4, 0.3), (6, 1.0)):
        every = itertools.permutations(pool, k)
        expected = max(alpha_dcg(order, k, alpha) for order in every)
        assert best_alpha_dcg(pool, k, alpha) == pytest.approx(expected)
        assert greedy_alpha_dcg(pool, k, alpha) <= expected + 1e-9


def test_edges_of_alpha_ndcg() -> None:
    assert math.isnan(alpha_ndcg([frozenset({1})], [], 3).value)
    assert alpha_ndcg([], POOL, 3).value == 0
    same = [frozenset({1})] * 3
    assert alpha_ndcg(same, same, 3, alpha=1.0).value == pytest.approx(1.0)
    # alpha 0 is a plain sum of topics, discounted
    assert alpha_dcg([frozenset({1, 2})] * 2, 2, 0.0) == pytest.approx(2 + 2 / math.log2(3))


def test_distinct_n_has_its_denominator() -> None:
    lists = np.array([[[1, 2, 3], [1, 2, 3]], [[1, 2, 3], [3, 2, 1]], [[1, 0, 0], [0, 0, 0]]])
    assert distinct_n(lists, 1) == pytest.approx([0.5, 0.5, 1.0])
    assert distinct_n(lists, 2)[:2] == pytest.approx([0.5, 1.0])
    assert np.isnan(distinct_n(lists, 2)[2])
    assert np.isnan(distinct_n(lists, 4)).all()


def test_the_oracle_is_the_best_of_the_first() -> None:
    values = np.array([[0.1, 0.7, 0.9], [np.nan, 0.2, np.nan], [np.nan] * 3])
    assert oracle_at(values, 2)[:2] == pytest.approx([0.7, 0.2])
    assert oracle_at(values, 99)[0] == 0.9
    assert np.isnan(oracle_at(values, 1)[1]) and np.isnan(oracle_at(values, 3)[2])


def test_overlap_is_between_lists_not_places() -> None:
    lists = np.array([[[1, 2], [2, 1]], [[1, 2], [3, 4]], [[1, 2], [2, 3]], [[1, 2], [0, 0]]])
    assert overlap(lists)[:3] == pytest.approx([1.0, 0.0, 1 / 3])
    assert np.isnan(overlap(lists)[3])


def test_examples() -> None:
    assert doctest.testmod(diversity).failed == 0
