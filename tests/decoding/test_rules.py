"""What lists must and must not hold, and codes that only spell items."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from table_decoder import PLAIN, every_list, lists_of, nobody, random_decoder

from recsys.decoding import Catalogue, Quota, Rules, SearchSettings, search
from recsys.decoding.trie import Trie
from recsys.errors import DataError

LABELS = np.array([-1, 0, 0, 0, 1, 1, 2, 2, -1, -1])
"""Of items 1..9; the last two have none."""
CODES = np.array([[1, 1, 2], [1, 2, 3], [1, 2, 1], [3, 1, 1], [2, 2, 2]])


def keeps(one: tuple[int, ...], rules: Rules) -> bool:
    """Tell by hand whether a list keeps the rules."""
    allowed = rules.allowed is None or set(one) <= set(rules.allowed.tolist())
    counts = [LABELS[item] for item in one if LABELS[item] >= 0]
    limited = all(counts.count(label) <= q.limit for q in rules.quotas for label in counts)
    return (
        allowed
        and limited
        and len(set(one)) == len(one)
        and not set(one) & set(rules.forbidden.tolist())
        and set(rules.required.tolist()) <= set(one)
    )


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_wide_search_finds_every_list_that_keeps_the_rules(data: st.DataObject) -> None:
    items = st.lists(st.integers(1, 9), max_size=3, unique=True)
    limit = data.draw(st.sampled_from([None, 1, 2]))
    rules = Rules(
        forbidden=np.array(sorted(data.draw(items)), dtype=np.int64),
        allowed=None if data.draw(st.booleans()) else np.array([1, 2, 4, 6, 7, 8, 9]),
        required=np.array(data.draw(st.lists(st.integers(1, 9), max_size=2, unique=True)), dtype=np.int64),
        quotas=() if limit is None else (Quota("artist", LABELS, limit),),
    )  # fmt: skip
    decoder = random_decoder(9, 0)
    every = {one: p for one, p in every_list(decoder, 3).items() if keeps(one, rules)}
    if not every:
        with pytest.raises(DataError):
            lists_of(decoder, 3, rules, groups=1, beams=504, candidates=504, repeats=False)
        return
    found = lists_of(decoder, 3, rules, groups=1, beams=504, candidates=504, repeats=False)
    live = ~np.isneginf(found.score[0])
    assert {tuple(one) for one in found.items[0][live].tolist()} == set(every)
    best = sorted(every.values(), reverse=True)
    assert found.log_probability[0][live] == pytest.approx(best, abs=1e-5)


def test_a_quota_keeps_room_for_what_is_required() -> None:
    """Item 1 shares its label with the required item 3, of whose label one may come."""
    rules = Rules(required=np.array([3]), quotas=(Quota("artist", LABELS, 1),))
    found = lists_of(random_decoder(9, 1), 4, rules, groups=2, beams=2, repeats=False)
    for one in found.items[0].tolist():
        assert 3 in one and not {1, 2} & set(one)


def test_a_short_shortlist_grows_until_the_rules_are_met() -> None:
    """The best candidates all share one label; the quota would leave a group without any."""
    decoder = random_decoder(40, 0)
    best = np.argsort(-np.array(decoder.row(())))[:20] + 1
    labels = np.full(41, 1)
    labels[best], labels[0] = 0, -1
    wide = np.arange(41)
    wide[best] = best[0]
    rules = Rules(quotas=(Quota("artist", wide, 1),), forbidden=np.array([], dtype=np.int64))
    found = lists_of(decoder, 5, rules, groups=2, beams=2, candidates=4, repeats=False)
    assert (found.items[0] > 0).all()
    for one in found.items[0].tolist():
        assert len(set(one) & set(best.tolist())) <= 1


def test_repeats_are_allowed_if_asked() -> None:
    """A decoder that loves one item repeats it."""
    decoder = random_decoder(3, 0)
    decoder.row = lambda chosen: [0.0, -1.0, -2.0]
    assert lists_of(decoder, 4, groups=1, beams=1).items[0, 0].tolist() == [1] * 4
    once = lists_of(decoder, 3, groups=1, beams=1, repeats=False)
    assert once.items[0, 0].tolist() == [1, 2, 3]


def test_every_code_is_an_items() -> None:
    trie = Trie(CODES)
    decoder = random_decoder(3, 5)
    asked = SearchSettings(groups=1, beams=8, candidates=8, **PLAIN)
    found = search(Catalogue(decoder), nobody(), 3, asked, trie=trie)
    live = ~np.isneginf(found.score[0])
    spelled = trie.items_of(found.items[0][live])
    assert sorted(spelled.tolist()) == [1, 2, 3, 4, 5]
    values = every_list(decoder, 3)
    expected = sorted((values[tuple(code)] for code in CODES.tolist()), reverse=True)
    assert found.log_probability[0][live] == pytest.approx(expected, abs=1e-5)


def test_a_code_is_completed_by_one_group_only() -> None:
    trie = Trie(CODES).without(np.array([2]))
    asked = SearchSettings(
        groups=4, beams=1, candidates=8, diversity=0.0, scope="step", sets=False, repeats=True
    )
    found = search(Catalogue(random_decoder(3, 5)), nobody(), 3, asked, trie=trie)
    items = trie.items_of(found.items[0][~np.isneginf(found.score[0])])
    assert len(set(items.tolist())) == len(items) and (items > 0).all()


def test_the_trie_by_hand() -> None:
    trie = Trie(CODES)
    tokens = np.arange(4)[None].repeat(3, axis=0)
    open_ = trie.permits(np.array([[1], [3], [7]]), tokens)
    assert open_.tolist() == [[False, True, True, False], [False, True, False, False], [False] * 4]
    assert trie.items_of(np.array([[1, 2, 1], [1, 1, 1]])).tolist() == [3, 0]
    for prefix in itertools.product((1, 2, 3), repeat=2):
        after = {code[2] for code in CODES.tolist() if tuple(code[:2]) == prefix}
        permitted = trie.permits(np.array([prefix]), np.array([[1, 2, 3]]))[0]
        assert set((np.flatnonzero(permitted) + 1).tolist()) == after
    with pytest.raises(DataError, match="items 1 and 3 have the same code"):
        Trie(np.array([[1, 2], [1, 1], [1, 2]]))
    with pytest.raises(DataError, match="token 0"):
        Trie(np.array([[0, 2]]))
    with pytest.raises(DataError, match="codes have 3 tokens"):
        search(Catalogue(random_decoder(3, 5)), nobody(), 2, SearchSettings(), trie=trie)
