"""Fine-tuning: it learns, in two stages that keep what belongs together, and goes on after a kill."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentences_of import ring_store

from recsys.config import EvaluationConfig, RecformerConfig, TextEncoderConfig, TrainingConfig
from recsys.data.pairs import PairBatches
from recsys.data.sequences import SequenceStore, Targets, TrainingData
from recsys.losses import Softmax
from recsys.models.recformer.model import Recformer
from recsys.training.finetune import NewestPlacePrediction, finetune
from recsys.training.fit import FitPlan, rank_validation

N, USERS, LENGTH = 20, 60, 8


def plan(directory: Path, **training: Any) -> FitPlan:
    """Users walk along the ring; their last step is what validation asks for."""
    start = np.random.default_rng(0).integers(0, N, USERS)
    items = (start[:, None] + np.arange(LENGTH)) % (N - 1) + 1  # item N never happens
    offsets = np.arange(USERS + 1, dtype=np.int64) * LENGTH
    store = SequenceStore(items.flatten().astype(np.int32), offsets, N)
    ends = offsets[1:] - 1
    settings = {"epochs": 4, "batch_size": 16, "lr": 3e-3, "warmup_steps": 0, "device": "cpu"}
    return FitPlan(
        training=TrainingConfig(**{**settings, **training}),
        evaluation=EvaluationConfig(),
        data=TrainingData(store, ends),
        validation=Targets(np.arange(USERS, dtype=np.int32), ends, ends + 1),
        directory=directory,
        seed=3,
    )


def ready(**settings: Any) -> Recformer:
    torch.manual_seed(1)
    shape = TextEncoderConfig(width=32, heads=2, inner=32, blocks=1, max_tokens=12, max_items=3)
    model = Recformer(RecformerConfig(encoder=shape, temperature=0.2, **settings), N)
    model.set_sentences(ring_store(N))
    return model


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recformer, FitPlan, list[Any]]:
    model, its = ready(), plan(tmp_path_factory.mktemp("finetune"))
    return model, its, finetune(model, its)


def test_it_learns_what_the_sentences_tell(learned: tuple[Recformer, FitPlan, list[Any]]) -> None:
    model, its, rows = learned
    untrained = ready()
    untrained.refresh_items()
    after = rank_validation(model, its)["ndcg@10"]
    assert after > rank_validation(untrained, its)["ndcg@10"] + 0.2
    assert after == pytest.approx(max(row["ndcg@10"] for row in rows))
    assert [row["stage"] for row in rows] == [1, 1, 1, 1, 2, 2, 2, 2]
    assert [row["epoch"] for row in rows] == list(range(8))
    history = json.loads((its.directory / "history.json").read_text())
    assert history["best"] == pytest.approx(after)
    written = load_file(its.directory / "model.safetensors")
    assert torch.equal(written["item_vectors"], model.item_vectors)
    assert model.default_query.count_nonzero() > 0


def test_the_kept_item_encoder_makes_the_kept_vectors(
    learned: tuple[Recformer, FitPlan, list[Any]],
) -> None:
    model = learned[0]
    torch.testing.assert_close(
        model.vectors_of(ring_store(N)), model.item_vectors, rtol=0, atol=1e-6
    )


def test_what_stage_two_makes_worse_is_not_kept(tmp_path: Path) -> None:
    first = replace(plan(tmp_path / "one"), stage_epochs=(4, 0))
    finetune(ready(), first)
    spoilt = replace(plan(tmp_path / "two", lr=3e-3), stage_epochs=(4, 1))
    model = ready()

    def spoil(row: dict[str, float]) -> None:
        if row["stage"] == 1 and row["epoch"] == 3:
            spoilt.training.__dict__["lr"] = 10.0  # of stage two, which reads it afterwards

    rows = finetune(model, replace(spoilt, on_epoch=spoil))
    assert rows[-1]["ndcg@10"] < max(row["ndcg@10"] for row in rows)
    kept = load_file(tmp_path / "one" / "model.safetensors")
    assert torch.equal(model.item_vectors, kept["item_vectors"])
    assert torch.equal(model.encoder.words.weight, kept["encoder.words.weight"])


def test_items_stand_still_in_stage_two(tmp_path: Path) -> None:
    model = ready(stages="second")
    model.refresh_items()
    before = model.item_vectors.clone()
    words = model.encoder.words.weight.detach().clone()
    rows = finetune(model, plan(tmp_path, epochs=2))
    assert torch.equal(model.item_vectors, before)
    assert not torch.equal(model.encoder.words.weight, words)
    assert {row["stage"] for row in rows} == {2}


def test_words_may_stand_still(tmp_path: Path) -> None:
    model = ready(stages="second", train_words=False)
    words = model.encoder.words.weight.detach().clone()
    finetune(model, plan(tmp_path, epochs=1))
    assert torch.equal(model.encoder.words.weight, words)


def test_an_interrupted_one_ends_where_an_undisturbed_one_does(
    tmp_path: Path, learned: tuple[Recformer, FitPlan, list[Any]]
) -> None:
    class Killed(Exception):
        pass

    for at in (1, 5):  # in either stage

        def kill(row: dict[str, float], at: int = at) -> None:
            if row["epoch"] == at:
                raise Killed

        with pytest.raises(Killed):
            finetune(ready(), replace(plan(tmp_path), on_epoch=kill))
    model = ready()
    rows = finetune(model, plan(tmp_path))
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in learned[2]])
    for name, value in model.state_dict().items():
        assert torch.equal(value, learned[0].state_dict()[name]), name


def test_a_refit_takes_as_many_epochs_of_each_stage(tmp_path: Path) -> None:
    again = replace(plan(tmp_path), validation=None, stage_epochs=(2, 1))
    rows = finetune(ready(), again)
    assert [row["stage"] for row in rows] == [1, 1, 2]
    assert not any("ndcg@10" in row for row in rows)


def test_no_stage_is_zero_shot(tmp_path: Path) -> None:
    model = ready(stages="none", pretrained=tmp_path)
    before = {name: p.detach().clone() for name, p in model.encoder.named_parameters()}
    [row] = finetune(model, plan(tmp_path / "run"))
    assert row["ndcg@10"] == rank_validation(model, plan(tmp_path))["ndcg@10"]
    for name, parameter in model.encoder.named_parameters():
        assert torch.equal(parameter, before[name])
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_items_without_training_events_are_no_negatives() -> None:
    model, its = ready(), plan(Path())
    model.refresh_items()
    counts = its.data.item_counts()
    trained = torch.from_numpy(np.append(0, np.flatnonzero(counts)))
    assert N not in trained.tolist()
    objective = NewestPlacePrediction(Softmax(temperature=0.2), trained, N, refresh=False)
    batch = next(PairBatches(its.data, 3, 16).epoch(0))
    model.eval()
    loss = objective(model, batch, 0.0)
    targets = batch.targets.flatten()[batch.last]  # type: ignore[union-attr]
    scores = model.score(batch)[:, trained[1:]] / 0.2
    rows = torch.tensor([trained[1:].tolist().index(t) for t in targets.tolist()])
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(scores, rows))
