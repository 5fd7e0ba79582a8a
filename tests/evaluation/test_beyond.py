from __future__ import annotations

import numpy as np
import pytest

from recsys.evaluation.beyond import (
    coverage,
    gini,
    intra_list_distance,
    item_information,
    list_counts,
    novelty,
)

TOP = np.array([[1, 2, 3], [1, 3, 0], [0, 0, 0]], dtype=np.int32)


def test_counts_leave_out_pad_and_what_is_beyond_k() -> None:
    assert list_counts(TOP, 3, 5).tolist() == [2, 1, 2, 0, 0]
    assert list_counts(TOP, 1, 5).tolist() == [2, 0, 0, 0, 0]


def test_coverage_counts_listed_items() -> None:
    assert coverage(list_counts(TOP, 3, 5)) == 3 / 5


def test_gini_equals_its_definition_by_pairs() -> None:
    counts = np.array([4, 0, 1, 7, 2])
    pairs = np.abs(counts[:, None] - counts).sum()
    assert gini(counts) == pytest.approx(pairs / (2 * len(counts) * counts.sum()))
    assert gini(np.array([3, 3, 3])) == pytest.approx(0.0)
    assert np.isnan(gini(np.zeros(3, dtype=np.int64)))


def test_novelty_by_hand() -> None:
    counts = np.array([0, 3, 1, 0])  # with one added to each: 4, 2, 1 of 7
    bits = [-np.log2(4 / 7), -np.log2(2 / 7), -np.log2(1 / 7)]
    assert item_information(counts) == pytest.approx([0.0, *bits])
    values = novelty(TOP, [1, 3, 9], counts)
    assert values[1][:2] == pytest.approx([bits[0], bits[0]])
    assert values[3][:2] == pytest.approx([np.mean(bits), (bits[0] + bits[2]) / 2])
    assert values[9][:2] == pytest.approx(values[3][:2])
    assert np.isnan(values[3][2])


@pytest.mark.parametrize("block", [1, 1 << 20])
def test_intra_list_distance_equals_all_pairs(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.evaluation.beyond.BLOCK_VALUES", block)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(9, 4)).astype(np.float32)
    vectors[4] = 0.0
    top = np.array([[3, 4, 1, 8, 2], [5, 6, 7, 0, 0], [2, 0, 0, 0, 0]], dtype=np.int32)
    values = intra_list_distance(top, [5, 2], vectors)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    for k in (2, 5):
        for row in (0, 1):
            items = [i for i in top[row, :k] if i]
            pairs = [1 - unit[a] @ unit[b] for a in items for b in items if a != b]
            assert values[k][row] == pytest.approx(np.mean(pairs), abs=1e-6)
        assert np.isnan(values[k][2])
