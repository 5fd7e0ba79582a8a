from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bundle import N_ITEMS, N_USERS, SASREC, events, fitted, item_name, make_bundle

from recsys.bundle import load_bundle
from recsys.config import (
    LagMarkovConfig,
    MarkovConfig,
    ModelConfig,
    PopularityConfig,
    UniRecConfig,
)
from recsys.data.batches import batch_from_lists
from recsys.errors import DataError
from recsys.recommender import Continue, Query, Recommender
from recsys.recommender.likeness import Likeness

CONFIGS: dict[str, ModelConfig] = {
    "sasrec": SASREC,
    "markov": MarkovConfig(),
    "lag_markov": LagMarkovConfig(previous=2),
    "pop": PopularityConfig(),
    # Its score is more than one product: a shortlist is scored again.
    "unirec": UniRecConfig(width=8, blocks=1, max_length=6, global_weight=2.0),
}
NAMES = [item_name(i) for i in range(1, N_ITEMS + 1)]


@pytest.fixture(scope="module")
def recommenders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Recommender]:
    folder = tmp_path_factory.mktemp("bundles")
    return {
        name: Recommender(load_bundle(make_bundle(folder, config, name=name)))
        for name, config in CONFIGS.items()
    }


@pytest.fixture(scope="module")
def sasrec(recommenders: dict[str, Recommender]) -> Recommender:
    return recommenders["sasrec"]


def at_once(history: list[str], **rest: Any) -> Query:
    """Return a query for a history whose events are all of one moment."""
    return Query(history=history, times=[0] * len(history), **rest)


def expected(
    name: str,
    history: list[int],
    k: int,
    forbidden: set[int],
    allowed: set[int] | None = None,
    times: list[int] | None = None,
) -> tuple[list[str], list[float]]:
    """Rank by the model's scores, ties by item, the slow way."""
    model = fitted(CONFIGS[name])
    with torch.no_grad():
        batch = batch_from_lists([history], [times or [0] * len(history)], model.max_length)
        scores = model.score(batch)[0].tolist()
    left = (set(range(1, N_ITEMS + 1)) if allowed is None else allowed) - forbidden
    order = sorted(left, key=lambda i: (-scores[i], i))[:k]
    return [item_name(i) for i in order], [scores[i] for i in order]


@pytest.mark.parametrize("name", CONFIGS)
def test_ranks_the_catalogue_for_a_history(recommenders: dict[str, Recommender], name: str) -> None:
    (answer,) = recommenders[name].recommend([at_once(["i05", "i09", "i05"], k=7)])
    items, scores = expected(name, [5, 9, 5], 7, {5, 9})
    assert answer.items == items
    assert answer.scores == pytest.approx(scores, rel=1e-5)
    assert (answer.unknown, answer.fallback) == ([], None)


@pytest.mark.parametrize("name", CONFIGS)
def test_exclusions_and_allow_lists_hold(recommenders: dict[str, Recommender], name: str) -> None:
    asked = at_once(["i05", "i09"], k=5, exclude=["i07", "nope"], exclude_seen=False)
    (answer,) = recommenders[name].recommend([asked])
    assert answer.items == expected(name, [5, 9], 5, {7})[0]
    assert answer.unknown_excluded == ["nope"]
    few = at_once(["i05", "i09"], k=5, exclude=["i07"], allow=["i07", "i09", "i11", "x"])
    (answer,) = recommenders[name].recommend([few])
    assert answer.items == ["i11"]
    assert answer.unknown_allowed == ["x"]
    (answer,) = recommenders[name].recommend([at_once(["i05"], allow=[])])
    assert answer.items == []
    many = at_once(["i05"], k=9, allow=NAMES[3:30])
    (answer,) = recommenders[name].recommend([many])
    assert answer.items == expected(name, [5], 9, {5}, set(range(4, 31)))[0]


@pytest.mark.parametrize("name", CONFIGS)
def test_unknown_ids_are_skipped_and_reported(
    recommenders: dict[str, Recommender], name: str
) -> None:
    asked = at_once(["x", "i05", "", "x", "i09"], k=5)
    (answer,) = recommenders[name].recommend([asked])
    assert answer.items == expected(name, [5, 9], 5, {5, 9})[0]
    assert answer.unknown == ["x", ""]
    assert answer.fallback is None


