"""Training learns, stops early, resumes after kill -9 where it was, and keeps the best."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from recsys.config import EvaluationConfig, LossConfig, SASRecConfig, TrainingConfig
from recsys.data.sequences import SequenceStore, Split, Targets, TrainingData
from recsys.errors import DataError
from recsys.models.sasrec import SASRec
from recsys.training.callbacks import BEST, LAST, clock
from recsys.training.fit import HISTORY, WEIGHTS, FitPlan, fit
from recsys.training.module import learning_rate_factor
from recsys.training.popularity_query import popularity_query

ITEMS = 30


def ring(users: int = 60, length: int = 12) -> tuple[SequenceStore, Split]:
    """Histories that walk a ring of items one step at a time: the next item is certain."""
    begin = np.random.default_rng(0).integers(ITEMS, size=users)
    items = (begin[:, None] + np.arange(length)) % ITEMS + 1
    offsets = np.arange(users + 1, dtype=np.int64) * length
    store = SequenceStore(items.astype(np.int32).ravel(), offsets, ITEMS)
    user = np.arange(users, dtype=np.int32)
    validation = Targets(user, offsets[1:] - 2, offsets[1:] - 1)
    test = Targets(user, offsets[1:] - 1, offsets[1:])
    return store, Split(offsets[1:] - 2, validation, test)


def plan(directory: Path, **training: Any) -> FitPlan:
    store, split = ring()
    settings: dict[str, Any] = {"epochs": 3, "batch_size": 16, "lr": 0.01, "warmup_steps": 5}
    return FitPlan(
        training=TrainingConfig(**settings | {"device": "cpu"} | training),
        evaluation=EvaluationConfig(exclude="none"),
        data=TrainingData(store, split.train_end),
        validation=split.validation,
        directory=directory,
        seed=3,
    )


def small_model(dropout: float = 0.1) -> SASRec:
    torch.manual_seed(1)
    return SASRec(SASRecConfig(width=16, max_length=12, dropout=dropout, blocks=1), ITEMS)


def test_it_learns_and_keeps_the_best_epoch(tmp_path: Path) -> None:
    model = small_model()
    rows = fit(model, plan(tmp_path, epochs=12))
    assert rows[0]["ndcg@10"] < rows[-1]["ndcg@10"]
    best = max(row["ndcg@10"] for row in rows)
    assert best > 0.95
    history = json.loads((tmp_path / HISTORY).read_text())
    assert history["best"] == best
    assert rows[history["best_epoch"]]["ndcg@10"] == best
    saved = load_file(tmp_path / WEIGHTS)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(saved[name], value)
        if name != "default_query":
            torch.testing.assert_close(load_file(tmp_path / BEST)[name], value)
    assert model.default_query.abs().max() > 0


def test_the_checkpoint_holds_no_pickled_code(tmp_path: Path) -> None:
    fit(small_model(), plan(tmp_path, epochs=1))
    state = torch.load(tmp_path / LAST, weights_only=True)
    assert state["epoch"] == 0


def test_it_stops_when_validation_does_not_improve(tmp_path: Path) -> None:
    rows = fit(small_model(), plan(tmp_path, epochs=50, lr=1e-12, patience=2))
    assert len(rows) == 3  # one first best, then two without a better one


def test_the_moving_average_is_what_is_kept(tmp_path: Path) -> None:
    rows = fit(small_model(), plan(tmp_path, epochs=8, ema=0.9))
    assert max(row["ndcg@10"] for row in rows) > 0.8
    state = torch.load(tmp_path / LAST, weights_only=True)["state_dict"]
    averaged = state["averaged.module.item_table.weight"]
    assert not torch.equal(averaged, state["model.item_table.weight"])


RUN = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_fit import plan, small_model
from dataclasses import replace
from recsys.training.fit import fit
def killed(row):
    if row["epoch"] == {kill_after}:
        os.kill(os.getpid(), signal.SIGKILL)
fit(small_model(), replace(plan(Path({directory!r}), **{training!r}), on_epoch=killed))
"""


def run_in_process(directory: Path, kill_after: int, **training: Any) -> int:
    code = RUN.format(
        tests=str(Path(__file__).parent),
        directory=str(directory),
        kill_after=kill_after,
        training=training or {"epochs": 4, "ema": 0.9},
    )
    return subprocess.run([sys.executable, "-c", code], timeout=300, env=os.environ).returncode


def test_a_killed_run_resumes_and_ends_where_an_undisturbed_one_does(tmp_path: Path) -> None:
    assert run_in_process(tmp_path / "whole", kill_after=99) == 0
    assert run_in_process(tmp_path / "killed", kill_after=1) == -signal.SIGKILL
    assert not (tmp_path / "killed" / WEIGHTS).exists()
    told: list[dict[str, float]] = []
    training = plan(tmp_path / "killed", epochs=4, ema=0.9)
    fit(small_model(), replace(training, on_epoch=told.append))
    # The kill came before anybody was told of epoch 1, which had its checkpoint already.
    assert [row["epoch"] for row in told] == [1, 2, 3]
    assert_same_result(tmp_path / "whole", tmp_path / "killed")
    assert len(json.loads((tmp_path / "killed" / HISTORY).read_text())["epochs"]) == 4


