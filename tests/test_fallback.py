"""The rungs below a model: what they list, what they leave out, and in which order they are taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tiny_bundle import N_ITEMS, events, item_name, items_frame, make_bundle

from recsys.bundle import load_bundle
from recsys.errors import DataError
from recsys.fallback import ITEM_TO_ITEM, POPULAR, SEGMENT, Ladder
from recsys.recommender import Query, Recommender

POPULARITY = np.bincount(events().items, minlength=N_ITEMS + 1)
ORDER = [item_name(i) for i in np.argsort(-POPULARITY[1:], kind="stable") + 1]


def genre(index: int) -> str:
    return "odd" if index % 2 else "even"


@pytest.fixture
def recommender(tmp_path: Path) -> Recommender:
    genres = pl.Series("genre", [genre(i) for i in range(1, N_ITEMS + 1)])
    return Recommender(load_bundle(make_bundle(tmp_path, items=items_frame().with_columns(genres))))


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    def broken(*arguments: Any) -> None:
        raise RuntimeError

    for name in names:
        monkeypatch.setattr(Ladder, name, broken)


def test_item_to_item_is_by_the_places_among_the_most_alike(recommender: Recommender) -> None:
    answer, rung = Ladder(recommender).answer(Query(history=["i03", "i05", "i05"], k=6))
    assert rung == ITEM_TO_ITEM
    near = recommender.similar(["i05", "i03"], 50)
    votes: dict[str, float] = {}
    for age, item in enumerate(["i05", "i03"]):
        for rank, other in enumerate(near[item].items, start=1):
            votes[other] = votes.get(other, 0) + 1 / ((1 + age) * rank)
    expected = sorted(votes, key=lambda item: (-votes[item], item))
    assert answer.items == [item for item in expected if item not in ("i03", "i05")][:6]
    assert answer.scores == sorted(answer.scores, reverse=True)


def test_below_it_the_segment_and_then_everything(
    recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "_alike")
    query = Query(history=["i03", "i05", "i02"], k=N_ITEMS)
    answer, rung = Ladder(recommender).answer(query)
    assert rung == SEGMENT
    odd = [item for item in ORDER if int(item[1:]) % 2 and item not in ("i03", "i05")]
    even = [item for item in ORDER if int(item[1:]) % 2 == 0 and item != "i02"]
    assert answer.items == odd + even
    without(monkeypatch, "_popular_in_segment")
    answer, rung = Ladder(recommender).answer(query)
    assert rung == POPULAR
    assert answer.items == [item for item in ORDER if item not in query.history]


def test_nobody_gets_what_is_popular(recommender: Recommender) -> None:
    answer, rung = Ladder(recommender).answer(Query(history=[], k=4))
    assert (rung, answer.items, answer.fallback) == (POPULAR, ORDER[:4], "empty_history")


def test_a_catalogue_without_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "_alike")
    ladder = Ladder(Recommender(load_bundle(make_bundle(tmp_path))))
    assert ladder.answer(Query(history=["i03"], k=3))[1] == POPULAR


def test_every_rule_of_exclusion_holds(recommender: Recommender) -> None:
    recommender.removed = np.array([7])
    ladder = Ladder(recommender)
    base = {"history": ["i03", "i05"], "k": N_ITEMS}
    full = {item_name(i) for i in range(1, N_ITEMS + 1)} - {"i07"}
    assert set(ladder.answer(Query(**base))[0].items) == full - {"i03", "i05"}
    open_ = ladder.answer(Query(**base, exclude_seen=False, exclude=["i09"]))[0]
    assert set(open_.items) == full - {"i09"}
    allowed = ladder.answer(Query(**base, allow=["i03", "i04", "i07"]))[0]
    assert allowed.items == ["i04"]
    window = ladder.answer(Query(**base, repeat_window=1))[0]
    assert set(window.items) == full - {"i05"}
    with pytest.raises(DataError, match="k is 0"):
        ladder.answer(Query(history=[], k=0))
