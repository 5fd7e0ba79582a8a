"""The rungs below a model: what they list, what they leave out, and in which order they are taken."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tiny_bundle import N_ITEMS, events, item_name, items_frame, make_bundle

from recsys.bundle import load_bundle
from recsys.errors import DataError
from recsys.fallback import ITEM_TO_ITEM, POPULAR, SEGMENT, Ladder
from recsys.recommender import Continue, Query, Recommender, SearchSettings

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


def test_what_is_similar_without_the_model(
    recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    recommender.removed = np.array([7])
    ladder = Ladder(recommender)
    near, rung = ladder.similar(["i05", "ghost", "i06"], 4)
    assert rung == ITEM_TO_ITEM and list(near) == ["i05", "i06"]
    assert near["i05"].items == recommender.similar(["i05"], 4)["i05"].items
    without(monkeypatch, "_alike")
    near, rung = ladder.similar(["i05", "i06"], N_ITEMS)
    assert rung == SEGMENT
    odd = [item for item in ORDER if int(item[1:]) % 2 and item not in ("i05", "i07")]
    even = [item for item in ORDER if int(item[1:]) % 2 == 0]
    assert near["i05"].items == odd + even
    assert near["i05"].scores == [1 / place for place in range(1, len(odd + even) + 1)]


def test_continuations_without_the_model_keep_the_rules(recommender: Recommender) -> None:
    asked = Continue(
        history=["i03", "i05"], steps=4, settings=SearchSettings(groups=3, beams=2),
        exclude=["i09"], required=["i20"], at_most={"genre": 3},
    )  # fmt: skip
    found, rung = Ladder(recommender).continued(asked)
    assert rung == ITEM_TO_ITEM and not found.exact
    ranked = (
        Ladder(recommender)
        .answer(Query(history=["i03", "i05"], exclude=["i09", "i20"], k=N_ITEMS))[0]
        .items
    )
    assert [one.items[0] for one in found.lists] == ranked[:3]
    assert [one.group for one in found.lists] == [1, 2, 3]
    for one in found.lists:
        assert one.items[-1] == "i20" and len(set(one.items)) == 4
        assert not {"i03", "i05", "i09"} & set(one.items)
        odd = sum(int(item[1:]) % 2 for item in one.items)
        assert 1 <= odd <= 3
        assert one.log_probability is None and one.score is None and one.gains == [None] * 4
    shared = [set(a.items) & set(b.items) for a, b in combinations(found.lists, 2)]
    assert all(len(both) < 4 for both in shared)


def test_continuations_that_no_list_can_keep_are_refused(recommender: Recommender) -> None:
    with pytest.raises(DataError, match="only 1 items may be shown"):
        Ladder(recommender).continued(Continue(history=["i03"], steps=3, allow=["i03", "i04"]))
