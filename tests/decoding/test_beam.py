"""The search against hand-computed cases, brute force and itself."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from table_decoder import (
    PLAIN,
    TableDecoder,
    decoder_of,
    every_list,
    lists_of,
    nobody,
    random_decoder,
)

from recsys.decoding import Catalogue, Lists, Rules, SearchSettings, search
from recsys.errors import DataError

A, B, C = 1, 2, 3
ONE = {(): (0.5, 0.3, 0.2)}
TWO = {**ONE, (A,): (0.4, 0.35, 0.25), (B,): (0.6, 0.25, 0.15), (C,): (0.34, 0.34, 0.32)}


def first_request(found: Lists) -> list[list[int]]:
    lists: list[list[int]] = found.items[0].tolist()
    return lists


def group(found: Lists, number: int) -> set[tuple[int, ...]]:
    beams = found.items.shape[1] // found.groups
    return {tuple(row) for row in found.items[0, number * beams : (number + 1) * beams].tolist()}


@pytest.mark.parametrize(
    ("diversity", "count", "presence"),
    [
        (0.2, [A, A, A], [A, A, A]),
        (0.25, [A, A, A], [A, A, A]),
        (0.26, [A, A, B], [A, A, A]),
        (0.51, [A, A, B], [A, A, A]),
        (0.52, [A, B, A], [A, B, A]),
        (0.91, [A, B, A], [A, B, A]),
        (0.92, [A, B, C], [A, B, C]),
    ],
)
def test_thresholds_of_count_and_presence(
    diversity: float, count: list[int], presence: list[int]
) -> None:
    """Between 1/2 ln 5/3, ln 5/3 and ln 5/2 three greedy groups choose as computed by hand."""
    decoder = decoder_of(ONE)
    for kind, expected in (("hamming", count), ("presence", presence)):
        settings = {"groups": 3, "beams": 1, "diversity": diversity, "dissimilarity": kind}
        found = lists_of(decoder, 1, **settings)
        assert [row[0] for row in first_request(found)] == expected


@pytest.mark.parametrize(
    ("diversity", "accumulate", "second"),
    [
        (0.8, True, {(A, B), (C, B)}),
        (0.8, False, {(A, B), (A, C)}),
        (0.5, True, {(A, B), (A, C)}),
        (0.5, False, {(A, B), (A, C)}),
    ],
)
def test_penalties_accumulate_or_count_in_their_step(
    diversity: float, accumulate: bool, second: set[tuple[int, ...]]
) -> None:
    """Two groups of two lists, two steps."""
    settings = {"groups": 2, "beams": 2, "diversity": diversity, "accumulate": accumulate}
    found = lists_of(decoder_of(TWO), 2, **settings)
    assert group(found, 0) == {(A, A), (B, A)}
    expected = lists_of(decoder_of(TWO), 2, groups=1, beams=2)
    assert group(found, 0) == group(expected, 0)
    assert group(found, 1) == second


@pytest.mark.parametrize("seed", range(5))
def test_a_wide_beam_is_brute_force(seed: int) -> None:
    decoder = random_decoder(4, seed)
    everything = every_list(decoder, 3)
    best = sorted(everything, key=lambda one: -everything[one])
    found = lists_of(decoder, 3, groups=1, beams=64)
    assert [tuple(row) for row in first_request(found)] == best
    assert found.log_probability[0] == pytest.approx([everything[one] for one in best], abs=1e-5)
    assert found.score[0] == pytest.approx(found.log_probability[0], abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_a_wide_beam_without_repeats_is_brute_force_over_sets(seed: int) -> None:
    decoder = random_decoder(5, seed)
    everything = every_list(decoder, 3)
    ordered = {one: p for one, p in everything.items() if len(set(one)) == 3}
    found = lists_of(decoder, 3, groups=1, beams=60, repeats=False)
    assert {tuple(row) for row in first_request(found)} == set(ordered)
    found = lists_of(decoder, 3, groups=1, beams=20, repeats=False, sets=True)
    live = found.items[0][found.items[0, :, 0] > 0]
    assert len(live) == 10, "of 5 items there are 10 sets of 3, each found once"
    assert len({frozenset(row) for row in live.tolist()}) == 10
    for row, value in zip(live.tolist(), found.log_probability[0], strict=False):
        assert value == pytest.approx(ordered[tuple(row)], abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_one_group_is_beam_search(seed: int) -> None:
    """Against the textbook's: keep the best `width` of all extensions, step by step."""
    decoder, width, steps = random_decoder(6, seed), 3, 4
    beam: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    for _ in range(steps):
        grown = [
            ((*one, item + 1), p + gain)
            for one, p in beam
            for item, gain in enumerate(decoder.row(one))
        ]
        beam = sorted(grown, key=lambda pair: -pair[1])[:width]
    found = lists_of(decoder, steps, groups=1, beams=width, diversity=3.0)
    assert [tuple(row) for row in first_request(found)] == [one for one, _ in beam]
    assert found.log_probability[0] == pytest.approx([p for _, p in beam], abs=1e-5)


