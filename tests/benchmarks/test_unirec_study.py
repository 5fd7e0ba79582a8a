"""The UniRec study: the order of its cells, and what its summary makes of known figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import unirec_summary
from unirec_study import MAIN, SETS, Cell, ablated, cells, missing
from unirec_summary import Ranked, _cut, history_variance, mean_count, summarise

from recsys.data.sequences import SequenceStore
from recsys.evaluation.ranking import RankedTargets


def test_the_most_informative_cells_come_first() -> None:
    found = cells(SETS, [0, 1, 2], ablations=True)
    assert len(found) == len(set(found))
    first = [(c.set, c.model, c.seed) for c in found[:10]]
    assert first == [(s, m, 0) for s in SETS for m in MAIN[:2]]
    assert [c.seed for c in found] == sorted(c.seed for c in found)
    assert len(cells(SETS, [0], ablations=False)) < len([c for c in found if c.seed == 0])
    assert all(model not in MAIN for model in ablated("beauty"))


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    whole = missing(tmp_path)
    assert whole[:2] == ["30music.sasrec.0", "30music.unirec.0"]
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "30music.sasrec.0.json").write_text("{}")
    assert missing(tmp_path) == whole[1:]


def test_a_cell_is_one_model_of_its_sets_configuration(tmp_path: Path) -> None:
    config = Cell("beauty", "unirec", 2).config(tmp_path)
    assert list(config.models) == ["unirec"]
    assert (config.seed, config.workspace.name) == (2, "unirec_beauty")
    assert config.evaluation.baseline is None


def test_cutting_keeps_equal_values_together() -> None:
    found = _cut("x", np.array([5.0, 1, 1, 1, np.nan, 9]), 3)
    assert {name: inside.nonzero()[0].tolist() for name, inside in found.items()} == {
        "x 1/3": [1, 2, 3],
        "x 3/3": [0, 5],
    }
    assert _cut("x", np.full(3, np.nan), 3) == {}


def test_what_targets_are_cut_by() -> None:
    store = SequenceStore(
        items=np.array([1, 2, 3, 1, 2, 2], dtype=np.int32),
        offsets=np.array([0, 4, 6]),
        n_items=3,
        timestamps=np.array([0, 3600, 10800, 14400, 5, 9]),
    )
    targets: Any = RankedTargets(
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
    variance = history_variance(targets, store, np.array([4, 5]))
    assert variance[0] == 4_320_000 and np.isnan(variance[1])  # gaps of 3600, 7200, 3600
    assert mean_count(targets, np.array([0, 6, 2, 4])).tolist() == [6.0, 3.0]


def write_cell(folder: Path, model: str, seed: int, name: str) -> None:
    metrics = {"ndcg@10": [0.1 * (1 + seed), 0.0, 1.0]}
    cell = {"set": name, "model": model, "seed": seed, "metrics": metrics}
    cell["training"] = {"train_seconds": 2.0 + seed}
    (folder / f"{name}.{model}.{seed}.json").write_text(json.dumps(cell))


def test_the_summary_pairs_users_and_pools_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        for model in ("sasrec", "unirec"):
            for seed in (0, 1):
                write_cell(tmp_path, model, seed, name)
    user = np.repeat(np.arange(200), 2)
    base = np.random.default_rng(0).random(400)
    part = np.arange(400) % 2 == 0
    gains = {"a": 0.2, "b": 0.0}

    def ranked(cell: dict[str, Any], config_of: Any) -> Ranked:
        values = base * (1 + gains[cell["set"]] * (cell["model"] == "unirec"))
        slices = {"all": np.ones(400, dtype=np.bool_), "even": part}
        return Ranked(np.arange(400), user, values, slices)

    monkeypatch.setattr(unirec_summary, "ranked", ranked)
    found = summarise(tmp_path, lambda cell: None)  # type: ignore[arg-type, return-value]
    [first, second] = found["against_sasrec"]["by_set"]["unirec"]
    assert (first["gain"], second["gain"]) == (0.2, 0.0)
    assert first["low"] == pytest.approx(0.2, abs=1e-3) and first["p"] < 0.001
    assert second["p"] == 1.0 and first["users"] == 200
    assert first["slices"]["even"]["gain"] == 0.2
    pooled = found["against_sasrec"]["pooled"]["unirec"]
    assert pooled["gain"] == pytest.approx(0.1) and pooled["sets"] == ["a", "b"]
    assert pooled["low"] == pytest.approx(0.1, abs=1e-3)
    row = next(r for r in found["over_seeds"] if (r["set"], r["model"]) == ("a", "unirec"))
    assert row["ndcg@10"] == pytest.approx(0.15) and row["train_seconds"] == 2.5
