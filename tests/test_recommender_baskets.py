"""A model of baskets as sets is served as it is evaluated: by the same baskets, the same scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_bundle import N_ITEMS, N_USERS, events, fitted, item_name, make_bundle

from recsys.bundle import load_bundle
from recsys.config import SASRecConfig, TrainingConfig, UniRecConfig
from recsys.data.batches import pack_histories
from recsys.data.sequences import SequenceStore
from recsys.errors import ArtifactError, DataError
from recsys.recommender import Query, Recommender

SET = SASRecConfig(
    width=8,
    heads=2,
    blocks=1,
    max_length=6,
    baskets="set",
    training=TrainingConfig(objective="next_basket"),
)
MINUTES = 2


def basket_store() -> SequenceStore:
    """The tiny store, a basket being the events of one slot of two minutes."""
    store = events()
    times = np.cumsum(np.random.default_rng(1).integers(1, 100, size=store.n_events))
    return replace(store, timestamps=times, baskets=(times // (60 * MINUTES)).astype(np.int32))


STORE = basket_store()


@pytest.fixture(scope="module")
def model() -> Any:
    return fitted(SET)


@pytest.fixture(scope="module")
def recommender(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    return served(model, tmp_path_factory.mktemp("bundles"))


def served(model: Any, folder: Path, **changes: Any) -> Recommender:
    """A recommender from a bundle that was written and loaded."""
    parts = {"store": STORE, "recent_events": 100, "info": {"basket_minutes": MINUTES}}
    return Recommender(load_bundle(make_bundle(folder, SET, model=model, **parts | changes)))


def scores_of(model: Any, store: SequenceStore, user: int) -> list[float]:
    """The model's scores of items 1.. for a user's history, from the batch that evaluation makes."""
    own = slice(user, user + 1)
    start, end = store.offsets[:-1][own], store.offsets[1:][own]
    with torch.no_grad():
        scores: list[float] = model.score(pack_histories(store, start, end, 6))[0, 1:].tolist()
    return scores


def check(recommender: Recommender, query: Query, expected: list[float]) -> None:
    """The whole list of a query has exactly these scores, in their order."""
    (answer,) = recommender.recommend([replace(query, k=N_ITEMS, exclude_seen=False)])
    order = sorted(range(N_ITEMS), key=lambda i: -expected[i])
    assert answer.items == [item_name(i + 1) for i in order]
    assert answer.scores == pytest.approx([expected[i] for i in order], rel=1e-5, abs=1e-6)


def history(user: int) -> tuple[list[str], list[int], list[int]]:
    """A user's item ids, times and basket labels."""
    assert STORE.timestamps is not None and STORE.baskets is not None
    own = slice(STORE.offsets[user], STORE.offsets[user + 1])
    names = [item_name(i) for i in STORE.items[own].tolist()]
    return names, STORE.timestamps[own].tolist(), STORE.baskets[own].tolist()


@pytest.mark.parametrize("user", range(N_USERS))
def test_a_user_of_the_bundle(recommender: Recommender, model: Any, user: int) -> None:
    check(recommender, Query(user_id=f"u{user:02d}"), scores_of(model, STORE, user))


@pytest.mark.parametrize("user", [0, 3, 7, 11])
def test_a_history_with_baskets(recommender: Recommender, model: Any, user: int) -> None:
    names, _, baskets = history(user)
    expected = scores_of(model, STORE, user)
    check(recommender, Query(history=names, baskets=baskets), expected)
    check(recommender, Query(history=names, baskets=[f"on day {b}" for b in baskets]), expected)


@pytest.mark.parametrize("user", [3, 7, 11])
def test_times_make_the_baskets_of_the_data(
    recommender: Recommender, model: Any, user: int
) -> None:
    names, times, baskets = history(user)
    expected = scores_of(model, STORE, user)
    check(recommender, Query(history=names, times=times), expected)
    check(recommender, Query(history=names[::-1], times=times[::-1]), expected)
    back = Query(history=names[::-1], times=times[::-1], baskets=baskets[::-1])
    check(recommender, back, expected)


