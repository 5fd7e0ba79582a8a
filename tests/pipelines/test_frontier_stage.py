"""`recsys frontier` on a tiny experiment: figures against a slow computation, intervals, page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.frontier import (
    BALANCES,
    KINDS,
    PAGE,
    RESULT,
    STRENGTHS,
    FrontierSettings,
    frontier,
    frontier_table,
    shown_lines,
)
from pipelines.runs import open_run
from recsys.config import ExperimentConfig
from recsys.data.batches import batch_from_lists
from recsys.errors import ConfigError

SETTINGS = FrontierSettings(targets=8, groups=3, beams=2, steps=4, k=5)


@pytest.fixture
def result(fitted_experiment: ExperimentConfig) -> dict[str, Any]:
    directory = frontier(fitted_experiment, SETTINGS)
    found: dict[str, Any] = json.loads((directory / RESULT).read_text(encoding="utf-8"))
    return found


def test_every_way_has_every_metric_with_its_interval(result: dict[str, Any]) -> None:
    ways = {(row["way"], row["strength"]) for row in result["rows"]}
    expected = {("top", None), ("beam", None)}
    expected |= {(way, b) for way in ("beam+mmr", "beam+dpp") for b in BALANCES}
    expected |= {(f"diverse {kind}", s) for kind in KINDS for s in STRENGTHS}
    assert ways == expected
    metrics = {row["metric"] for row in result["rows"]}
    names = {"ndcg@5", "next_ndcg@5", "ild@5", "oracle@6", "distinct_1", "overlap"}
    assert metrics == names and len(result["rows"]) == len(ways) * len(names)
    for row in result["rows"]:
        if row["value"] is not None:
            assert row["low"] <= row["value"] <= row["high"]
    assert result["exact_log_z"] and result["width"] == 6
    oracle = {w: row["value"] for row in result["rows"] if row["metric"] == "oracle@6"
              for w in [row["way"]]}  # fmt: skip
    assert oracle["beam+mmr"] == oracle["beam"], "re-ranking leaves the lists as they are"
    assert len(result["differences"]) == 2 * len(STRENGTHS) * (1 + len(BALANCES))


@torch.no_grad()
def test_the_top_list_is_measured_against_what_followed(
    fitted_experiment: ExperimentConfig, result: dict[str, Any]
) -> None:
    """The slow way: all scores, sorted; DCG against the distinct new items of the next four events."""
    from pipelines.frontier import _sample

    run = open_run(fitted_experiment, "sasrec", "main")
    targets, store, model = _sample(run, SETTINGS), run.store, run.model
    by_user: dict[int, list[float]] = {}
    for user, start in zip(targets.user.tolist(), targets.start.tolist(), strict=True):
        history = store.items[store.offsets[user] : start].tolist()
        end = min(start + 4, int(store.offsets[user + 1]))
        followed = set(store.items[start:end].tolist()) - set(history)
        if not followed:
            continue
        batch = batch_from_lists([history], [[0] * len(history)], model.max_length)
        scores = model.score(batch)[0].tolist()
        left = [i for i in range(1, store.n_items + 1) if i not in history]
        best = sorted(left, key=lambda i: (-scores[i], i))[:5]
        gain = sum(1 / np.log2(r + 2) for r, item in enumerate(best) if item in followed)
        ideal = sum(1 / np.log2(r + 2) for r in range(min(5, len(followed))))
        by_user.setdefault(user, []).append(gain / ideal)
    expected = np.mean([np.mean(values) for values in by_user.values()])
    [row] = [r for r in result["rows"] if (r["way"], r["metric"]) == ("top", "ndcg@5")]
    assert row["value"] == pytest.approx(expected, abs=1e-5)
    assert result["users"] == len(by_user)


def test_the_page_and_the_table_show_it(fitted_experiment: ExperimentConfig) -> None:
    directory = frontier(fitted_experiment, SETTINGS)
    page = (directory / PAGE).read_text(encoding="utf-8")
    assert page.count("<svg") == 2 and "diverse vector" in page and "http" not in page
    result = json.loads((directory / RESULT).read_text(encoding="utf-8"))
    table = frontier_table(result)
    assert table.row_count == 2 + 2 * len(BALANCES) + len(KINDS) * len(STRENGTHS)
    assert "all searches 6 lists of 4" in shown_lines(result)[0]


def test_a_second_call_has_nothing_to_do(
    fitted_experiment: ExperimentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = frontier(fitted_experiment, SETTINGS)

    def never(*arguments: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr("pipelines.frontier._measure", never)
    assert frontier(fitted_experiment, SETTINGS) == first
    with pytest.raises(AssertionError, match="measured again"):
        frontier(fitted_experiment, replace(SETTINGS, k=6))


def test_only_learned_models_have_a_frontier(fitted_experiment: ExperimentConfig) -> None:
    with pytest.raises(ConfigError, match=r"'pop' is no learned model of .*; it has sasrec"):
        frontier(fitted_experiment, replace(SETTINGS, model="pop"))
    assert isinstance(fitted_experiment.workspace, Path)
