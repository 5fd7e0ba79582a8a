from __future__ import annotations

import numpy as np
import pytest

from recsys.evaluation.beyond import coverage, list_counts
from recsys.evaluation.intervals import bootstrap, jackknife, mean_over_users, user_means


def test_users_count_once_however_many_targets_they_have() -> None:
    user = np.array([4, 4, 4, 9], dtype=np.int32)
    values = np.array([[1.0, np.nan], [1.0, 2.0], [1.0, 4.0], [0.0, np.nan]])
    users, means = user_means(values, user)
    assert users.tolist() == [4, 9]
    assert means[:, 0].tolist() == [1.0, 0.0]
    assert means[0, 1] == 3.0
    assert np.isnan(means[1, 1])
    assert mean_over_users(means).tolist() == [0.5, 3.0]
    assert np.isnan(mean_over_users(np.full((2, 1), np.nan))).all()


def test_bootstrap_agrees_with_the_normal_interval_of_a_large_sample() -> None:
    rng = np.random.default_rng(0)
    means = rng.exponential(size=(2000, 1))
    low, high = bootstrap(means, 2000, 0.95, np.random.default_rng(1))
    reach = 1.96 * means.std() / np.sqrt(2000)
    assert low[0] == pytest.approx(means.mean() - reach, abs=0.1 * reach)
    assert high[0] == pytest.approx(means.mean() + reach, abs=0.1 * reach)


def test_bootstrap_is_seeded_and_does_not_depend_on_the_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    means = np.random.default_rng(0).normal(size=(30, 3))
    whole = bootstrap(means, 200, 0.9, np.random.default_rng(5))
    monkeypatch.setattr("recsys.evaluation.intervals.BLOCK_VALUES", 100)
    blocks = bootstrap(means, 200, 0.9, np.random.default_rng(5))
    other = bootstrap(means, 200, 0.9, np.random.default_rng(6))
    assert np.allclose(whole, blocks)
    assert not np.allclose(whole, other)


def test_bootstrap_leaves_out_users_without_a_value() -> None:
    means = np.array([[1.0, 1.0], [2.0, np.nan], [3.0, 1.0], [4.0, np.nan]])
    low, high = bootstrap(means, 400, 0.95, np.random.default_rng(0))
    assert low[1] == high[1] == 1.0
    assert 1.0 <= low[0] < 2.5 < high[0] <= 4.0


def test_bootstrap_of_one_user_and_of_nothing() -> None:
    low, high = bootstrap(np.array([[0.25, np.nan]]), 100, 0.95, np.random.default_rng(0))
    assert (low[0], high[0]) == (0.25, 0.25)
    assert np.isnan([low[1], high[1]]).all()


def test_bootstrap_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(80, 200)) + 3.0  # each column is an experiment of 80 users
    low, high = bootstrap(samples, 500, 0.9, rng)
    assert 0.82 <= np.mean((low <= 3.0) & (high >= 3.0)) <= 0.97


def test_jackknife_of_a_mean_is_its_standard_error() -> None:
    # One list of one item for each of 50 users, so 50 groups of one; the statistic is a mean.
    item = np.random.default_rng(0).integers(1, 4, size=(50, 1)).astype(np.int32)

    def mean_item(counts: np.ndarray) -> float:
        return float((counts * np.array([0.1, 0.2, 0.3])).sum() / counts.sum())

    low, high = jackknife(
        lambda rows: list_counts(item if rows is None else item[rows], 1, 3),
        mean_item,
        np.arange(50, dtype=np.int32),
        0.95,
        np.random.default_rng(0),
    )
    error = (item / 10).std(ddof=1) / np.sqrt(50)
    assert (low + high) / 2 == pytest.approx(item.mean() / 10)
    assert high - low == pytest.approx(2 * 1.959964 * error, rel=1e-6)


def test_jackknife_holds_the_value_of_coverage_and_needs_two_users() -> None:
    top = np.random.default_rng(0).integers(1, 300, size=(200, 5)).astype(np.int32)
    user = np.repeat(np.arange(100), 2).astype(np.int32)

    def counts_of(rows: np.ndarray | None) -> np.ndarray:
        return list_counts(top if rows is None else top[rows], 5, 400)

    low, high = jackknife(counts_of, coverage, user, 0.95, np.random.default_rng(0))
    assert low < coverage(counts_of(None)) < high
    alone = jackknife(counts_of, coverage, user * 0, 0.95, np.random.default_rng(0))
    assert np.isnan(alone).all()