def test_equal_times_are_a_basket_where_the_data_name_no_minutes(
    model: Any, tmp_path: Path
) -> None:
    recommender = served(model, tmp_path, info={})
    names, _, _ = history(3)
    store = replace(STORE, baskets=np.arange(STORE.n_events, dtype=np.int32) // 2)
    times = [2**52, 2**52, 2**52 + 1, 2**52 + 1, 2**52 + 2, 2**52 + 2]
    check(recommender, Query(history=names, times=times), scores_of(model, store, 3))


def test_without_baskets_and_times_each_item_is_one(recommender: Recommender, model: Any) -> None:
    names, _, _ = history(7)
    alone = replace(STORE, baskets=np.arange(STORE.n_events, dtype=np.int32))
    expected = scores_of(model, alone, 7)
    assert expected != pytest.approx(scores_of(model, STORE, 7), rel=0.01), "baskets make no odds"
    check(recommender, Query(history=names), expected)


def test_items_of_one_label_come_together_and_unknown_ones_leave_no_gap(
    recommender: Recommender,
) -> None:
    plain = Query(history=["i01", "i02", "i03", "i04"], baskets=["a", "a", "b", "c"], k=9)
    mixed = Query(
        history=["i01", "nope", "i03", "i02", "i04"], baskets=["a", "z", "b", "a", "c"], k=9
    )
    (first,), (second,) = recommender.recommend([plain]), recommender.recommend([mixed])
    assert (first.items, first.scores) == (second.items, second.scores)
    assert second.unknown == ["nope"]


def test_a_set_has_no_order(recommender: Recommender) -> None:
    one = Query(history=["i01", "i02", "i03"], baskets=[1, 1, 1], exclude_seen=False)
    two = replace(one, history=["i02", "i01", "i03"])
    first, second = recommender.recommend([one, two])
    assert first.items == second.items
    assert first.scores == pytest.approx(second.scores, rel=1e-5)


def test_an_empty_history_has_its_default(recommender: Recommender) -> None:
    empty = recommender.recommend([Query(history=[])])
    assert empty == recommender.recommend([Query(history=[], baskets=[])])
    assert empty[0].fallback == "empty_history"


def test_without_an_index_scores_and_likeness_are_the_models(model: Any, tmp_path: Path) -> None:
    recommender = served(model, tmp_path, index=None)
    names, _, baskets = history(5)
    check(recommender, Query(history=names, baskets=baskets), scores_of(model, STORE, 5))
    assert len(recommender.similar(["i04"], k=3)["i04"].items) == 3


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (Query(history=["i01"], baskets=[1, 2]), "2 baskets for a history of 1 items"),
        (Query(history=["i01"], baskets=[]), "0 baskets for a history of 1 items"),
        (Query(user_id="u03", baskets=[1]), "belong to a history"),
        (Query(user_id="u03", times=[1]), "belong to a history"),
    ],
)
def test_labels_that_fit_no_history_are_refused(
    recommender: Recommender, query: Query, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        recommender.recommend([query])


def test_a_model_of_ordered_events_ignores_labels(tmp_path: Path) -> None:
    recommender = Recommender(load_bundle(make_bundle(tmp_path)))
    plain = Query(history=["i01", "i02", "i01"])
    assert recommender.recommend([plain]) == recommender.recommend([replace(plain, baskets="aba")])


def test_baskets_travel_with_the_newest_events(model: Any, tmp_path: Path) -> None:
    recent = served(model, tmp_path, recent_events=4).bundle.recent
    assert recent is not None and recent.baskets is not None and STORE.baskets is not None
    for user in range(N_USERS):
        mine = recent.baskets[recent.offsets[user] : recent.offsets[user + 1]]
        end = STORE.offsets[user + 1]
        theirs = STORE.baskets[max(STORE.offsets[user], end - 4) : end]
        assert mine.tolist() == theirs.tolist()


def test_events_without_baskets_are_no_part_of_such_a_bundle(model: Any, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="the model reads baskets, but the events have none"):
        make_bundle(tmp_path, SET, model=model, store=events())
    timed = UniRecConfig(width=8, blocks=1, max_length=6)
    timeless = replace(events(), timestamps=None)
    with pytest.raises(ArtifactError, match="the model reads times, but the events have none"):
        make_bundle(tmp_path, timed, store=timeless)
