"""Probes find what is there, nothing where nothing is, and say what guessing would reach."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from recsys.config.probes import ProbeConfig
from recsys.data.sequences import Int32, SequenceStore
from recsys.errors import DataError
from recsys.evaluation.probes.changes import changed
from recsys.evaluation.probes.classify import accuracy_row, predict_across_folds
from recsys.evaluation.probes.lists import ProbeLists, choose_lists, label_of, read_labels
from recsys.evaluation.probes.retrieval import RECALLS, chance, interpolated_precision
from recsys.evaluation.probes.suite import Suite, facts, labels_of_lists, song_content

N_ITEMS = 30


def config(**settings: Any) -> ProbeConfig:
    return ProbeConfig(**{"min_songs": 4, "min_class": 5, "bootstrap": 200, **settings})


def random_lists(count: int = 60, seed: int = 0) -> ProbeLists:
    """Lists of two kinds: of songs 1..15 or of 16..30, in rising order."""
    rng = np.random.default_rng(seed)
    songs = []
    for place in range(count):
        low = 1 if place % 2 == 0 else 16
        size = int(rng.integers(6, 12))
        songs.append(np.sort(rng.choice(np.arange(low, low + 15), size, replace=False)))
    return ProbeLists(np.arange(count), [one.astype(np.int32) for one in songs])


def bag(lists: list[Int32]) -> npt.NDArray[np.float32]:
    """Counts of songs: all of a list but its order."""
    return np.stack([np.bincount(one, minlength=N_ITEMS + 1) for one in lists]).astype(np.float32)


def ordered(lists: list[Int32]) -> npt.NDArray[np.float32]:
    """Counts, and how far the list rises: what tells it from its permutations."""
    rise = [[np.diff(one).clip(-1, 1).mean()] for one in lists]
    return np.concatenate([bag(lists), np.array(rise, dtype=np.float32)], axis=1)


@pytest.mark.parametrize("change", ["shuffle", "block", "reverse"])
@pytest.mark.parametrize("share", [0.2, 0.6, 1.0])
def test_a_change_moves_so_many_songs_and_loses_none(change: Any, share: float) -> None:
    rng = np.random.default_rng(0)
    items = np.arange(1, 21, dtype=np.int32)
    moved = set[int]()
    for _ in range(30):
        other = changed(items, change, share, rng)
        assert other is not None
        assert sorted(other.tolist()) == items.tolist()
        places = np.flatnonzero(other != items)
        assert 2 <= len(places) <= 20 * share
        if change != "shuffle":
            assert places[-1] - places[0] < 20 * share
        if change == "reverse":
            part = slice(places[0], places[-1] + 1)
            assert other[part].tolist() == items[part].tolist()[::-1]
        moved |= set(places.tolist())
    assert len(moved) == 20
    assert (items == np.arange(1, 21)).all()


def test_lists_that_have_no_other_order() -> None:
    rng = np.random.default_rng(0)
    assert changed(np.array([5, 5, 5], dtype=np.int32), "shuffle", 1.0, rng) is None
    assert changed(np.array([5], dtype=np.int32), "reverse", 1.0, rng) is None
    assert changed(np.array([], dtype=np.int32), "block", 1.0, rng) is None
    only = changed(np.array([5, 5, 7], dtype=np.int32), "reverse", 1.0, rng)
    assert only is not None and only.tolist() == [7, 5, 5]


def test_whoever_does_not_see_order_is_right_about_exactly_one_of_two() -> None:
    suite = Suite(random_lists(), (), config(shares=[0.2, 1.0]), seed=1)
    for row in suite.ask(bag):
        assert row["task"] == "permutation"
        assert row["value"] == pytest.approx(0.5, abs=1e-12)
        assert (row["base"], row["low"], row["high"]) == (0.5, 0.5, 0.5)
        assert row["base_low"] < 0.5 < row["base_high"]
        assert (row["lists"], row["examples"], row["classes"]) == (60, 120, 2)


def test_whoever_sees_order_is_found_out() -> None:
    suite = Suite(random_lists(), (), config(shares=[1.0], changes=["shuffle", "reverse"]), seed=1)
    rows = {row["detail"]: row for row in suite.ask(ordered)}
    assert rows["reverse 100%"]["value"] == 1.0
    assert rows["shuffle 100%"]["value"] > 0.95
    assert rows["shuffle 100%"]["low"] > rows["shuffle 100%"]["base_high"]


@pytest.mark.parametrize("classifier", ["logistic", "mlp"])
def test_labels_that_are_in_the_vectors_are_read_and_others_are_not(classifier: Any) -> None:
    lists, settings = random_lists(200), config(classifier=classifier, songs=2)
    rng = np.random.default_rng(0)
    table = pl.DataFrame(
        {"kind": ["low", "high"] * 100, "noise": rng.choice(["a", "b", "b"], 200).tolist()}
    )
    labels, without = labels_of_lists(lists, table, None, settings)
    rows = {row["detail"]: row for row in Suite(lists, labels, settings, 0).ask(bag)}
    assert without == []
    assert rows["kind"]["value"] > 0.97 and rows["kind"]["base"] == 0.5
    noise = rows["noise"]
    assert noise["base"] == pytest.approx(np.mean(table["noise"].to_numpy() == "b"))
    assert noise["value"] < noise["base_high"]
    if classifier == "logistic":  # 160 lists are few for a network
        assert rows["length"]["value"] > rows["length"]["base_high"]  # counts add up to it


def test_every_list_is_judged_by_others() -> None:
    """A vector that names its list says nothing of others: a classifier that had seen it would know."""
    classes = np.random.default_rng(0).integers(0, 2, 80)
    vectors = np.eye(80, dtype=np.float32)
    lists = np.arange(80)
    found = predict_across_folds(vectors, classes, lists, config(), 0)
    row = accuracy_row(classes, found, lists, config(), 0)
    assert row["value"] <= row["base_high"]
    both = predict_across_folds(
        np.concatenate([vectors, vectors]), np.tile(classes, 2), np.tile(lists, 2), config(), 0
    )
    assert (both[:80] == both[80:]).all()


def test_accuracy_and_guessing_by_hand() -> None:
    classes, found = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    row = accuracy_row(classes, found, np.array([7, 7, 8, 9]), config(), 0)
    assert row["value"] == pytest.approx(2 / 3)  # lists 7, 8, 9 are right by 1, 0, 1
    assert row["base"] == 0.75
    # Of 3 draws with probability 3/4: P(0) = 1/64 < .025 and P(0 or 1) = 10/64 are the lower tail.
    assert (row["base_low"], row["base_high"]) == (pytest.approx(1 / 3), 1.0)


def test_interpolated_precision_by_hand() -> None:
    """The query's neighbours, nearest first, are of classes 1 0 1 0: precisions 1, 1/2, 2/3, 1/2."""
    angles = np.array([0.0, 0.1, 0.2, 0.3, 0.4])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    classes = np.array([1, 1, 0, 1, 0])
    curve = interpolated_precision(vectors, classes, np.array([0]))
    assert RECALLS == (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    np.testing.assert_allclose(curve[0], [1, 1, 1, 2 / 3, 2 / 3, 2 / 3])
    assert chance(classes, np.array([0])) == 0.5
    alone = interpolated_precision(vectors, np.array([1, 0, 0, 0, 0]), np.array([0]))
    assert np.isnan(alone).all()
    zero = interpolated_precision(np.zeros((3, 2), np.float32), np.array([1, 0, 1]), np.array([0]))
    np.testing.assert_allclose(zero[0], 0.5)  # all alike: in order of their rows


def store_of(lists: list[list[int]]) -> SequenceStore:
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in lists])]).astype(np.int64)
    return SequenceStore(np.array([i for one in lists for i in one], np.int32), offsets, N_ITEMS)


