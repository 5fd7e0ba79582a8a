"""The order test on made lists: in one kind order is all, in the other it is nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.config import EvaluationConfig, MarkovConfig
from recsys.data.batches import SequenceBatch, pack_histories
from recsys.data.sequences import SequenceStore, Targets, TrainingData
from recsys.errors import DataError
from recsys.evaluation.order_test import (
    OrderGround,
    OrderRow,
    advice,
    order_rows,
    verdict,
    verdicts,
)
from recsys.evaluation.shuffled import Shuffled
from recsys.models.contract import Model
from recsys.models.markov import Markov

ITEMS, LISTS, LENGTH = 60, 150, 8
EVALUATION = EvaluationConfig(exclude="none", bootstrap=200, permutations=200)


def store_of(walks: bool, baskets: bool = False) -> SequenceStore:
    """Lists that step along a ring of all items; or, in any order, items of one of five groups.

    Items of the history are not excluded: on a ring the only new neighbour of a set is what comes next.
    """
    rng = np.random.default_rng(0)
    lists = []
    for _ in range(LISTS):
        if walks:
            lists.append((rng.integers(ITEMS) + np.arange(LENGTH)) % ITEMS + 1)
        else:
            group = rng.integers(5)
            lists.append(1 + group * 12 + rng.permutation(12)[:LENGTH])
    return SequenceStore(
        np.concatenate(lists).astype(np.int32),
        np.arange(LISTS + 1, dtype=np.int64) * LENGTH,
        ITEMS,
        baskets=np.tile(np.arange(LENGTH, dtype=np.int32) // 3, LISTS) if baskets else None,
    )


def ground_of(store: SequenceStore, shuffles: int = 3) -> tuple[TrainingData, OrderGround]:
    """Two thirds of the lists train; of the others every event but the first is asked for."""
    train = 2 * LISTS // 3
    end = np.where(np.arange(LISTS) < train, store.offsets[1:], store.offsets[:-1])
    user = np.repeat(np.arange(train, LISTS), LENGTH - 1).astype(np.int32)
    start = store.offsets[user] + np.tile(np.arange(1, LENGTH), LISTS - train)
    ground = OrderGround(store, Targets(user, start, start + 1), EVALUATION, 5, shuffles, 0.1)
    return TrainingData(store, end), ground


def rows_of(walks: bool) -> list[OrderRow]:
    data, ground = ground_of(store_of(walks))
    model = Markov(MarkovConfig(history=5), ITEMS)
    model.fit(data)
    return order_rows(model, ground)


def test_order_that_matters_is_found() -> None:
    rows = rows_of(walks=True)
    assert verdicts(rows) == {"whole": "matters", "but_newest": "does not matter"}
    [whole] = [row for row in rows if (row["way"], row["metric"]) == ("whole", "ndcg")]
    assert whole["true"] > 0.9 and whole["drop"] > 0.2 and whole["p"] < 0.01
    assert whole["drop"] == pytest.approx(whole["true"] - whole["shuffled"])
    assert whole["low"] < whole["drop"] < whole["high"]
    assert whole["overlap"] == 1, "the five followers of the five items, in another order"
    assert whole["share"] == pytest.approx(whole["drop"] / whole["true"])
    [said] = advice(verdicts(rows))
    assert said.startswith("Which item came last matters")


def test_order_that_is_invented_is_found_out() -> None:
    rows = rows_of(walks=False)
    assert verdicts(rows) == {"whole": "does not matter", "but_newest": "does not matter"}
    [whole] = [row for row in rows if (row["way"], row["metric"]) == ("whole", "ndcg")]
    assert whole["overlap"] < 0.95, "the model does read the order, it only has nothing of it"
    assert advice(verdicts(rows))[0].startswith("Read histories as sets")


def test_the_figures_by_hand() -> None:
    """Every list by itself, ranks by sorting."""
    data, ground = ground_of(store_of(walks=True), shuffles=1)
    model = Markov(MarkovConfig(history=5), ITEMS)
    model.fit(data)
    [row] = [
        r for r in order_rows(model, ground) if (r["way"], r["metric"]) == ("but_newest", "hr")
    ]
    store, hits = ground.store, {True: [], False: []}  # type: dict[bool, list[float]]
    for is_true in hits:
        asked = model if is_true else Shuffled(model, "but_newest", 1)
        for user in range(2 * LISTS // 3, LISTS):
            mine = []
            for place in range(3, LENGTH):
                begin = store.offsets[user : user + 1]
                batch = pack_histories(store, begin, begin + place, 5)
                scores = asked.score(batch)[0].clone()
                scores[0] = -torch.inf
                own = scores[store.items[begin[0] + place]]
                rank = 1 + (scores > own).sum() + ((scores == own).sum() - 1) / 2
                mine.append(float(rank <= 5))
            hits[is_true].append(float(np.mean(mine)))
    assert row["true"] == pytest.approx(np.mean(hits[True]))
    assert row["shuffled"] == pytest.approx(np.mean(hits[False]))
    assert row["users"] == LISTS // 3 and row["targets"] == LISTS // 3 * (LENGTH - 3)


def test_baskets_are_tried_where_there_are_any() -> None:
    data, ground = ground_of(store_of(walks=True, baskets=True))
    model = Markov(MarkovConfig(history=5), ITEMS)
    model.fit(data)
    found = verdicts(order_rows(model, ground))
    assert found["inside_baskets"] == "matters"  # the newest event is in a basket, too
    assert any(said.startswith("Read baskets in the order") for said in advice(found))
    said = advice({"whole": "matters", "but_newest": "matters", "inside_baskets": "undecided"})
    assert said[0].startswith("Read histories as sequences") and said[1].endswith("undecided.")


class Blind(Model):
    """Scores every item by its number."""

    max_length = 5

    def score(self, batch: SequenceBatch, items: Tensor | None = None) -> Tensor:
        numbers = torch.arange(self.n_items + 1.0) if items is None else items.float()
        return numbers.expand(len(batch), -1).clone()


def test_a_model_that_reads_nothing_has_nothing_to_lose() -> None:
    _, ground = ground_of(store_of(walks=True))
    rows = order_rows(Blind(ITEMS), ground)
    assert all(row["drop"] == 0 and row["overlap"] == 1 and row["p"] == 1 for row in rows)
    assert set(verdicts(rows).values()) == {"does not matter"}


def test_lists_of_one_event_have_no_order() -> None:
    store = SequenceStore(np.array([1, 2], dtype=np.int32), np.array([0, 2]), 2)
    targets = Targets(np.zeros(1, dtype=np.int32), np.array([1]), np.array([2]))
    with pytest.raises(DataError, match="no order to test"):
        order_rows(Blind(2), OrderGround(store, targets, EVALUATION, 5, 1, 0.1))


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ((0.05, (0.01, 0.09), 0.05), "matters"),
        ((0.04, (0.03, 0.05), 0.05), "undecided"),  # surely there, but smaller than what matters
        ((0.04, (0.03, 0.049), 0.05), "does not matter"),
        ((-0.2, (-0.3, -0.1), 0.05), "does not matter"),
        ((0.06, (-0.01, 0.13), 0.05), "undecided"),
    ],
)
def test_the_rule(case: tuple[Any, ...], expected: str) -> None:
    assert verdict(*case) == expected