@pytest.mark.parametrize("name", CONFIGS)
def test_nobody_gets_the_default_list_and_is_told_why(
    recommenders: dict[str, Recommender], name: str
) -> None:
    queries = [
        Query(history=[], k=5),
        Query(history=["x", "y"], k=5),
        Query(user_id="stranger", k=5),
        Query(user_id="u00", k=5),  # known, without events
    ]
    answers = recommenders[name].recommend(queries)
    default = expected(name, [], 5, set())[0]
    assert [a.items for a in answers] == [default] * 4
    reasons = ["empty_history", "unknown_history", "unknown_user", "empty_history"]
    assert [a.fallback for a in answers] == reasons
    assert answers[1].unknown == ["x", "y"]
    if name == "pop":
        counts = np.bincount(events().items, minlength=N_ITEMS + 1)
        assert default == [item_name(i) for i in np.argsort(-counts[1:], kind="stable")[:5] + 1]


def test_a_model_that_reads_times_is_given_them_or_nothing(
    recommenders: dict[str, Recommender],
) -> None:
    history, times = ["i05", "x", "i09", "i02"], [0, 10, 7_000, 400_000]
    answers = {
        name: some.recommend([Query(history=history, times=times, k=7)])[0]
        for name, some in recommenders.items()
    }
    for name, answer in answers.items():
        known = [0, 7_000, 400_000]
        assert answer.items == expected(name, [5, 9, 2], 7, {5, 9, 2}, times=known)[0]
    timed = recommenders["unirec"]
    (other,) = timed.recommend([at_once(history, k=7)])
    assert other.scores != answers["unirec"].scores
    with pytest.raises(
        DataError, match=r"unirec reads when things.*4 items has no times; give them"
    ):
        timed.recommend([Query(history=history)])
    with pytest.raises(DataError, match="has no times"):
        timed.continue_lists([Continue(history=history)])
    for name in ("sasrec", "markov", "pop"):  # they read none, so they need none
        (without,) = recommenders[name].recommend([Query(history=history, k=7)])
        assert without.items == answers[name].items


def test_a_user_is_served_by_the_events_in_the_bundle(sasrec: Recommender) -> None:
    (answer,) = sasrec.recommend([Query(user_id="u07", k=6)])
    own = events().items[events().offsets[7] : events().offsets[8]].tolist()
    assert answer.items == expected("sasrec", own[-5:], 6, set(own))[0]
    assert answer.fallback is None


@pytest.mark.parametrize("name", CONFIGS)
def test_a_user_never_gets_what_was_seen_long_ago(
    recommenders: dict[str, Recommender], name: str
) -> None:
    own = events().items[events().offsets[11] :].tolist()
    assert not set(own) <= set(own[-5:]), "the bundle's newest five events do not hold them all"
    (answer,) = recommenders[name].recommend([Query(user_id="u11", k=N_ITEMS)])
    left = set(range(1, N_ITEMS + 1)) - set(own)
    assert sorted(answer.items) == sorted(item_name(i) for i in left)


def test_a_limit_on_what_is_read_is_none_on_what_is_excluded(sasrec: Recommender) -> None:
    limited = Recommender(sasrec.bundle, max_history=2)
    (answer,) = limited.recommend([Query(history=["i01", "i05", "i09"], k=6)])
    assert answer.items == expected("sasrec", [5, 9], 6, {1, 5, 9})[0]


@pytest.fixture(scope="module")
def by_rule(tmp_path_factory: pytest.TempPathFactory) -> dict[object, Recommender]:
    folder = tmp_path_factory.mktemp("rules")
    return {
        rule: Recommender(load_bundle(make_bundle(folder / str(rule), info={"exclude": rule})))
        for rule in ("seen", "none", 2)
    }


@pytest.mark.parametrize("asked", [{}, {"exclude_seen": True}, {"exclude_seen": False}, {"n": 3}])
@pytest.mark.parametrize("rule", ["seen", "none", 2])
def test_lists_leave_out_what_evaluation_did_unless_told(
    by_rule: dict[object, Recommender], rule: object, asked: dict[str, int]
) -> None:
    seen = None if not asked.keys() - {"n"} else asked["exclude_seen"] == 1
    newest = {"seen": 99, "none": 0, 2: 2}[rule] if seen is None else 99 * seen
    newest = asked.get("n", newest)
    history = [1, 2, 3, 4, 2]
    query = Query([item_name(i) for i in history], k=6, exclude_seen=seen)
    query = replace(query, repeat_window=asked.get("n"))
    (answer,) = by_rule[rule].recommend([query])
    closed = set(history[max(0, len(history) - newest) :])
    assert answer.items == expected("sasrec", history, 6, closed)[0]