def test_only_lists_that_nobody_learned_from_are_asked_about() -> None:
    store = store_of([[1] * 6, [2] * 3, [3] * 9, [4] * 7] * 6)
    learned = np.arange(24) % 4 == 0
    train_end = np.where(learned, store.offsets[1:], store.offsets[:-1])
    lists = choose_lists(store, train_end, config(folds=2), longest=8, seed=0)
    assert (lists.users % 4).tolist() == [2, 3] * 6
    assert lists.lengths.tolist() == [8, 7] * 6
    assert dict(lists.left_out) == {
        "learned from": 6,
        "fewer than 4 songs": 6,
        "cut to the newest songs": 6,
    }
    sample = choose_lists(store, train_end, config(folds=2, max_lists=20), longest=8, seed=0)
    assert len(sample) == 12
    every = choose_lists(store, train_end, config(folds=2, lists="all"), longest=8, seed=0)
    assert len(every) == 18
    with pytest.raises(DataError, match="12 lists are left to probe"):
        choose_lists(store, train_end, config(folds=7), longest=8, seed=0)


def test_labels_by_hand() -> None:
    settings = config(bands=2, min_class=2)
    label = label_of("city", pl.Series(["x", "y", "x", None, "z", "y", "x"]), settings)
    assert label is not None
    assert label.names == ["x", "y"]
    assert (label.rows.tolist(), label.classes.tolist()) == ([0, 1, 2, 5, 6], [0, 1, 0, 1, 0])
    assert label.left_out == 2
    assert label_of("one", pl.Series(["x", "x", "y"]), settings) is None
    banded = label_of("value", pl.Series([1.0, 9.0, 2.0, 8.0, None]), settings)
    assert banded is not None
    assert banded.names == ["1-8", "8-"]
    assert banded.classes.tolist() == [0, 1, 0, 1]


