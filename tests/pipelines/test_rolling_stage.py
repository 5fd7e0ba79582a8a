"""`recsys rolling` on a tiny log: who is trained on what, what a figure is, what is not done twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from made_experiment import finish_training

from pipelines import rolling as stage
from pipelines.rolling import (
    RESULT,
    UPDATE_SHARE,
    WAYS,
    RollingSettings,
    difference_lines,
    rolling,
    rolling_table,
)
from recsys.config import ExperimentConfig, load_config
from recsys.data.sequences import SequenceStore, Split, Targets
from recsys.errors import ConfigError
from recsys.evaluation.metrics import Places, ndcg
from recsys.evaluation.ranked import RankedTargets
from recsys.evaluation.rolling import compare_days
from recsys.manifest import read_manifest

DAYS = 3
TRAINING = {"epochs": 2, "batch_size": 16, "warmup_steps": 0, "lr": 0.01, "device": "cpu"}
SASREC = {
    "kind": "sasrec",
    "width": 8,
    "heads": 1,
    "blocks": 1,
    "max_length": 8,
    "training": TRAINING,
}


def day_split(store: SequenceStore, low: int, cut: int, until: int) -> Split:
    """Validation from `low`, test from `cut` to `until` (places of the newest events of all)."""
    times = np.asarray(store.timestamps)

    def position(moment: int) -> np.ndarray:
        before = np.concatenate([[0], np.cumsum(times < moment)])
        found: np.ndarray = (
            store.offsets[:-1] + before[store.offsets[1:]] - before[store.offsets[:-1]]
        )
        return found

    def targets(begin: np.ndarray, end: np.ndarray) -> Targets:
        user = np.repeat(np.arange(store.n_users), end - begin)
        place = np.concatenate([np.arange(a, b) for a, b in zip(begin, end, strict=True)])
        return Targets(user.astype(np.int32), place, place + 1)

    first, second, third = position(low), position(cut), position(until)
    return Split(first, targets(first, second), targets(second, third), second)


@pytest.fixture
def config(
    write_config: Callable[..., Path], tiny_store: SequenceStore, tiny_items: pl.DataFrame
) -> ExperimentConfig:
    config = load_config(
        write_config(
            split={"kind": "rolling", "folds": DAYS, "window": 0.15},
            models={"sasrec": SASREC},
            tracking={"enabled": False},
            evaluation={"bootstrap": 100, "permutations": 200},
        )
    )
    times = np.asarray(tiny_store.timestamps)
    cuts = [int(q) for q in np.quantile(times, [0.4, 0.55, 0.7, 0.85])] + [int(times.max()) + 1]
    splits = [day_split(tiny_store, *cuts[day : day + 3]) for day in range(DAYS)]
    main = config.model_copy(update={"models": {}})
    finish_training(main, tiny_store, splits[0], tiny_items)
    for day, split in enumerate(splits):
        split.save(config.workspace / "prepared" / "splits" / f"fold{day}")
    return config


def fits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Let what is fitted be seen."""
    seen: list[tuple[str, dict[str, Any]]] = []
    fit = stage.fit_model

    def watched(config: Any, name: str, fold: str, directory: Path, **plan: Any) -> Any:
        seen.append((fold, plan | {"lr": config.models[name].training.lr}))
        return fit(config, name, fold, directory, **plan)

    monkeypatch.setattr(stage, "fit_model", watched)
    return seen