@pytest.mark.parametrize("window", [1, 4, 7, 9, 14, 100])
def test_a_repeat_window_reaches_beyond_the_recent_events(sasrec: Recommender, window: int) -> None:
    own = events().items[events().offsets[7] : events().offsets[8]].tolist()
    (answer,) = sasrec.recommend([Query(user_id="u07", k=6, repeat_window=window)])
    assert answer.items == expected("sasrec", own[-5:], 6, set(own[-window:]))[0]
    [table] = sasrec.recommend_batch(["u07"], k=6, repeat_window=window)
    assert table["item_id"].to_list() == answer.items


def test_unknown_events_count_in_a_repeat_window(sasrec: Recommender) -> None:
    query = Query(history=["i05", "i09", "x"], k=6, repeat_window=2)
    (answer,) = sasrec.recommend([query])
    assert answer.items == expected("sasrec", [5, 9], 6, {9})[0]


def test_queries_of_different_rules_share_a_batch(sasrec: Recommender) -> None:
    base = Query(history=["i01", "i02", "i03"], k=N_ITEMS)
    changes: list[dict[str, Any]] = [
        {},
        {"exclude_seen": False},
        {"repeat_window": 1},
        {"exclude": ["i07"]},
    ]
    answers = sasrec.recommend([replace(base, **change) for change in changes])
    missing = [sorted(set(NAMES) - set(answer.items)) for answer in answers]
    assert missing == [["i01", "i02", "i03"], [], ["i03"], ["i01", "i02", "i03", "i07"]]


def test_times_put_a_history_in_order(sasrec: Recommender) -> None:
    ordered, shuffled, tied = sasrec.recommend(
        [
            Query(history=["i01", "i02", "i03"], times=[5, 6, 7]),
            Query(history=["i03", "i01", "i02"], times=[7, 5, 6]),
            Query(history=["i01", "i02", "i03"], times=[4, 4, 4]),
        ]
    )
    assert ordered == shuffled
    assert ordered.items == tied.items


def test_the_longest_list_holds_all_that_is_allowed(sasrec: Recommender) -> None:
    (answer,) = sasrec.recommend([Query(history=["i01"], k=10_000)])
    assert sorted(answer.items) == [n for n in NAMES if n != "i01"]
    assert len(answer.scores) == N_ITEMS - 1


queries = st.builds(
    Query,
    history=st.lists(st.sampled_from([*NAMES, "x", "y"]), max_size=12),
    k=st.integers(1, 50),
    exclude=st.lists(st.sampled_from([*NAMES, "z"]), max_size=12),
    allow=st.none() | st.lists(st.sampled_from([*NAMES, "z"]), max_size=30),
    exclude_seen=st.none() | st.booleans(),
)


@pytest.mark.parametrize("name", ["sasrec", "markov"])
@settings(max_examples=60, deadline=None)
@given(asked=st.lists(queries, min_size=1, max_size=5))
def test_never_an_excluded_item_and_always_a_full_list(
    recommenders: dict[str, Recommender], name: str, asked: list[Query]
) -> None:
    for query, answer in zip(asked, recommenders[name].recommend(asked), strict=True):
        history = query.history or []
        left = set(NAMES if query.allow is None else query.allow) & set(NAMES)
        left -= set(query.exclude) | (set() if query.exclude_seen is False else set(history))
        assert len(answer.items) == len(set(answer.items)) == min(query.k, len(left))
        assert set(answer.items) <= left
        assert answer.scores == sorted(answer.scores, reverse=True)
        assert set(answer.unknown) == set(history) - set(NAMES)
        assert set(answer.unknown_excluded) == set(query.exclude) - set(NAMES)


def test_a_batch_answers_as_each_alone(recommenders: dict[str, Recommender]) -> None:
    asked = [
        at_once(["i01"] * n + ["i02"], k=n + 1, allow=None if n % 2 else NAMES[:20])
        for n in range(8)
    ]
    for recommender in recommenders.values():
        together = recommender.recommend(asked)
        for query, answer in zip(asked, together, strict=True):
            (alone,) = recommender.recommend([query])
            assert answer.items == alone.items
            assert answer.scores == pytest.approx(alone.scores, rel=1e-5)
        assert recommender.recommend([]) == []


def test_many_threads_get_what_one_gets(sasrec: Recommender) -> None:
    asked = [Query(history=[item_name(i), item_name(i % 7 + 1)], k=9) for i in range(1, 41)] * 5
    alone = [sasrec.recommend([query])[0] for query in asked]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda query: sasrec.recommend([query])[0], asked))
    assert together == alone


