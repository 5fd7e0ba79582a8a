"""What a study makes of known figures: pairs, slices, means over seeds, the pooled effect."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.data.sequences import SequenceStore
from recsys.errors import ArtifactError, DataError
from recsys.evaluation.ranked import RankedTargets
from recsys.evaluation.study import (
    Pair,
    Scored,
    compare_with,
    compared,
    correct,
    cut,
    mean_count,
    over_seeds,
    slices_of,
)
from recsys.evaluation.study_page import write_study_page


def test_cutting_keeps_equal_values_together() -> None:
    found = cut("x", np.array([5.0, 1, 1, 1, np.nan, 9]), 3)
    assert {name: inside.nonzero()[0].tolist() for name, inside in found.items()} == {
        "x 1/3": [1, 2, 3],
        "x 3/3": [0, 5],
    }
    assert cut("x", np.full(3, np.nan), 3) == {}


STORE = SequenceStore(
    items=np.array([1, 2, 3, 1, 2, 2], dtype=np.int32),
    offsets=np.array([0, 4, 6]),
    n_items=3,
    timestamps=np.array([0, 3600, 10800, 14400, 5, 9]),
)
TARGETS = RankedTargets(
    index=np.array([0, 1]),
    user=np.array([0, 1], dtype=np.int32),
    history_length=np.array([4, 1]),
    offsets=np.array([0, 1, 3]),
    items=np.array([1, 2, 3], dtype=np.int32),
    ranks=np.ones(3),
    top=np.zeros((2, 0), dtype=np.int32),
    n_targets=2,
    dropped=0,
    forbidden=0,
)
START, COUNTS = np.array([4, 5]), np.array([0, 6, 2, 4])


def test_what_targets_are_cut_by() -> None:
    assert mean_count(TARGETS, COUNTS).tolist() == [6.0, 3.0]
    found = slices_of(TARGETS, STORE, START, COUNTS)
    assert found["all"].tolist() == [True, True]
    assert found["uniformity 1/5"].tolist() == [True, False]
    assert found["frequency 1/3"].tolist() == [False, True]


def test_without_times_nobody_is_even_or_irregular() -> None:
    timeless = SequenceStore(items=STORE.items, offsets=STORE.offsets, n_items=3)
    found = slices_of(TARGETS, timeless, START, COUNTS)
    assert not any(name.startswith("uniformity") for name in found)


def test_fifths_are_of_users_however_many_targets_each_has() -> None:
    """User i has gaps of 10 and 10 + i; of the most regular three events are targets, of others one."""
    times = np.concatenate([[0, 10, 20 + i, 999 - i] for i in range(10)])
    store = SequenceStore(
        items=np.ones(40, dtype=np.int32), offsets=np.arange(11) * 4, n_items=3, timestamps=times
    )
    user = np.repeat(np.arange(10, dtype=np.int32), [3, *[1] * 9])
    found = replace(
        TARGETS,
        index=np.arange(12),
        user=user,
        offsets=np.arange(13),
        items=np.ones(12, dtype=np.int32),
    )
    start = np.array([1, 2, 3, *range(7, 40, 4)])
    slices = slices_of(found, store, start, COUNTS)
    fifths = [user[slices[f"uniformity {i}/5"]].tolist() for i in range(1, 6)]
    assert fifths == [[0, 0, 0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]


USER = np.repeat(np.arange(200, dtype=np.int32), 2)
BASE = np.random.default_rng(0).random(400)
EVEN = np.arange(400) % 2 == 0


RNG = np.random.default_rng(0)


def made(gain: float) -> Scored:
    slices = {"all": np.ones(400, dtype=np.bool_), "even": EVEN}
    return Scored(np.arange(400), USER, BASE * (1 + gain), slices)


def pairs(*gains: float) -> list[Pair]:
    """Return a model that is so much better than the baseline, a seed each."""
    return [(made(gain), made(0.0)) for gain in gains]


def test_users_are_paired_and_sets_pooled() -> None:
    [first, second], pooled = compare_with({"a": pairs(0.1, 0.3), "b": pairs(0.0)})
    assert (first["set"], first["gain"], second["gain"]) == ("a", 0.2, 0.0)
    assert first["low"] == pytest.approx(0.2, abs=1e-3) and first["p"] < 0.001
    assert first["value"] == pytest.approx(1.2 * first["baseline"], abs=1e-4)
    assert second["p"] == second["p_holm"] == 1.0 and first["users"] == 200
    assert first["p_holm"] == pytest.approx(2 * first["p"], abs=1e-5)
    assert first["slices"]["even"]["gain"] == 0.2
    half = first["difference"] / 2
    assert first["by_seed"] == [pytest.approx(half, abs=1e-4), pytest.approx(3 * half, abs=1e-4)]
    assert pooled["gain"] == pytest.approx(0.1) and pooled["sets"] == ["a", "b"]
    assert pooled["low"] == pytest.approx(0.1, abs=1e-3)


def test_a_row_does_not_depend_on_the_other_sets() -> None:
    better = made(0.0)
    values = np.where(USER < 100, 1.2, 1.0) * BASE
    mine = [(Scored(better.index, USER, values, better.slices), better)]
    [alone], _ = compare_with({"b": mine})
    [first, beside], pooled = compare_with({"a": mine, "b": mine})
    same = ("gain", "low", "high", "value", "slices", "p")
    assert [alone[name] for name in same] == [beside[name] for name in same]
    # Two sets are drawn independently, so the pool is narrower than either.
    assert (first["low"], first["high"]) != (beside["low"], beside["high"])
    width = beside["high"] - beside["low"]
    assert 0.6 * width < pooled["high"] - pooled["low"] < 0.85 * width


def test_a_gain_of_half_of_the_users_has_an_interval() -> None:
    better = made(0.0)
    values = np.where(USER < 100, 1.2, 1.0) * BASE
    row, samples = compared(
        [(Scored(better.index, USER, values, better.slices), better)], "all", RNG
    )
    assert row["low"] < row["gain"] < row["high"]
    assert 0.05 < row["gain"] < 0.15 and len(samples) == 2000


def test_a_baseline_of_nothing_has_no_gain(tmp_path: Any) -> None:
    """Not in a slice, not in the pool, and not by a draw of users that happens to have none."""
    nothing, rare = np.zeros(400), np.where(USER == 7, 1.0, 0.0)
    slices = made(0.0).slices
    of_rare = (made(0.1), Scored(np.arange(400), USER, rare, slices))
    row, samples = compared([of_rare], "all", RNG)
    assert (row["gain"], row["low"], samples) == (None, None, None) and row["difference"] > 0.4
    of_nothing = (made(0.1), Scored(np.arange(400), USER, nothing, slices))
    rows, pooled = compare_with({"a": [of_nothing], "b": pairs(0.1)})
    assert [r["gain"] for r in rows] == [None, 0.1]
    assert (pooled["gain"], pooled["sets"]) == (0.1, ["b"])
    write_study_page(
        tmp_path / "study.html",
        summary_of(by_set={"x": [{**r, "seeds": [0]} for r in rows]}, pooled={"x": pooled}),
    )
    assert "the baseline is 0" in (tmp_path / "study.html").read_text()
    assert compare_with({"a": [of_nothing]})[1]["gain"] is None


def test_different_targets_are_not_paired() -> None:
    other = made(0.0)
    shifted = Scored(other.index + 1, USER, BASE, other.slices)
    with pytest.raises(DataError, match="different targets"):
        compared([(shifted, other)], "all", RNG)
    others = Scored(other.index, USER + 1, BASE, other.slices)
    fewer = Scored(np.arange(300), USER[:300], BASE[:300], {"all": np.ones(300, dtype=np.bool_)})
    for seed in (others, fewer):  # the models of a seed agree, the seeds do not
        with pytest.raises(DataError, match="different targets"):
            compared([(other, other), (seed, seed)], "all", RNG)


def test_targets_that_are_cut_differently_are_not_paired() -> None:
    one, other = made(0.1), made(0.0)
    odd = Scored(other.index, USER, BASE, {**other.slices, "even": ~EVEN})
    compared([(one, odd)], "all", RNG)
    for slices in (odd.slices, {"all": odd.slices["all"]}):
        with pytest.raises(DataError, match=r"cut differently \(even\)"):
            compared([(one, Scored(other.index, USER, BASE, slices))], "even", RNG)


def test_one_family_of_tests_may_have_rows_of_several_comparisons() -> None:
    rows = [{"p": 0.01}, {"p": 0.04}, {"p": 0.03}]
    correct(rows)
    assert [row["p_holm"] for row in rows] == [0.03, 0.06, 0.06]


def test_targets_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "a" / "0.parquet"
    first = made(0.1)
    first.save(path)
    again = Scored.load(path)
    for name in ("index", "user", "values"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name), strict=True)
    assert list(again.slices) == ["all", "even"]
    np.testing.assert_array_equal(again.slices["even"], EVEN, strict=True)
    assert list(again.whole().slices) == ["all"]


def test_a_file_that_holds_no_targets_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"0.parquet is missing; run the study again"):
        Scored.load(tmp_path / "0.parquet")
    (tmp_path / "0.parquet").write_text("nonsense")
    with pytest.raises(ArtifactError, match=r"0.parquet is no Parquet file"):
        Scored.load(tmp_path / "0.parquet")
    pq.write_table(pa.table({"target": [1], "value": [0.5]}), tmp_path / "0.parquet")
    with pytest.raises(ArtifactError, match=r"0.parquet has no column user"):
        Scored.load(tmp_path / "0.parquet")


def test_means_over_seeds() -> None:
    row = over_seeds({1: {"ndcg@10": 0.2, "hr@10": 0.5}, 0: {"ndcg@10": 0.1, "hr@10": 0.5}})
    assert row == {
        "seeds": [0, 1],
        "ndcg@10": 0.15,
        "ndcg@10 sd": 0.07071,
        "hr@10": 0.5,
        "hr@10 sd": 0.0,
    }
    assert over_seeds({4: {"mrr": 0.5}}) == {"seeds": [4], "mrr": 0.5, "mrr sd": None}


def summary_of(**changes: Any) -> dict[str, Any]:
    rows, pooled = compare_with({"a": pairs(0.1), "b": pairs(0.0)})
    return {
        "name": "made",
        "baseline": "sasrec",
        "metric": "NDCG@10",
        "sets": ["a", "b"],
        "over_seeds": [{"set": "a", "model": "unirec", **over_seeds({0: {"ndcg@10": 0.25}})}],
        "by_set": {"unirec": [{**row, "seeds": [0]} for row in rows]},
        "pooled": {"unirec": pooled},
        "against": {},
        "aliases": {},
        "missing": ["b.unirec.1"],
        **changes,
    }


def test_the_page_shows_gains_sets_and_what_is_missing(tmp_path: Any) -> None:
    write_study_page(tmp_path / "study.html", summary_of())
    text = (tmp_path / "study.html").read_text()
    for part in ("unirec (2)", "a, unirec", "+10.0%", "b.unirec.1", "0.25", "Gain by set"):
        assert part in text
    assert "http" not in text.replace("http://www.w3.org", "")


def test_a_page_of_nothing_yet(tmp_path: Any) -> None:
    write_study_page(
        tmp_path / "study.html", summary_of(over_seeds=[], by_set={}, pooled={}, missing=["a.x.0"])
    )
    assert "nothing to draw yet" in (tmp_path / "study.html").read_text()
