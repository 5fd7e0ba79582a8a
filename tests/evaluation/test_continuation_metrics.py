"""What is measured of a list's continuation: what comes next, the next k as a set, clicks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.config import EvaluationConfig
from recsys.data.batches import SequenceBatch
from recsys.data.sequences import SequenceStore, Targets
from recsys.evaluation.by_user import user_values
from recsys.evaluation.metrics import (
    Places,
    clicks,
    next_hit_rate,
    next_recall,
    target_metric,
    target_metrics,
)
from recsys.evaluation.ranking import rank_targets
from recsys.evaluation.targets_file import read_targets, write_targets
from recsys.models.contract import Model


class ByNumber(Model):
    """The smaller an item's number, the better."""

    max_length = 9

    def score(self, batch: SequenceBatch, items: Tensor | None = None) -> Tensor:
        numbers = torch.arange(self.n_items + 1.0) if items is None else items.float()
        return -numbers.expand(len(batch), -1).clone()


# list 0: 9 | 5 1 5 3 ; list 1: | 4 2 ; list 2: 1 | 7
STORE = SequenceStore(
    np.array([9, 5, 1, 5, 3, 4, 2, 1, 7], dtype=np.int32), np.array([0, 5, 7, 9]), 9
)
TARGETS = Targets(np.array([0, 1, 2], np.int32), np.array([1, 5, 8]), np.array([5, 7, 9]))


def test_the_order_of_a_target_is_kept_beside_the_ranks(tmp_path: Path) -> None:
    ranked = rank_targets(ByNumber(9), STORE, TARGETS, EvaluationConfig(list_length=3))
    assert ranked.items.tolist() == [1, 3, 5, 2, 4, 7]
    assert ranked.ranks.tolist() == [1, 3, 5, 2, 4, 6]
    assert ranked.order is not None and ranked.order.dtype == np.int32
    assert ranked.order.tolist() == [1, 2, 0, 1, 0, 0]
    path = tmp_path / "rows.parquet"
    write_targets(path, ranked)
    again = read_targets(path).order
    assert again is not None and again.tolist() == ranked.order.tolist()
    assert user_values(path, ("next_hr", 5)).value.tolist() == [1, 1, 0]


def test_baskets_and_single_items_have_no_order(tmp_path: Path) -> None:
    baskets = replace(STORE, baskets=np.array([0, 1, 1, 1, 1, 0, 0, 0, 1], dtype=np.int32))
    ranked = rank_targets(ByNumber(9), baskets, TARGETS, EvaluationConfig(list_length=3))
    assert ranked.order is None
    path = tmp_path / "rows.parquet"
    write_targets(path, ranked)
    assert read_targets(path).order is None
    single = Targets(TARGETS.user, TARGETS.start, TARGETS.start + 1)
    assert rank_targets(ByNumber(9), STORE, single, EvaluationConfig(list_length=3)).order is None
    with pytest.raises(ValueError, match="is no accuracy metric"):
        target_metric(ranked.ranks, ranked.offsets, ("next_hr", 5))


def test_an_excluded_next_item_leaves_the_place_to_the_one_after() -> None:
    store = replace(STORE, items=np.array([5, 5, 1, 5, 3, 4, 2, 1, 7], dtype=np.int32))
    dropped = rank_targets(ByNumber(9), store, TARGETS, EvaluationConfig(list_length=3))
    assert dropped.items.tolist()[:2] == [1, 3] and dropped.order is not None
    assert dropped.order.tolist()[:2] == [0, 1]
    missed = EvaluationConfig(list_length=3, repeats="miss")
    kept = rank_targets(ByNumber(9), store, TARGETS, missed)
    assert kept.items.tolist()[:3] == [1, 3, 5] and kept.order is not None
    assert kept.order.tolist()[:3] == [1, 2, 0]
    assert next_hit_rate(kept.ranks, kept.offsets, kept.order, 9)[0] == 0


def test_by_hand() -> None:
    ranks, offsets = np.array([1.0, 3.0, 5.0, 2.0, 4.0, 6.0]), np.array([0, 3, 5, 6])
    order = np.array([1, 2, 0, 1, 0, 0], dtype=np.int32)
    assert next_hit_rate(ranks, offsets, order, 4).tolist() == [0, 1, 0]
    assert next_recall(ranks, offsets, order, 2).tolist() == [1 / 2, 1 / 2, 0]
    assert next_recall(ranks, offsets, order, 5).tolist() == [1, 1, 0]
    found = target_metrics(ranks, offsets, [2, 4], order)
    assert found["next_hr", 4].tolist() == [0, 1, 0]
    assert found["clicks", None].tolist() == [0, 0, 0]
    for key in (("next_hr", 4), ("next_recall", 2), ("clicks", None)):
        assert target_metric(ranks, offsets, key, order).tolist() == found[key].tolist()
    assert ("next_hr", 2) not in target_metrics(ranks, offsets, [2])


def test_clicks_are_counted_in_tens_up_to_fifty() -> None:
    each = [1.0, 10.0, 11.0, 500.0, 501.0, np.inf]
    places = Places.of(np.array(each), np.arange(len(each) + 1))
    assert clicks(places).tolist() == [0, 0, 1, 49, 51, 51]
