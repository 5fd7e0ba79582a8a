"""Training on whole baskets: every loss of sets learns which basket follows, in the real pipeline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_fit import assert_same_result
from test_totals import Watch

from recsys.config import EvaluationConfig, LossConfig, SASRecConfig, TrainingConfig
from recsys.data.sequences import SequenceStore, Targets, TrainingData
from recsys.models.sasrec import SASRec
from recsys.training.fit import FitPlan, fit
from recsys.training.module import TrainingModule

GROUPS, MEMBERS, USERS, BASKETS = 8, 4, 50, 6
ITEMS = GROUPS * MEMBERS


def basket_ring() -> tuple[SequenceStore, Targets]:
    """Baskets that walk a ring of item groups: three of a group's four items, in any order."""
    rng = np.random.default_rng(0)
    items, baskets, size = [], [], MEMBERS - 1
    for _ in range(USERS):
        begin = int(rng.integers(GROUPS))
        for step in range(BASKETS):
            group = (begin + step) % GROUPS
            items += (group * MEMBERS + rng.choice(MEMBERS, size, replace=False) + 1).tolist()
            baskets += [step] * size
    offsets = np.arange(USERS + 1, dtype=np.int64) * BASKETS * size
    store = SequenceStore(
        np.array(items, dtype=np.int32),
        offsets,
        ITEMS,
        baskets=np.array(baskets, dtype=np.int32),
    )
    user = np.arange(USERS, dtype=np.int32)
    return store, Targets(user, offsets[1:] - size, offsets[1:])


def plan(directory: Path, loss: dict[str, Any], **training: Any) -> FitPlan:
    store, validation = basket_ring()
    settings: dict[str, Any] = {"epochs": 10, "batch_size": 8, "lr": 0.01, "warmup_steps": 5}
    settings |= {"device": "cpu", "objective": "next_basket_set", "loss": LossConfig(**loss)}
    return FitPlan(
        training=TrainingConfig(**settings | training),
        evaluation=EvaluationConfig(exclude="none"),
        data=TrainingData(store, validation.start),
        validation=validation,
        directory=directory,
        seed=3,
    )


def model() -> SASRec:
    torch.manual_seed(1)
    training = TrainingConfig(objective="next_basket_set")
    config = SASRecConfig(width=16, max_length=18, blocks=1, baskets="set", training=training)
    return SASRec(config, ITEMS)


LOSSES: dict[str, dict[str, Any]] = {
    "softmax": {"kind": "set_softmax"},
    "softmax sampled": {"kind": "set_softmax", "against": "sampled", "negatives": 16},
    "mass": {"kind": "set_mass"},
    "plackett_luce": {"kind": "set_plackett_luce"},
    "plackett_luce sampled": {
        "kind": "set_plackett_luce",
        "against": "sampled",
        "negatives": 16,
        "share": "batch",
        "sampler": "popularity",
    },
    "bce": {"kind": "set_bce", "negatives": 16},
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_every_loss_of_sets_learns_the_next_basket(loss: dict[str, Any], tmp_path: Path) -> None:
    """The group of four is certain, so the best possible HR@4 is 1; popularity has 1/8."""
    rows = fit(model(), plan(tmp_path, loss, epochs=18))  # set_bce takes the longest
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert max(row["ndcg@10"] for row in rows) > 0.75


def test_the_rest_of_a_list_is_learned_as_a_set(tmp_path: Path) -> None:
    """Three groups of eight may be the rest of a list, so the best figure is lower; popularity has 1/8."""
    torch.manual_seed(1)
    ordered = SASRec(SASRecConfig(width=16, max_length=18, blocks=1), ITEMS)
    rows = fit(ordered, plan(tmp_path, LOSSES["plackett_luce"], objective="rest_set"))
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert max(row["ndcg@10"] for row in rows) > 0.35


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_no_step_with_sets_waits_for_the_device(
    loss: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, watch = TrainingModule.training_step, Watch()

    def watched(self: TrainingModule, *args: Any) -> Any:
        with watch:
            return plain(self, *args)

    monkeypatch.setattr(TrainingModule, "training_step", watched)
    fit(model(), plan(tmp_path, loss, epochs=1, repeats="mask"))
    assert watch.operations > 100
    assert watch.waits == []


def test_a_resumed_training_on_sets_ends_where_an_undisturbed_one_does(tmp_path: Path) -> None:
    whole = plan(tmp_path / "whole", LOSSES["softmax sampled"], epochs=3, ema=0.9)
    fit(model(), whole)
    stopped = replace(whole, directory=tmp_path / "stopped", on_epoch=stop_after_the_first)
    with pytest.raises(Stopped):
        fit(model(), stopped)
    fit(model(), replace(stopped, on_epoch=None))
    assert_same_result(tmp_path / "whole", tmp_path / "stopped")


class Stopped(Exception):
    """Ends a training early."""


def stop_after_the_first(row: dict[str, float]) -> None:
    if row["epoch"] == 0:
        raise Stopped
