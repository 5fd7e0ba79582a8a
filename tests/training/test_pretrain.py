"""Pre-training: it learns over domains, by held-out users, and goes on after a kill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentences_of import ring_store

from recsys.config import EvaluationConfig, PretrainConfig
from recsys.data.domains import Domain
from recsys.data.pairs import PairBatches
from recsys.data.sequences import SequenceStore, TrainingData
from recsys.errors import DataError
from recsys.losses.contrastive import in_batch_contrast
from recsys.models.recformer.encoder import TextEncoder
from recsys.models.recformer.ranker import SentenceRanker
from recsys.training.callbacks import BEST
from recsys.training.fit import FitPlan
from recsys.training.pretrain import PairContrast, PretrainData, hold_out, pretrain

N, USERS, LENGTH = 20, 40, 6


def config(**settings: Any) -> PretrainConfig:
    training = {"epochs": 3, "batch_size": 16, "lr": 3e-3, "warmup_steps": 0, "device": "cpu"}
    raw = {
        "name": "p",
        "domains": ["a.yaml", "b.yaml"],
        "encoder": {
            "width": 32, "heads": 2, "inner": 32, "blocks": 1, "max_tokens": 12, "max_items": 3,
        },
        "temperature": 0.2,
        "held_out": 0.2,
    }  # fmt: skip
    return PretrainConfig.model_validate({**raw, "training": training, **settings})


def ring_domain(name: str, step: int) -> Domain:
    """Users walk along the ring of a domain, whose texts tell the way; the last event is tested."""
    start = np.random.default_rng(step).integers(0, N, USERS)
    items = ((start[:, None] + np.arange(LENGTH)) % N + 1).astype(np.int32)
    offsets = np.arange(USERS + 1, dtype=np.int64) * LENGTH
    store = SequenceStore(items.flatten(), offsets, N)
    return Domain(name, TrainingData(store, offsets[1:] - 1), ring_store(N))


def domains() -> list[Domain]:
    return [ring_domain("a", 1), ring_domain("b", 2)]


def plan(directory: Path, of: PretrainConfig, data: PretrainData) -> FitPlan:
    return FitPlan(
        training=of.training,
        evaluation=EvaluationConfig(),
        data=data.joined.data,
        validation=None,
        directory=directory,
        seed=5,
    )


def fitted(directory: Path, of: PretrainConfig, **changes: Any) -> Any:
    data = hold_out(of, domains())
    torch.manual_seed(0)
    encoder = TextEncoder(of.encoder, data.joined.sentences.vocabulary_size)
    return pretrain(encoder, of, data, replace(plan(directory, of, data), **changes)), encoder


def test_held_out_users_are_not_learned_from_and_only_their_training_events_ask() -> None:
    data = hold_out(config(), domains())
    for number, (domain, targets) in enumerate(zip(data.domains, data.validation, strict=True)):
        assert len(targets) == round(0.2 * USERS)
        assert (targets.end == domain.data.train_end[targets.user]).all()
        mine = data.trains[number * USERS : (number + 1) * USERS]
        assert not mine[targets.user].any() and mine.sum() == USERS - len(targets)
    assert len(hold_out(config(held_out_most=3), domains()).validation[0]) == 3
    with pytest.raises(DataError, match=r"domain a has 40 users.*raise held_out"):
        hold_out(config(held_out=0.001), domains())


def test_it_learns_to_rank_inside_every_domain(tmp_path: Path) -> None:
    end, encoder = fitted(tmp_path, config())
    first, last = end.rows[0], end.rows[-1]
    assert last["loss"] < first["loss"]
    for name in ("a", "b"):
        assert last[f"ndcg@10_{name}"] > 0.5  # a shuffled list has about 0.2
    assert last["ndcg@10"] == pytest.approx((last["ndcg@10_a"] + last["ndcg@10_b"]) / 2)
    kept = load_file(tmp_path / BEST)
    assert set(encoder.state_dict()) == {
        name.removeprefix("encoder.") for name in kept if name.startswith("encoder.")
    }


def test_an_interrupted_one_ends_where_an_undisturbed_one_does(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(row: dict[str, float]) -> None:
        if row["epoch"] == 1:
            raise Killed

    undisturbed, _ = fitted(tmp_path / "one", config())
    with pytest.raises(Killed):
        fitted(tmp_path / "two", config(), on_epoch=kill)
    resumed, _ = fitted(tmp_path / "two", config())
    losses = [[row["loss"] for row in end.rows] for end in (undisturbed, resumed)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


def loss_and_gradients(**settings: Any) -> tuple[float, list[torch.Tensor]]:
    of = config(**settings)
    data = hold_out(of, domains())
    torch.manual_seed(0)
    encoder = TextEncoder(of.encoder, data.joined.sentences.vocabulary_size).eval()
    model = SentenceRanker(encoder, 2 * N, data.joined.sentences).eval()
    torch.manual_seed(1)
    objective = PairContrast(of)
    objective.reseed(3)
    batch = next(PairBatches(data.joined.data, 3, 16, domains=data.joined.domains).epoch(0))
    loss = objective(model, batch, 0.0)
    loss.backward()
    return loss.item(), [p.grad for p in encoder.parameters() if p.grad is not None]


def test_the_cached_loss_and_its_gradients_are_those_of_the_whole_batch() -> None:
    loss, expected = loss_and_gradients()
    small = {**config().encoder.model_dump(), "bucket_tokens": 24}
    again, found = loss_and_gradients(cached=True, encoder=small)
    assert again == pytest.approx(loss, rel=1e-5)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_without_hidden_words_the_loss_is_the_contrast() -> None:
    loss, _ = loss_and_gradients(mlm_weight=0)
    of = config()
    data = hold_out(of, domains())
    torch.manual_seed(0)
    encoder = TextEncoder(of.encoder, data.joined.sentences.vocabulary_size).eval()
    model = SentenceRanker(encoder, 2 * N, data.joined.sentences).eval()
    batch = next(PairBatches(data.joined.data, 3, 16, domains=data.joined.domains).epoch(0))
    assert batch.targets is not None
    targets = batch.targets.flatten()[batch.last]
    with torch.no_grad():
        a, b = model.encode_sequences(batch), model.encode_items(targets)
        rows = torch.from_numpy(data.joined.sentences.rows.astype(np.int64))[targets]
        assert loss == pytest.approx(in_batch_contrast(a, b, rows, 0.2).item(), rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"domains": ["x/a.yaml", "y/a.yaml"]}, "each configuration once"),
        ({"start": "somewhere"}, r"set tokenizer\.directory"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        config(**settings)