def test_without_strength_groups_are_copies() -> None:
    found = lists_of(random_decoder(6, 1), 4, groups=3, beams=2, diversity=0.0)
    alone = lists_of(random_decoder(6, 1), 4, groups=1, beams=2)
    for number in range(3):
        part = slice(2 * number, 2 * number + 2)
        assert np.array_equal(found.items[0, part], alone.items[0])


@pytest.mark.parametrize("kind", ["hamming", "presence"])
def test_great_strength_gives_distinct_items_in_every_step(kind: str) -> None:
    found = lists_of(random_decoder(7, 2), 5, groups=7, beams=1, diversity=1e3, dissimilarity=kind)
    for place in range(5):
        assert len(set(found.items[0, :, place].tolist())) == 7


@pytest.mark.parametrize("kind", ["hamming", "cumulative", "ngram"])
def test_staggered_groups_of_one_list_are_lockstep(kind: str) -> None:
    """With one list a group, a whole group may be finished before the next begins."""
    decoder, groups, steps, strength = random_decoder(6, 4), 4, 4, 0.7
    done: list[tuple[int, ...]] = []
    for _ in range(groups):
        one: tuple[int, ...] = ()
        for place in range(steps):
            values = []
            for item, gain in enumerate(decoder.row(one), start=1):
                grown = (*one, item)
                earlier = [other[: place + 1] for other in done]
                values.append(gain - strength * by_hand(kind, grown, earlier))
            one = (*one, 1 + int(np.argmax(values)))
        done.append(one)
    found = lists_of(decoder, steps, groups=groups, beams=1, diversity=strength, dissimilarity=kind)
    assert [tuple(row) for row in first_request(found)] == done


def by_hand(kind: str, one: tuple[int, ...], earlier: list[tuple[int, ...]]) -> float:
    """The penalty of a list's newest item, the slow way."""
    match kind:
        case "hamming":
            return sum(other[-1] == one[-1] for other in earlier)
        case "cumulative":
            pairs = [sum(x != y for x, y in zip(one, other, strict=True)) for other in earlier]
            return sum(math.exp(-differ / 5.0) for differ in pairs)
        case "ngram":
            grams = [pair for other in earlier for pair in itertools.pairwise(other)]
            return grams.count(one[-2:]) if len(one) > 1 else 0
    raise AssertionError(kind)


@pytest.mark.parametrize("seed", range(3))
def test_a_mask_is_a_search_of_the_sub_vocabulary(seed: int) -> None:
    """Scores are those of the whole vocabulary, not normalised anew."""
    decoder, allowed = random_decoder(8, seed), np.array([2, 3, 5, 8])
    sub = TableDecoder(
        4,
        lambda chosen: [
            decoder.row(tuple(int(allowed[i - 1]) for i in chosen))[item - 1] for item in allowed
        ],
    )
    settings = {"groups": 2, "beams": 2, "diversity": 0.6}
    whole = lists_of(decoder, 3, Rules(allowed=allowed), **settings)
    blocked = lists_of(decoder, 3, Rules(forbidden=np.array([1, 4, 6, 7])), **settings)
    # The sub-vocabulary's rows are not normalised; the search normalises, a shift by list.
    assert np.array_equal(whole.items, blocked.items)
    for row, value in zip(first_request(whole), whole.log_probability[0], strict=True):
        assert set(row) <= set(allowed.tolist())
        one = tuple(row)
        exact = sum(decoder.row(one[:i])[item - 1] for i, item in enumerate(one))
        assert value == pytest.approx(exact, abs=1e-5)
    names = {tuple(int(allowed[i - 1]) for i in one) for one in every_list(sub, 3)}
    wide = lists_of(decoder, 3, Rules(allowed=allowed), groups=1, beams=64)
    assert {tuple(row) for row in first_request(wide)} == names
    values = every_list(sub, 3)
    best = sorted(values, key=lambda one: -values[one])
    assert [tuple(row) for row in first_request(wide)] == [
        tuple(int(allowed[i - 1]) for i in one) for one in best
    ]


