"""Strategies besides the top scores, and continuations: external ids in, lists out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from tiny_bundle import N_ITEMS, SASREC, events, fitted, item_name, items_frame, make_bundle

from recsys.bundle import load_bundle
from recsys.config import MarkovConfig
from recsys.data.batches import batch_from_lists
from recsys.errors import DataError
from recsys.models import EncoderModel
from recsys.recommender import Continue, Query, Recommender, SearchSettings

HISTORY = ["i05", "i09", "i11"]
NAMES = [item_name(i) for i in range(1, N_ITEMS + 1)]
WIDE = SearchSettings(groups=3, beams=2, diversity=0.4)


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    folder = tmp_path_factory.mktemp("bundles")
    artists = [None if i % 10 == 0 else f"artist {i % 6}" for i in range(1, N_ITEMS + 1)]
    tags = [["a", "b"]] * N_ITEMS
    items = items_frame().with_columns(artist=pl.Series(artists), tags=pl.Series(tags))
    return Recommender(load_bundle(make_bundle(folder, items=items)))


def artist(name: str) -> str | None:
    number = int(name[1:])
    return None if number % 10 == 0 else f"artist {number % 6}"


def gains_by_hand(history: list[str], items: list[str]) -> list[float]:
    """Log-probabilities of a list, each item from an encoding of its own."""
    model = fitted(SASREC)
    assert isinstance(model, EncoderModel)
    numbers = [int(name[1:]) for name in history]
    gains = []
    with torch.no_grad():
        for item in (int(name[1:]) for name in items):
            batch = batch_from_lists([numbers], [[0] * len(numbers)], model.max_length)
            logits = model.score(batch)[0, 1:] / model.temperature
            gains.append(float(logits.log_softmax(0)[item - 1]))
            numbers.append(item)
    return gains


def test_continuations_are_lists_with_their_log_probabilities(recommender: Recommender) -> None:
    (answer,) = recommender.continue_lists([Continue(history=HISTORY, steps=5, settings=WIDE)])
    assert [one.group for one in answer.lists] == [1, 2, 3, 1, 2, 3]
    assert answer.exact
    for one in answer.lists:
        assert len(set(one.items)) == 5
        assert not set(one.items) & set(HISTORY)
        assert one.gains == pytest.approx(gains_by_hand(HISTORY, one.items), abs=1e-4)
        assert one.log_probability is not None and one.score is not None
        assert one.log_probability == pytest.approx(sum(filter(None, one.gains)))
        assert one.score <= one.log_probability + 1e-9
        if one.group == 1:
            assert one.score == pytest.approx(one.log_probability)
    by_group = [[one.score or 0.0 for one in answer.lists if one.group == g] for g in (1, 2, 3)]
    assert all(scores == sorted(scores, reverse=True) for scores in by_group)
    assert len({frozenset(one.items) for one in answer.lists}) == 6


def test_the_best_list_of_a_wide_beam_beats_the_greedy_one(recommender: Recommender) -> None:
    asked = Continue(history=HISTORY, steps=4)
    greedy, wide = (
        recommender.continue_lists(
            [replace(asked, settings=SearchSettings(groups=1, beams=b, sets=False))]
        )[0].lists[0]
        for b in (1, 40)
    )
    assert wide.log_probability is not None and greedy.log_probability is not None
    assert wide.log_probability >= greedy.log_probability


def test_rules_hold_in_every_list(recommender: Recommender) -> None:
    asked = Continue(
        history=HISTORY,
        steps=8,
        settings=WIDE,
        exclude=["i07", "nope"],
        required=["i20", "i33"],
        at_most={"artist": 2},
    )
    (answer,) = recommender.continue_lists([asked])
    assert answer.unknown_excluded == ["nope"]
    for one in answer.lists:
        assert len(one.items) == 8
        assert {"i20", "i33"} <= set(one.items)
        assert "i07" not in one.items
        counts = pl.Series([artist(item) for item in one.items]).drop_nulls().value_counts()
        assert int(counts["count"].max()) <= 2  # type: ignore[arg-type]
    few = replace(asked, required=(), at_most={}, allow=NAMES[10:20], steps=4)
    for one in recommender.continue_lists([few])[0].lists:
        assert set(one.items) <= set(NAMES[10:20]) - {"i11"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"required": ["nope"]}, "required item 'nope' is not in the catalogue"),
        ({"required": ["i05"]}, "may not be shown"),
        ({"required": ["i20"] * 2}, "required twice"),
        ({"required": NAMES[20:30]}, "10 required items do not fit a list of 6"),
        ({"allow": NAMES[:6]}, "only 5 items may be shown"),
        ({"at_most": {"artist": 1}, "steps": 12}, "at most 1 of one artist only"),
        ({"at_most": {"artist": 1}, "required": ["i01", "i07"]}, "share one artist"),
        ({"at_most": {"title": 0}}, "must be at least 1"),
        ({"at_most": {"genre": 1}}, "no attribute 'genre'; they have title, artist, tags"),
        ({"at_most": {"tags": 1}}, "several values an item"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_what_cannot_be_is_said(
    recommender: Recommender, changes: dict[str, Any], message: str
) -> None:
    asked = replace(Continue(history=HISTORY, steps=6, settings=WIDE), **changes)
    with pytest.raises(DataError, match=message):
        recommender.continue_lists([asked])
    with pytest.raises(DataError, match=message):
        recommender.check_continue(asked)
    recommender.check_continue(Continue(history=HISTORY, steps=6, settings=WIDE))


def test_requests_that_share_a_search_get_what_they_get_alone(recommender: Recommender) -> None:
    seen = {item_name(i) for i in events().items[events().offsets[7] : events().offsets[8]]}
    new = next(name for name in NAMES if name not in seen)
    asked = [
        Continue(history=HISTORY, steps=4, settings=WIDE),
        Continue(history=["x"], steps=4, settings=WIDE),
        Continue(user_id="u07", steps=4, settings=WIDE, required=[new]),
        Continue(history=HISTORY, steps=3, settings=WIDE, allow=NAMES[:30]),
        Continue(history=HISTORY, steps=4, settings=replace(WIDE, dissimilarity="category"), label="artist"),
    ]  # fmt: skip
    together = recommender.continue_lists(asked)
    for one, answer in zip(asked, together, strict=True):
        (alone,) = recommender.continue_lists([one])
        assert [found.items for found in alone.lists] == [found.items for found in answer.lists]
        assert alone.unknown == answer.unknown
    assert together[1].fallback == "unknown_history"
    assert recommender.continue_lists([]) == []


@pytest.mark.parametrize("strategy", ["beam", "diverse", "mmr", "dpp"])
def test_strategies_give_full_lists_without_duplicates(
    recommender: Recommender, strategy: Any
) -> None:
    for k in (1, 7, 30, 37):
        asked = Query(history=HISTORY, k=k, strategy=strategy, settings=WIDE)
        (answer,) = recommender.recommend([asked])
        assert len(answer.items) == len(set(answer.items)) == k
        assert not set(answer.items) & set(HISTORY)
    few = Query(history=HISTORY, k=9, strategy=strategy, allow=["i01", "i02", "i05"])
    assert set(recommender.recommend([few])[0].items) == {"i01", "i02"}
    none = Query(history=HISTORY, k=9, strategy=strategy, allow=[])
    assert recommender.recommend([none])[0].items == []


def test_strategies_mix_in_one_call(recommender: Recommender) -> None:
    asked = [
        Query(history=HISTORY, strategy="diverse"),
        Query(history=HISTORY),
        Query(user_id="u07", strategy="mmr"),
        Query(history=HISTORY, strategy="beam", allow=NAMES[:20]),
        Query(user_id="u03", strategy="diverse"),
    ]
    together = recommender.recommend(asked)
    for one, answer in zip(asked, together, strict=True):
        (alone,) = recommender.recommend([one])
        assert alone.items == answer.items
        assert alone.scores == pytest.approx(answer.scores, abs=1e-5)


@pytest.mark.parametrize("strategy", ["mmr", "dpp"])
def test_the_knob_goes_from_the_top_scores_to_unlike_items(
    recommender: Recommender, strategy: Any
) -> None:
    (top,) = recommender.recommend([Query(history=HISTORY, k=8)])
    index = recommender.bundle.index
    assert index is not None
    unit = torch.nn.functional.normalize(index.vectors, dim=1)
    distances = []
    for diversity in (0.0, 0.5, 1.0):
        settings = SearchSettings(diversity=diversity)
        (answer,) = recommender.recommend(
            [Query(history=HISTORY, k=8, strategy=strategy, settings=settings)]
        )
        rows = unit[[int(name[1:]) for name in answer.items]]
        distances.append(1 - float((rows @ rows.T).triu(1).sum()) / 28)
        if diversity == 0:
            assert answer.items == top.items
    assert distances[0] < min(distances[1:])


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (Query(history=[], strategy="best"), "strategy is 'best'; allowed are top, beam"),  # type: ignore[arg-type]
        (
            Query(history=[], strategy="mmr", settings=SearchSettings(diversity=2)),
            "between 0 and 1",
        ),
        (Query(history=[], strategy="beam", steps=0), "steps is 0"),
    ],
)
def test_malformed_queries_are_refused(
    recommender: Recommender, query: Query, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        recommender.recommend([query])


@pytest.mark.parametrize("strategy", ["beam", "diverse", "mmr", "dpp"])
def test_a_model_that_only_ranks_says_so(tmp_path: Path, strategy: Any) -> None:
    bundle = load_bundle(make_bundle(tmp_path, MarkovConfig(), model=fitted(MarkovConfig())))
    with pytest.raises(DataError, match="strategy top"):
        Recommender(bundle).recommend([Query(history=HISTORY, strategy=strategy)])
    with pytest.raises(DataError, match="makes no lists"):
        Recommender(bundle).continue_lists([Continue(history=HISTORY)])


def test_a_model_without_index_makes_lists(tmp_path: Path, recommender: Recommender) -> None:
    bare = Recommender(load_bundle(make_bundle(tmp_path, index=None)))
    asked = [Continue(history=HISTORY, settings=WIDE), Continue(user_id="u11", settings=WIDE)]
    for one, other in zip(
        bare.continue_lists(asked), recommender.continue_lists(asked), strict=True
    ):
        assert [found.items for found in one.lists] == [found.items for found in other.lists]
    assert np.bincount(events().items).size <= N_ITEMS + 1