def test_each_way_learns_what_it_should(
    config: ExperimentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = fits(monkeypatch)
    directory = rolling(config, RollingSettings(epochs=1, histories="grown"))
    result = json.loads((directory / RESULT).read_text())
    assert [fold for fold, _ in seen] == ["fold0", "fold0", "fold1", "fold1", "fold2", "fold2"]
    updates = [plan for _, plan in seen if plan.get("earlier") is not None]
    assert [plan["epochs"] for plan in updates] == [1, 1]
    anew = [plan["lr"] for _, plan in seen if plan.get("earlier") is None]
    assert {plan["lr"] for plan in updates} == {UPDATE_SHARE * anew[0]} and len(set(anew)) == 1
    splits = [
        Split.load(config.workspace / "prepared" / "splits" / f"fold{d}") for d in range(DAYS)
    ]
    for day, plan in enumerate(updates, start=1):
        now, before = splits[day].refit_end, splits[day - 1].refit_end
        assert now is not None and before is not None
        assert plan["users"].tolist() == (now > before).tolist() and 0 < plan["users"].sum() < 40
    assert [day["day"] for day in result["days"]] == [0, 1, 2]
    assert len({day["stale"]["ndcg@10"] for day in result["days"]}) == DAYS
    first = result["days"][0]
    assert first["stale"] == first["update"] == first["retrain"]
    assert result["days"][1]["update"] != result["days"][1]["stale"]
    assert result["seconds"]["stale"] == 0 < result["seconds"]["update"]
    for row in result["rows"]:
        assert row["low"] <= row["value"] <= row["high"]
    assert {row["way"] for row in result["rows"]} == set(WAYS)
    assert [r["model_a"] + r["model_b"] for r in result["differences"][:3]] == [
        "updatestale", "retrainstale", "retrainupdate",
    ]  # fmt: skip
    assert rolling_table(result).row_count % 3 == 0 and len(difference_lines(result)) == 6


def test_other_updates_train_nothing_else_again(
    config: ExperimentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = rolling(config, RollingSettings(epochs=1))
    seen = fits(monkeypatch)
    assert rolling(config, RollingSettings(epochs=1)) == first and seen == []
    own = UPDATE_SHARE * TRAINING["lr"]
    assert rolling(config, RollingSettings(epochs=1, lr=own)) == first and seen == []
    assert read_manifest(first)["settings"]["lr"] == own
    again = rolling(config, RollingSettings(epochs=1, lr=0.001))
    assert again != first
    assert [(fold, plan["users"] is None) for fold, plan in seen] == [
        ("fold1", True),
        ("fold2", True),
    ]
    assert read_manifest(again)["settings"]["lr"] == 0.001


def ranked(user: list[int], items: list[int], ranks: list[float]) -> RankedTargets:
    n = len(user)
    return RankedTargets(
        index=np.arange(n), user=np.array(user, dtype=np.int32), history_length=np.ones(n, dtype=np.int64),
        offsets=np.arange(n + 1), items=np.array(items, dtype=np.int32), ranks=np.array(ranks),
        top=np.zeros((n, 1), dtype=np.int32), n_targets=n, dropped=0, forbidden=0,
    )  # fmt: skip


def test_figures_are_means_by_user_over_all_days(config: ExperimentConfig) -> None:
    """User 0: ranks 1 and 3 on day 1, 2 on day 2; user 1: rank 20. Item 3 is new to the stale model."""
    days = [ranked([0, 0, 1], [1, 3, 2], [1, 3, 20]), ranked([0], [1], [2])]
    worse = [ranked([0, 0, 1], [1, 3, 2], [1, 30, 20]), ranked([0], [1], [2])]
    known = np.array([False, True, True, False])
    found = compare_days({"stale": worse, "update": days}, known, config.evaluation)
    gain = lambda rank: float(ndcg(Places.of(np.array([rank]), np.array([0, 1])), 10)[0])  # noqa: E731
    by_way = {
        (r["way"], r["slice"]): (r["value"], r["users"], r["targets"])
        for r in found["rows"]
        if r["metric"] == "ndcg@10"
    }
    mine = (gain(1.0) + gain(3.0) + gain(2.0)) / 3
    assert by_way["update", "all"] == (pytest.approx(mine / 2), 2, 4)
    assert by_way["update", "new_items"] == (pytest.approx(gain(3.0)), 1, 1)
    assert by_way["stale", "new_items"] == (0.0, 1, 1)
    assert by_way["update", "known_items"] == by_way["stale", "known_items"]
    [row] = [r for r in found["differences"] if (r["slice"], r["metric"]) == ("all", "ndcg@10")]
    assert row["difference"] == pytest.approx(gain(3.0) / 6)


def test_what_is_no_rolling_split_is_refused(config: ExperimentConfig) -> None:
    with pytest.raises(ConfigError, match=r"set split.kind to rolling, split.folds to at least 2"):
        one = config.split.model_copy(update={"folds": 1})
        rolling(config.model_copy(update={"split": one}), RollingSettings())
    with pytest.raises(ConfigError, match="'pop' is no learned model of tiny; it has sasrec"):
        rolling(config, replace(RollingSettings(), model="pop"))
    with pytest.raises(ConfigError, match="makes its own warm starts"):
        rolling(config.model_copy(update={"warm_start": Path("x")}), RollingSettings())
