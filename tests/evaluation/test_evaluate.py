from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.config import EvaluationConfig
from recsys.data.batches import SequenceBatch
from recsys.data.sequences import SequenceStore, Split, Targets, TrainingData
from recsys.errors import ArtifactError, ConfigError
from recsys.evaluation.compare import compare_models
from recsys.evaluation.evaluate import Ground, MetricRow, evaluate_model, metric_rows
from recsys.evaluation.targets_file import read_targets, targets_path
from recsys.models.contract import Model

USERS, ITEMS = 60, 30


class Noisy(Model):
    """Ranks the item after the newest one on a ring first, as far as the noise lets it."""

    def __init__(self, noise: float) -> None:
        super().__init__(ITEMS)
        self.max_length = 5
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("noise", noise * torch.randn(ITEMS + 1, generator=generator))

    def score(self, batch: SequenceBatch, items: Tensor | None = None) -> Tensor:
        newest = batch.recent(1)
        return self.noise - (torch.arange(ITEMS + 1) - newest - 1).abs().float()


@pytest.fixture(scope="module")
def ground() -> Ground:
    rng = np.random.default_rng(0)
    start = rng.integers(0, ITEMS, USERS)
    lengths = rng.integers(3, 9, USERS)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = np.concatenate(
        [1 + (s + np.arange(n)) % ITEMS for s, n in zip(start, lengths, strict=True)]
    )
    store = SequenceStore(items.astype(np.int32), offsets, ITEMS)
    user = np.repeat(np.arange(USERS, dtype=np.int32), 2)
    begin = np.stack([offsets[1:] - 2, offsets[1:] - 1], axis=1).ravel()
    test = Targets(user, begin, begin + 1)
    split = Split(train_end=offsets[1:] - 2, validation=test, test=test)
    return Ground(
        dataset="ring",
        store=store,
        split=split,
        split_name="test",
        config=EvaluationConfig(ks=[1, 5], list_length=6, bootstrap=200, permutations=200),
        item_counts=TrainingData(store, split.train_end).item_counts(),
        item_vectors=rng.normal(size=(ITEMS + 1, 3)).astype(np.float32),
        seed=7,
    )


def find(rows: list[MetricRow], metric: str, k: int | None, part: str = "all") -> MetricRow:
    found = [r for r in rows if (r["metric"], r["k"], r["slice"]) == (metric, k, part)]
    assert len(found) == 1
    return found[0]


def test_rows_are_derived_from_the_file(ground: Ground, tmp_path: Path) -> None:
    rows = evaluate_model("noisy", Noisy(2.0), ground, tmp_path)
    assert set(rows[0]) == {
        *("dataset", "split", "model", "metric", "k", "slice", "value", "low", "high", "users")
    }
    ranked = read_targets(targets_path(tmp_path, "noisy", "test"))
    assert ranked.n_targets == 2 * USERS
    assert metric_rows("noisy", ranked, ground) == rows
    hits = np.bincount(ranked.user, ranked.ranks <= 5) / np.bincount(ranked.user)
    row = find(rows, "hr", 5)
    assert row["value"] == pytest.approx(hits.mean())
    assert row["users"] == USERS
    assert row["low"] < row["value"] < row["high"]
    expected = len(np.unique(ranked.top[:, :5])) / ITEMS
    assert find(rows, "coverage", 5)["value"] == pytest.approx(expected)
    json.loads(json.dumps(rows, allow_nan=False))


def test_rows_hold_every_metric_and_slice(ground: Ground, tmp_path: Path) -> None:
    rows = evaluate_model("noisy", Noisy(2.0), ground, tmp_path)
    cut = {"hr", "recall", "ndcg", "mrr", "map", "precision", "novelty", "ild", "coverage", "gini"}
    whole = {(r["metric"], r["k"]) for r in rows if r["slice"] == "all"}
    assert whole == {(m, k) for m in cut for k in (1, 5)} | {("mrr", None), ("r_precision", None)}
    heads = [find(rows, "hr", 5, f"item {name}")["users"] for name in ("head", "tail")]
    assert min(heads) > 0
    assert find(rows, "ild", 1)["value"] is None  # one item has no distance


def test_reading_gives_back_what_was_written(ground: Ground, tmp_path: Path) -> None:
    set_targets = Targets(np.array([3, 5], np.int32), *_last_events(ground, [3, 5], 2))
    split = Split(ground.split.train_end, set_targets, set_targets)
    own = Ground(**{**ground.__dict__, "split": split, "split_name": "validation"})
    evaluate_model("sets", Noisy(0.5), own, tmp_path)
    path = tmp_path / "targets" / "sets.validation.parquet"
    ranked = read_targets(path)
    assert ranked.n_relevant.tolist() == [2, 2]
    assert ranked.offsets.tolist() == [0, 2, 4]
    assert ranked.top.shape == (2, 6)
    assert ranked.top.dtype == np.int32