def test_a_song_that_one_in_so_many_lists_holds() -> None:
    lists = random_lists(40)
    held = song_content(lists, 4)
    for one, text in zip(lists.songs, held.to_list(), strict=True):
        assert text is None or int(text) in one
    chosen = set(held.drop_nulls().to_list())
    assert len(chosen) <= 4
    for one, text in zip(lists.songs, held.to_list(), strict=True):
        if text is not None:
            assert sum(str(song) in chosen for song in one) == 1


def test_labels_made_of_items_and_what_is_said_of_all() -> None:
    lists, settings = random_lists(), config(item_label="artist", songs=2)
    artists = pl.Series([None, *(["low"] * 15), *(["high"] * 14), None])
    table = pl.DataFrame({"few": ["x"] * 59 + ["y"]})
    labels, without = labels_of_lists(lists, table, artists, settings)
    assert without == ["few", "diversity"]
    assert [label.name for label in labels] == ["length", "song content", "artist"]
    said = facts(lists, labels)
    assert said["labels"]["artist"] == {"classes": {"high": 30, "low": 30}, "left_out": 0}
    assert said["lists"] == 60


def test_label_files_are_matched_and_checked(tmp_path: Any) -> None:
    path = str(tmp_path / "lists.parquet")
    names = pl.Series(["b", "a", "c"])
    pl.DataFrame({"user_id": ["a", "b"], "city": ["x", "y"]}).write_parquet(path)
    assert read_labels(path, ["city"], names)["city"].to_list() == ["y", "x", None]
    with pytest.raises(DataError, match="lacks country"):
        read_labels(path, ["country"], names)
    with pytest.raises(DataError, match="knows none of the lists"):
        read_labels(path, ["city"], pl.Series(["q"]))
    pl.DataFrame({"user_id": ["a", "a"], "city": ["x", "y"]}).write_parquet(path)
    with pytest.raises(DataError, match="'a' more than once"):
        read_labels(path, ["city"], names)