def test_no_two_groups_finish_the_same_list() -> None:
    for sets in (False, True):
        found = lists_of(
            random_decoder(6, 0), 3, groups=4, beams=2, diversity=0.0, distinct=True, sets=sets,
            repeats=False,
        )  # fmt: skip
        rows = [tuple(sorted(row)) if sets else tuple(row) for row in first_request(found)]
        assert len(set(rows)) == 8


@pytest.mark.parametrize("sets", [True, False])
@pytest.mark.parametrize("required", [[4], [4, 6], [2, 4, 6]])
def test_groups_stay_distinct_with_required_items(required: list[int], sets: bool) -> None:
    """What is forced in at the end may not make two lists equal, nor leave a group without one."""
    for seed in range(4):
        found = lists_of(
            random_decoder(9, seed), 4, Rules(required=np.array(required)), groups=3, beams=1,
            diversity=0.1, distinct=True, sets=sets, repeats=False,
        )  # fmt: skip
        rows = [tuple(sorted(row)) if sets else tuple(row) for row in first_request(found)]
        assert len(set(rows)) == 3
        assert all(set(required) <= set(row) for row in rows)


def test_a_list_with_nothing_left_is_dead_and_never_nan() -> None:
    found = lists_of(random_decoder(3, 0), 3, groups=2, beams=20, repeats=False)
    assert not np.isnan(found.score).any()
    dead = np.isneginf(found.score[0])
    assert dead.sum() == 2 * (20 - 6)
    assert (found.items[0][dead] == 0).all()
    assert np.array_equal(np.isneginf(found.log_probability[0]), dead)


def test_gains_add_up_and_requests_do_not_disturb_each_other() -> None:
    decoder = random_decoder(9, 3)
    settings = SearchSettings(groups=2, beams=2, candidates=100, **PLAIN)
    rules = [Rules(), Rules(forbidden=np.array([1, 2, 3])), Rules(required=np.array([4]))]
    together = search(Catalogue(decoder), nobody(3), 3, settings, rules)
    for row, rule in enumerate(rules):
        alone = search(Catalogue(decoder), nobody(), 3, settings, [rule])
        assert np.array_equal(together.items[row], alone.items[0])
        assert together.score[row] == pytest.approx(alone.score[0])
    assert together.gains.sum(2) == pytest.approx(together.log_probability)


def test_what_cannot_be_is_said() -> None:
    decoder = random_decoder(4, 0)
    with pytest.raises(DataError, match="at least 1"):
        lists_of(decoder, 0)
    with pytest.raises(DataError, match="only 2 items may be shown"):
        lists_of(decoder, 3, Rules(forbidden=np.array([1, 4])), repeats=False)
    with pytest.raises(DataError, match="2 histories, but rules for 1"):
        search(Catalogue(decoder), nobody(2), 2, SearchSettings(), [Rules()])
    with pytest.raises(DataError, match="needs the items' labels"):
        lists_of(decoder, 2, dissimilarity="category")
    with pytest.raises(DataError, match="needs item vectors"):
        lists_of(decoder, 2, dissimilarity="vector")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"groups": 0}, "groups is 0"),
        ({"diversity": -1.0}, "diversity is -1"),
        ({"diversity": math.nan}, "diversity is nan"),
        ({"decay": 0.0}, "decay is 0"),
        ({"dissimilarity": "hammming"}, "allowed are hamming, presence"),
        ({"scope": "all"}, "allowed are step, list"),
        ({"candidates": 3}, "too few for 8 lists"),
    ],
)
def test_settings_are_checked(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        SearchSettings(**wrong)  # type: ignore[arg-type]


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match="not finite"):
        lists_of(TableDecoder(3, lambda chosen: [0.0, math.nan, 0.0]), 2)
    assert torch.is_grad_enabled()