def _last_events(ground: Ground, users: list[int], n: int) -> tuple[np.ndarray, np.ndarray]:
    end = ground.store.offsets[1:][users]
    return end - n, end


def test_without_item_vectors_the_distance_is_left_out_with_a_word(
    ground: Ground, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bare = Ground(**{**ground.__dict__, "item_vectors": None})
    with caplog.at_level(logging.INFO):
        rows = evaluate_model("noisy", Noisy(2.0), bare, tmp_path)
    assert "intra-list distance is left out" in caplog.text
    assert not [row for row in rows if row["metric"] == "ild"]


def test_no_targets_give_no_rows(ground: Ground, tmp_path: Path) -> None:
    none = Targets(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int64))
    bare = Ground(**{**ground.__dict__, "split": Split(ground.split.train_end, none, none)})
    assert evaluate_model("a", Noisy(0.0), bare, tmp_path) == []
    assert evaluate_model("b", Noisy(0.0), bare, tmp_path) == []
    assert compare_models(tmp_path, ["a", "b"], bare.config) == []


def test_a_better_model_is_told_from_a_worse_one(ground: Ground, tmp_path: Path) -> None:
    rows = {
        name: evaluate_model(name, Noisy(noise), ground, tmp_path)
        for name, noise in (("good", 0.0), ("same", 0.0), ("bad", 8.0))
    }
    comparisons = compare_models(tmp_path, ["good", "same", "bad"], ground.config, seed=7)
    found = {
        (c["model_a"], c["model_b"]): c for c in comparisons if (c["metric"], c["k"]) == ("ndcg", 5)
    }
    assert list(found) == [("good", "same"), ("good", "bad"), ("same", "bad")]
    better, equal = found["good", "bad"], found["good", "same"]
    expected = find(rows["good"], "ndcg", 5)["value"] - find(rows["bad"], "ndcg", 5)["value"]
    assert better["difference"] == pytest.approx(expected)
    assert 0 < better["low"] < better["difference"] < better["high"]
    assert better["p"] == pytest.approx(1 / 201)
    assert better["p_holm"] == pytest.approx(3 / 201)
    assert (equal["difference"], equal["p"], equal["p_holm"]) == (0.0, 1.0, 1.0)


def test_a_baseline_limits_the_pairs(ground: Ground, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        evaluate_model(name, Noisy(1.0), ground, tmp_path)
    config = ground.config.model_copy(update={"baseline": "b"})
    pairs = {
        (c["model_a"], c["model_b"]) for c in compare_models(tmp_path, ["a", "b", "c"], config)
    }
    assert pairs == {("a", "b"), ("c", "b")}
    wrong = ground.config.model_copy(update={"baseline": "x"})
    with pytest.raises(ConfigError, match=r"baseline is 'x'; allowed are the models a, b, c"):
        compare_models(tmp_path, ["a", "b", "c"], wrong)


def test_models_on_different_targets_are_not_compared(ground: Ground, tmp_path: Path) -> None:
    evaluate_model("a", Noisy(1.0), ground, tmp_path)
    some = Targets(*(column[:5] for column in ground.split.test.__dict__.values()))
    other = Ground(**{**ground.__dict__, "split": Split(ground.split.train_end, some, some)})
    evaluate_model("b", Noisy(1.0), other, tmp_path)
    with pytest.raises(ArtifactError, match=r"b\.parquet holds other targets than those of a"):
        compare_models(tmp_path, ["a", "b"], ground.config)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    import polars as pl

    path = tmp_path / "x.parquet"
    with pytest.raises(ArtifactError, match="is missing; run the evaluate stage"):
        read_targets(path)
    path.write_bytes(b"no parquet at all")
    with pytest.raises(ArtifactError, match="is no Parquet file"):
        read_targets(path)
    pl.DataFrame({"a": [1]}).write_parquet(path)
    with pytest.raises(ArtifactError, match="holds no rows of an evaluation"):
        read_targets(path)


def test_cold_targets_are_ranked_among_cold_items_too(ground: Ground, tmp_path: Path) -> None:
    counts = ground.item_counts.copy()
    counts[25:] = 0
    config = ground.config.model_copy(update={"among_cold": True})
    cold = replace(ground, item_counts=counts, config=config)
    rows = evaluate_model("noisy", Noisy(2.0), cold, tmp_path)
    whole = read_targets(targets_path(tmp_path, "noisy", "test"))
    among = read_targets(targets_path(tmp_path, "noisy.among-cold", "test"))
    asked = ground.store.items[ground.split.test.start] >= 25
    assert among.index.tolist() == list(range(int(asked.sum())))
    assert (among.items >= 25).all() and (among.top[among.top > 0] >= 25).all()
    assert (among.ranks <= whole.ranks[asked]).all() and among.ranks.max() <= 6
    row = find(rows, "hr", 5, "item cold, among cold")
    assert row["value"] == pytest.approx(float((among.ranks <= 5).mean()), abs=0.05)
    assert row["users"] == len(np.unique(among.user))
