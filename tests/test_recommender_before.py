"""The lists before a history: who reads them, which of them, and what an answer says of the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_bundle import fitted, item_name, make_bundle

from recsys.bundle import load_bundle
from recsys.config import LagMarkovConfig
from recsys.data.batches import batch_from_lists
from recsys.errors import DataError
from recsys.fallback import Ladder
from recsys.growth import NewItem, grow
from recsys.recommender import Continue, Query, Recommendation, Recommender

CONFIG = LagMarkovConfig(previous=2, previous_weight=3)
HISTORY = ["i05", "i09"]


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    return Recommender(load_bundle(make_bundle(tmp_path_factory.mktemp("bundles"), CONFIG)))


@pytest.fixture(scope="module")
def sasrec(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    return Recommender(load_bundle(make_bundle(tmp_path_factory.mktemp("bundles"))))


def scores_by_hand(items: list[int], ages: list[int]) -> dict[str, float]:
    """Ask the model itself about the history with these items of lists before."""
    model = fitted(CONFIG)
    batch = replace(
        batch_from_lists([[5, 9]], [[0, 0]], model.max_length),
        previous=torch.tensor([items]),
        previous_ages=torch.tensor([ages]),
    )
    scores = model.score(batch)[0].tolist()
    return {item_name(i): scores[i] for i in range(1, len(scores))}


def listed(answer: Recommendation) -> dict[str, float]:
    return dict(zip(answer.items, answer.scores, strict=True))


def ask(recommender: Recommender, *previous: object) -> list[Recommendation]:
    asked = Query(history=HISTORY, k=40, exclude_seen=False)
    return recommender.recommend([replace(asked, previous=one) for one in previous])  # type: ignore[arg-type]


def test_the_newest_lists_are_read_by_their_age(reading: Recommender) -> None:
    [answer] = ask(reading, [["i30"], ["i01", "i02", "x"], ["i03", "i02", "y", "x"]])
    expected = scores_by_hand([1, 2, 3, 2], [2, 2, 1, 1])
    assert listed(answer) == pytest.approx(expected, abs=1e-5)
    assert (answer.dropped_previous, answer.unknown_previous) == (1, ["x", "y"])
    assert set(answer.items) >= {"i01", "i02", "i03"}, "they are not excluded"
    [unknown] = ask(reading, [["i01"], ["x"]])
    expected = scores_by_hand([1], [2])
    assert listed(unknown) == pytest.approx(expected, abs=1e-5), "an unknown list is one, too"


def test_none_are_not_the_same_as_not_known(reading: Recommender) -> None:
    answers = ask(reading, None, [], [["i01"]], [["i01"], ["i02", "i03"]], None)
    alone = [ask(reading, one)[0] for one in (None, [], [["i01"]], [["i01"], ["i02", "i03"]])]
    for together, one in zip(answers, [*alone, alone[0]], strict=True):
        assert listed(together) == pytest.approx(listed(one), abs=1e-6)
    assert listed(answers[1]) == pytest.approx(scores_by_hand([0], [0]), abs=1e-5)
    assert listed(answers[0]) != pytest.approx(listed(answers[1]), abs=1e-3)
    assert [one.dropped_previous for one in answers] == [0] * 5


def test_a_model_that_reads_none_says_so(sasrec: Recommender) -> None:
    plain, told = ask(sasrec, None, [["i01"], ["x"]])
    assert told.items == plain.items
    assert (told.dropped_previous, told.unknown_previous) == (2, [])
    [lists] = sasrec.continue_lists([Continue(history=HISTORY, previous=[["i01"]], steps=2)])
    assert lists.lists and lists.dropped_previous == 1


def test_nor_does_what_stands_in_for_a_model(reading: Recommender) -> None:
    query = Query(history=HISTORY, previous=[["i01"], ["x"]], k=3)
    assert Ladder(reading).answer(query)[0].dropped_previous == 2
    assert Ladder(reading).answer(query)[0].unknown_previous == []


def test_a_new_item_is_read_there_as_the_one_it_is_like(reading: Recommender) -> None:
    grown = Recommender(grow(reading.bundle, [NewItem("new", like=("i03",))]).bundle)
    assert grown.bundle.model.reads_previous == 2
    by_new, by_old = ask(grown, [["new"]], [["i03"]])
    assert by_new.unknown_previous == [] and listed(by_new) == listed(by_old)
    assert listed(by_new) != pytest.approx(listed(ask(grown, [["i04"]])[0]), abs=1e-3)


def test_an_empty_list_is_refused(tmp_path: Path, reading: Recommender) -> None:
    with pytest.raises(DataError, match=r"list 1 of previous \(from 0\) has no items"):
        ask(reading, [["i01"], []])
