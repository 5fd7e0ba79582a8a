"""The schedules of UniRec's enhancements, at the values of the specification."""

from __future__ import annotations

import pytest
import torch

from recsys.training.schedules import frequent_weight, rare_weight, sequence_weight


@pytest.mark.parametrize(
    ("epoch", "kept", "expected"),
    [
        (0, 3, 0.96593),
        (50, 3, 0.60876),
        (100, 3, 0.0),
        (100, 20, 0.50904),
        (150, 20, 0.92784),
        (220, 3, 1.0),
    ],
)
def test_sequence_weight(epoch: int, kept: int, expected: float) -> None:
    got = sequence_weight(epoch / 220, torch.tensor([float(kept)]), 50)
    assert got.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("epoch", "rank", "expected"),
    [(0, 0, 0.25882), (100, 0, 1.0), (220, 0, 0.0), (0, 100, -0.96593), (220, 100, 1.0)],
)
def test_frequent_weight(epoch: int, rank: int, expected: float) -> None:
    at, of = epoch / 220, torch.tensor([float(rank)])
    assert frequent_weight(at, of, signed=True).item() == pytest.approx(expected, abs=1e-5)
    assert frequent_weight(at, of).item() == pytest.approx(max(0.0, expected), abs=1e-5)


@pytest.mark.parametrize(("epoch", "expected"), [(55, 0.38268), (110, 0.70711), (220, 1.0)])
def test_rare_weight(epoch: int, expected: float) -> None:
    assert rare_weight(epoch / 220) == pytest.approx(expected, abs=1e-5)
