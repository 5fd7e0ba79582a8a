from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.evaluation.significance import holm, permutation_test


def test_p_value_approaches_that_of_all_sign_flips() -> None:
    differences = np.array([[0.5, 1.0], [0.25, -1.0], [0.75, 2.0], [0.5, 0.0], [1.0, 0.5]])
    signs = np.array(list(itertools.product([-1, 1], repeat=5)))
    flipped = np.abs(signs @ differences)
    exact = (flipped >= np.abs(differences.sum(axis=0)) - 1e-12).mean(axis=0)
    p = permutation_test(differences, 20_000, np.random.default_rng(0))
    assert exact[0] == 2 / 32
    assert p == pytest.approx(exact, abs=0.01)


def test_no_difference_is_never_significant() -> None:
    p = permutation_test(np.zeros((30, 2)), 500, np.random.default_rng(0))
    assert p.tolist() == [1.0, 1.0]


def test_smallest_p_value_is_one_over_permutations_plus_one() -> None:
    p = permutation_test(np.ones((200, 1)), 999, np.random.default_rng(0))
    assert p.tolist() == [1 / 1000]


def test_seeded_and_independent_of_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.random.default_rng(1).normal(0.3, 1.0, size=(40, 2))
    whole = permutation_test(differences, 400, np.random.default_rng(2))
    monkeypatch.setattr("recsys.evaluation.significance.BLOCK_SIGNS", 100)
    assert permutation_test(differences, 400, np.random.default_rng(2)).tolist() == whole.tolist()


def test_false_alarms_are_as_rare_as_promised() -> None:
    rng = np.random.default_rng(0)
    p = permutation_test(rng.normal(size=(60, 400)), 499, rng)
    assert 0.02 <= (p <= 0.05).mean() <= 0.09


def test_holm_by_hand() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.7])).tolist() == [1.0, 1.0]
    assert holm(np.array([0.2])).tolist() == [0.2]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_raw_and_bonferroni(raw: list[float]) -> None:
    p = np.array(raw)
    corrected = holm(p)
    assert (corrected >= p).all()
    assert (corrected <= np.minimum(1, p * len(p)) + 1e-12).all() or len(p) > 1
    assert (np.diff(corrected[np.argsort(p, kind="stable")]) >= 0).all()
