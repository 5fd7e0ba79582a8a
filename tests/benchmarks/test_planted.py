"""The logs with a planted truth say what they mean to, and a part of UniRec finds its effect."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planted import (
    BEGIN,
    ERA,
    GAP_HOURS,
    HOUR,
    ITEMS,
    KEYS,
    RARE_GROUPS,
    RARE_ITEMS,
    SCENARIOS,
    WIDE,
    Planted,
    plant,
)
from planted_study import (
    COMPACT,
    NO_INTERVAL,
    Question,
    answer,
    key_of,
    name_of,
    questions,
    store,
)

from recsys.config import UniRecConfig
from recsys.data.batches import batch_from_lists
from recsys.training.enhancements import irregular_parts, rare_in_parts, regular_users

USERS = 400


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_log_is_a_function_of_its_seed(scenario: str) -> None:
    one, again, other = plant(scenario, 60), plant(scenario, 60), plant(scenario, 60, seed=1)
    assert np.array_equal(one.store.items, again.store.items)
    assert np.array_equal(one.store.timestamps, again.store.timestamps)
    assert not np.array_equal(one.store.items[:50], other.store.items[:50])
    asked = np.concatenate([one.split.validation.user, one.split.test.user])
    assert len(np.unique(asked)) == len(asked)
    assert (one.split.train_end[one.split.test.user] < one.split.test.start).all()
    assert one.store.n_items < (WIDE + 1 if scenario == "returns" else 2000)


def predictable(planted: Planted, states: np.ndarray, asked: np.ndarray | bool = True) -> float:
    """Return how often the next item is the most frequent one after (newest item, its state)."""
    store = planted.store
    inside = np.ones(store.n_events, dtype=bool)
    inside[store.offsets[1:] - 1] = False
    at = np.flatnonzero(inside & asked)
    pair = states[at] * (store.n_items + 1) + store.items[at]
    counts = np.zeros((pair.max() + 1, store.n_items + 1))
    np.add.at(counts, (pair, store.items[at + 1]), 1)
    return float(counts.max(1).sum() / counts.sum())


def gaps_in_hours(planted: Planted) -> np.ndarray:
    times = planted.store.timestamps
    assert times is not None
    gaps = np.diff(times, prepend=times[0]) / HOUR
    gaps[planted.store.offsets[:-1]] = 1.0
    return gaps


def test_what_is_planted_is_there_and_alone() -> None:
    """Nine in ten next items follow from item and state; from the item alone far fewer."""
    gap = plant("gap")
    edges = np.sqrt(np.array(GAP_HOURS[:-1]) * np.array(GAP_HOURS[1:]))
    kinds = np.searchsorted(edges, gaps_in_hours(gap))
    assert predictable(gap, kinds) > 0.88
    assert predictable(gap, np.zeros_like(kinds)) < 0.45
    calendar = plant("calendar")
    assert calendar.store.timestamps is not None
    quarters = calendar.store.timestamps // HOUR % 24 // 6
    assert predictable(calendar, quarters) > 0.88
    assert predictable(calendar, np.zeros_like(quarters)) < 0.45
    regular = plant("regularity")
    owner = np.repeat(np.arange(regular.store.n_users), np.diff(regular.store.offsets))
    deciding = regular.store.items <= KEYS
    # A tenth is noise, and what comes before the last of these items is a draw, too.
    assert predictable(regular, owner % 2, deciding) > 0.84
    assert predictable(regular, owner * 0, deciding) < 0.6
    assert predictable(regular, owner % 2, ~deciding) < 0.2
    assert deciding[regular.split.test.start - 1].all()
    variance = regular.statistics.user_gap_variance
    assert variance is not None and variance[::2].max() < variance[1::2].max()
    drift = plant("drift")
    assert drift.store.timestamps is not None
    eras = np.minimum((drift.store.timestamps - BEGIN) // (24 * HOUR * ERA), 3)
    assert predictable(drift, eras) > 0.88
    assert predictable(drift, np.zeros_like(eras)) < 0.45
    assert (eras[drift.split.test.start - 1] == 3).all()
    assert predictable(plant("null"), np.zeros(10**6, dtype=int)) > 0.88


def test_rare_items_have_their_frequent_one_among_their_neighbours() -> None:
    planted = plant("rare")
    rare = np.arange(RARE_GROUPS + 1, planted.store.n_items + 1)
    assert planted.statistics.item_counts[rare].mean() < 12
    own = (rare - RARE_GROUPS - 1) // RARE_ITEMS + 1
    assert planted.statistics.neighbours is not None
    assert (planted.statistics.neighbours[rare] == own[:, None]).any(1).mean() > 0.65
    asked = planted.split.test.start
    assert (planted.store.items[asked - 1] > RARE_GROUPS).all()
    assert (planted.store.items[asked] <= RARE_GROUPS).all()


def test_irregular_histories_are_the_thinned_regular_ones() -> None:
    planted = plant("thinned", 200)
    store, asked = planted.store, planted.split.test
    for user, start in zip(asked.user.tolist(), asked.start.tolist(), strict=True):
        history = store.items[store.offsets[user] : start]
        assert (history[:-2] <= ITEMS).all() and (history[-2:] > ITEMS).all()
        assert planted.data.lengths[user] == 0
    assert not set(asked.user) & set(planted.statistics.uniform_users().nonzero()[0])


def test_the_parts_of_regular_histories_keep_their_walks() -> None:
    """So that what is trained on is what is asked about: rare items and the two newest."""
    [thinned] = [
        q for q in questions()
        if (q.scenario, q.form, q.part) == ("thinned", "compact", "sequence enhancement, target")
    ]  # fmt: skip
    config = UniRecConfig(**thinned.having)
    planted = plant("thinned", 400)
    regular = regular_users(config, planted.statistics)
    rare = rare_in_parts(config, planted.statistics)
    assert rare[1 : ITEMS + 1].all() and not rare[ITEMS + 1 :].any()
    store, users = planted.store, np.flatnonzero(regular & (planted.data.lengths > 0))
    histories = [
        store.items[a:b].tolist()
        for a, b in zip(store.offsets[users], planted.split.train_end[users], strict=True)
    ]
    batch = replace(batch_from_lists(histories, None, 40), users=torch.from_numpy(users))
    parts = irregular_parts(batch, regular, rare)
    assert parts is not None and len(users) > 100
    for place, history in zip(parts.batch.last.tolist(), histories, strict=True):
        kept = parts.batch.items.flatten()[: place + 1].tolist()
        expected = [i for i in history[:-2] if i <= ITEMS] + history[-2:]
        assert kept[-len(expected) :] == expected


def test_every_part_is_asked_about_and_nothing_is_asked_twice() -> None:
    asked = questions()
    assert len({(q.scenario, q.part, q.form) for q in asked}) == len(asked)
    assert {q.scenario for q in asked} == set(SCENARIOS)  # none is left out
    assert all(q.having != q.lacking for q in asked)


def test_what_is_asked_about_comes_back() -> None:
    """And what follows an item tells next to nothing."""
    returns = plant("returns")
    store, asked = returns.store, returns.split.test
    begin = store.offsets[asked.user]
    assert all(
        store.items[at] in store.items[first:at]
        for first, at in zip(begin.tolist(), asked.start.tolist(), strict=True)
    )
    new = [len(set(store.items[a:b])) for a, b in zip(begin, asked.start, strict=True)]
    assert 0.4 < sum(new) / (asked.start - begin).sum() < 0.7
    assert returns.statistics.item_counts[1:].mean() < 5


def test_answers_of_before_are_kept_if_they_were_asked_alike(tmp_path: Path) -> None:
    one, other, *left = questions()
    options = argparse.Namespace(
        users=5, epochs=1, seeds=[0], only=one.part, output=tmp_path / "planted.json"
    )

    def stored(*asked: tuple[Question, float], rest: list[Question]) -> dict[str, Any]:
        rows = [
            {
                "scenario": q.scenario,
                "part": q.part,
                "form": q.form,
                "key": key_of(q),
                "with": value,
            }
            for q, value in asked
        ]
        store(rows, rest, options)
        found: dict[str, Any] = json.loads(options.output.read_text())
        return found

    stored((one, 0.1), (other, 0.2), rest=left)
    again = stored((one, 0.3), rest=[])
    assert [row["with"] for row in again["answers"]] == [0.3, 0.2]
    assert len(again["not_asked"]) == len(left)
    kept = options.output.read_text()
    options.epochs = 2
    with pytest.raises(
        SystemExit, match=r"was asked otherwise \(command, settings\): ask all again"
    ):
        stored((one, 0.4), rest=[])
    assert options.output.read_text() == kept
    options.epochs = 1
    options.output.write_text(kept.replace(key_of(other), "0" * 16))
    with pytest.raises(SystemExit, match=f"otherwise \\({re.escape(name_of(other))}\\)"):
        stored((one, 0.4), rest=[])


@pytest.mark.slow
def test_the_interval_part_finds_its_effect(tmp_path: Path) -> None:
    question = Question("gap", "interval", "compact", COMPACT, COMPACT | NO_INTERVAL)
    options = argparse.Namespace(users=USERS, epochs=12, seeds=[0], work=tmp_path)
    found = answer(question, options)
    assert found["met"], found
    assert found["relative_gain"][0] > 0.1
    kept = {path: np.load(path) for path in tmp_path.glob("*.npy")}
    assert len(kept) == 2  # a model each, which the second time is not trained
    for path, figures in kept.items():
        np.save(path, np.ones_like(figures))
    assert answer(question, options)["relative_gain"] == [0.0, 0.0, 0.0]