STOPPED_EARLY = {"epochs": 40, "patience": 1, "lr": 0.3}
ALL_EPOCHS = {"epochs": 3, "patience": 9}


@pytest.mark.parametrize("settings", [STOPPED_EARLY, ALL_EPOCHS], ids=["early", "all"])
def test_a_run_killed_after_its_last_checkpoint_trains_no_further(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    """The kill falls between the checkpoint that decides the end and the writing of the weights."""
    whole = fit(small_model(), plan(tmp_path / "whole", **settings))
    ending = len(whole) - 1
    assert (ending + 1 < settings["epochs"]) == (settings is STOPPED_EARLY)
    killed = tmp_path / "killed"
    assert run_in_process(killed, ending, **settings) == -signal.SIGKILL
    assert (killed / LAST).is_file()
    assert not (killed / WEIGHTS).exists()
    for _ in range(2):  # and once more, as when the kill falls after the weights
        assert len(fit(small_model(), plan(killed, **settings))) == len(whole)
        assert_same_result(tmp_path / "whole", killed)


def assert_same_result(whole: Path, other: Path) -> None:
    weights, others = (load_file(run / WEIGHTS) for run in (whole, other))
    assert weights.keys() == others.keys()
    for name in weights:
        torch.testing.assert_close(weights[name], others[name], rtol=0, atol=0)
    history, histories = (json.loads((run / HISTORY).read_text()) for run in (whole, other))
    for said in ("best", "best_epoch"):
        assert history[said] == histories[said]
    for row, again in zip(history["epochs"], histories["epochs"], strict=True):
        assert (row["loss"], row["ndcg@10"]) == (again["loss"], again["ndcg@10"])


def test_sampled_losses_train_too(tmp_path: Path) -> None:
    loss = LossConfig(kind="sampled_softmax", negatives=8, sampler="popularity")
    rows = fit(small_model(), plan(tmp_path, epochs=8, loss=loss))
    assert max(row["ndcg@10"] for row in rows) > 0.8


def test_nothing_to_learn_from_is_an_error(tmp_path: Path) -> None:
    store, split = ring()
    data = TrainingData(store, store.offsets[:-1] + 1)
    broken = FitPlan(TrainingConfig(), EvaluationConfig(), data, split.validation, tmp_path)
    with pytest.raises(DataError, match="nothing to learn from"):
        fit(small_model(), broken)


def test_nothing_to_validate_on_is_an_error_before_the_first_epoch(tmp_path: Path) -> None:
    none = Targets(*(np.zeros(0, dtype=kind) for kind in (np.int32, np.int64, np.int64)))
    epochs: list[dict[str, float]] = []
    broken = replace(plan(tmp_path / "run"), validation=none, on_epoch=epochs.append)
    with pytest.raises(DataError, match=r"no validation targets.*split\.validation_from"):
        fit(small_model(), broken)
    few = broken.training.model_copy(update={"users": 0.05})
    with pytest.raises(
        DataError, match=r"of the users that training\.users = 0\.05 leaves.*\(it is"
    ):
        fit(small_model(), replace(broken, training=few))
    assert epochs == []
    assert not (tmp_path / "run").exists()


def test_popularity_query_reproduces_the_popularity() -> None:
    torch.manual_seed(0)
    table = torch.randn(6, 5, dtype=torch.float64)
    counts = np.array([0, 10, 1, 5, 4, 20], dtype=np.int64)
    query = popularity_query(table, counts)
    share = (table[1:] @ query.double()).softmax(0)
    np.testing.assert_allclose(share.numpy(), counts[1:] / 40, atol=1e-3)


def test_learning_rate_by_hand() -> None:
    config = TrainingConfig(warmup_steps=4, schedule="linear")
    factors = [learning_rate_factor(config, step, 12) for step in (0, 3, 4, 8, 12)]
    assert factors == [0.25, 1.0, 1.0, 0.5, 0.0]
    cosine = TrainingConfig(warmup_steps=0, schedule="cosine")
    assert learning_rate_factor(cosine, 5, 10) == pytest.approx(0.5)
    assert learning_rate_factor(TrainingConfig(warmup_steps=0), 9, 10) == 1.0


def test_clock() -> None:
    assert [clock(s) for s in (5, 65, 3661)] == ["0:05", "1:05", "1:01:01"]


def test_without_validation_the_last_of_so_many_epochs_is_kept(tmp_path: Path) -> None:
    """A refit for k epochs on the same events is the validated run as it stood after k epochs."""
    validated, again = small_model(), small_model()
    made = plan(tmp_path / "validated", epochs=6, schedule="cosine", patience=1)
    rows = fit(validated, made)
    best = json.loads((tmp_path / "validated" / HISTORY).read_text())["best_epoch"]
    refit = replace(made, validation=None, epochs=best + 1, directory=tmp_path / "refit")
    repeated = fit(again, refit)
    assert [row["loss"] for row in repeated] == [row["loss"] for row in rows[: best + 1]]
    assert all("ndcg@10" not in row for row in repeated)
    for name, weights in validated.state_dict().items():
        assert torch.equal(again.state_dict()[name], weights), name
    history = json.loads((tmp_path / "refit" / HISTORY).read_text())
    assert history["best_epoch"] is None and len(history["epochs"]) == best + 1