def test_similar_is_the_cosine_of_item_vectors(sasrec: Recommender) -> None:
    answer = sasrec.similar(["i04", "x", "i09", "i04"], k=6)
    assert list(answer) == ["i04", "i09"]
    table = fitted().state_dict()["item_table.weight"]
    for name, mine in (("i04", 4), ("i09", 9)):
        cosine = torch.nn.functional.cosine_similarity(table, table[mine : mine + 1], dim=1)
        order = [i for i in cosine.argsort(descending=True).tolist() if i not in (0, mine)][:6]
        assert answer[name].items == [item_name(i) for i in order]
        assert answer[name].scores == pytest.approx(cosine[order].tolist(), rel=1e-4)
    assert sasrec.similar(["x"], k=3) == {}


@pytest.mark.parametrize("name", ["sasrec", "markov"])
def test_requests_for_likeness_share_one_comparison(
    recommenders: dict[str, Recommender], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [(["i04", "x", "i09"], 3), (["i09"], 6), (["x"], 2), ([], 1), (["i07", "i04"], 50)]
    alone = [recommenders[name].similar(*one) for one in asked]
    compared: list[list[int]] = []
    likeness = Likeness._scores

    def counted(self: Likeness, known: Any, own: Any) -> Any:
        compared.append(known.tolist())
        return likeness(self, known, own)

    monkeypatch.setattr(Likeness, "_scores", counted)
    together = recommenders[name].similar_batch(asked)
    assert compared == [[4, 9, 7]]
    monkeypatch.setattr("recsys.recommender.likeness.block_rows", lambda width: 2)
    blocks = recommenders[name].similar_batch(asked)
    assert compared[1:] == [[4, 9], [7]]
    for found in (together, blocks):
        assert [list(one) for one in found] == [list(one) for one in alone]
        for one, other in zip(found, alone, strict=True):
            for item in one:
                assert one[item].items == other[item].items
                assert one[item].scores == pytest.approx(other[item].scores, rel=1e-5)
    assert recommenders[name].similar_batch([]) == []


def test_similar_without_vectors_asks_what_follows(recommenders: dict[str, Recommender]) -> None:
    answer = recommenders["markov"].similar(["i04"], k=4)["i04"]
    assert answer.items == expected("markov", [4], 4, {4})[0]


def test_batches_of_users_stream(sasrec: Recommender) -> None:
    tables = list(sasrec.recommend_batch(k=4, block=5))
    assert [t["user_id"].n_unique() for t in tables] == [5, 5, 2]
    whole = pl.concat(tables)
    assert whole.columns == ["user_id", "rank", "item_id", "score", "fallback", "model_version"]
    assert whole["rank"].to_list() == [1, 2, 3, 4] * N_USERS
    for user in ("u00", "u03", "u11"):
        (answer,) = sasrec.recommend([Query(user_id=user, k=4)])
        mine = whole.filter(pl.col("user_id") == user)
        assert mine["item_id"].to_list() == answer.items
        assert mine["fallback"].to_list() == [answer.fallback] * 4
    named = pl.concat(sasrec.recommend_batch(["u03", "stranger"], k=2))
    assert named["user_id"].to_list() == ["u03", "u03", "stranger", "stranger"]
    assert named["fallback"].to_list() == [None, None, "unknown_user", "unknown_user"]
    assert set(named["model_version"]) == {f"sasrec@{sasrec.bundle.version}"}


def test_batches_without_users_need_names(tmp_path: Path) -> None:
    recommender = Recommender(load_bundle(make_bundle(tmp_path, users=None, store=None)))
    with pytest.raises(DataError, match="holds no users"):
        next(recommender.recommend_batch())
    (answer,) = recommender.recommend([Query(user_id="u03")])
    assert answer.fallback == "unknown_user"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (Query(), "either a history or a user_id"),
        (Query(history=[], user_id="u"), "either a history or a user_id"),
        (Query(history=["i01"], k=0), "k is 0"),
        (Query(history=["i01"], repeat_window=0), "window is 0; it must be at least 1"),
        (Query(history=["i01"], repeat_window=3, exclude_seen=False), "give one of the two"),
        (Query(history=["i01"], times=[1, 2]), "2 times for a history of 1"),
    ],
)
def test_malformed_queries_are_refused(sasrec: Recommender, query: Query, message: str) -> None:
    with pytest.raises(DataError, match=message):
        sasrec.recommend([query])


def test_stages_are_timed(sasrec: Recommender) -> None:
    told: dict[str, float] = {}
    Recommender(sasrec.bundle, observe=told.__setitem__).recommend([Query(history=["i01"])])
    assert list(told) == ["resolve", "encode", "search", "answer"]
    assert all(seconds > 0 for seconds in told.values())
