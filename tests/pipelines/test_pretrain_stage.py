"""From two domains to an encoder, and from that to a bundle of a third that was never learned from."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import yaml
from made_experiment import finish_training, no_session, run_stages_here
from rich.console import Console
from safetensors.torch import load_file

import pipelines.pretrain
import pipelines.ray_session
import pipelines.stages
import pipelines.text
import pipelines.train
from pipelines.evaluate import evaluate
from pipelines.index import index
from pipelines.pretrain import SENTENCES, fit_encoder, pretrain
from pipelines.publish import publish
from pipelines.runs import open_run
from pipelines.text import build_sentences
from pipelines.train import train
from pipelines.training_process import _stage_epochs, train_process
from recsys.bundle import load_bundle
from recsys.config import ExperimentConfig, load_config, load_pretrain_config
from recsys.data.sequences import SequenceStore, Split, TrainingData
from recsys.data.statistics import TrainingStatistics
from recsys.data.token_store import TokenStore
from recsys.errors import ArtifactError, ConfigError
from recsys.manifest import read_manifest, write_manifest
from recsys.models.recformer.model import Recformer
from recsys.recommender import ItemText, Query, Recommender
from serving.text_places import TextPlaces

ENCODER = {
    "width": 16, "heads": 2, "inner": 16, "blocks": 1, "max_tokens": 24, "max_items": 4,
}  # fmt: skip
TRAINING = {"epochs": 1, "batch_size": 16, "warmup_steps": 0, "lr": 1e-3}
RAY = {"workers": 1, "partitions": 1, "object_store_mb": 80}


@pytest.fixture
def domains(write_config: Callable[..., Path], tmp_path: Path) -> list[str]:
    """Two configurations of the tiny log, by two names."""
    found = []
    for name in ("one", "two"):
        path = write_config(name=name, tracking={"enabled": False})
        found.append(str(path.rename(tmp_path / f"{name}.yaml")))
    return found


@pytest.fixture
def pretraining(domains: list[str], tmp_path: Path) -> Path:
    """The YAML of a pre-training over both."""
    raw = {
        "name": "both", "output": str(tmp_path / "out"), "domains": domains, "encoder": ENCODER,
        "tokenizer": {"vocabulary_size": 200}, "held_out": 0.2, "training": TRAINING, "ray": RAY,
        "tracking": {"enabled": False},
    }  # fmt: skip
    path = tmp_path / "both.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return path


def experiment(pretrained: Path, write_config: Callable[..., Path]) -> Path:
    recformer = {
        "kind": "recformer", "encoder": ENCODER, "pretrained": str(pretrained),
        "lexical": {"history": 6},
    }  # fmt: skip
    return write_config(
        name="third",
        models={
            "zero_shot": {**recformer, "stages": "none"},
            "tuned": {**recformer, "training": TRAINING},
        },
        text={"tokenizer": str(pretrained)},
        evaluation={"bootstrap": 100, "permutations": 100},
        tracking={"enabled": False},
        publish={"model": "tuned"},
    )


LOAD = """
import sys, json, torch
from pathlib import Path
from recsys.bundle import load_bundle
from recsys.recommender import Query, Recommender
bundle = load_bundle(Path(sys.argv[1]))
[answer] = Recommender(bundle).recommend([Query(history=["i03", "i04"], k=5)])
print(json.dumps(answer.items))
"""


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run what Ray would run in this process."""
    run_stages_here(monkeypatch)
    for module in (pipelines.ray_session, pipelines.text, pipelines.train):
        monkeypatch.setattr(module, "ray_session", no_session)
    monkeypatch.setattr(
        pipelines.text, "map_partitions", lambda task, items, workers, title: list(map(task, items))
    )
    monkeypatch.setattr(pipelines.text, "worker_count", lambda config: 1)
    monkeypatch.setattr(
        pipelines.pretrain, "run_workers", lambda worker, settings, *rest: fit_encoder(settings)
    )
    monkeypatch.setattr(
        pipelines.train, "run_workers", lambda worker, settings, *rest: train_process(settings)
    )


def finish_features(
    path: Path, store: SequenceStore, split: Split, items: pl.DataFrame
) -> ExperimentConfig:
    """Write the stages before sentences of a configuration."""
    config = load_config(path, ["models={pop: {kind: pop}}", "publish={}", "refit=false"])
    finish_training(config, store, split, items)
    counts = TrainingData(store, split.train_end).item_counts()
    for name in ("main", "main-refit"):
        folder = config.workspace / "features" / "statistics" / name
        TrainingStatistics(None, None, counts).save(folder)
    return config


@pytest.mark.usefixtures("here")
def test_an_encoder_of_two_domains_ranks_a_third(
    pretraining: Path,
    write_config: Callable[..., Path],
    tiny_store: SequenceStore,
    tiny_split: Split,
    tiny_items: pl.DataFrame,
) -> None:
    config, console = load_pretrain_config(pretraining), Console(file=io.StringIO(), width=120)
    made = (tiny_store, tiny_split, tiny_items)
    for path in config.domains:
        finish_features(path, *made)
    monkey = pytest.MonkeyPatch()
    monkey.setattr(pipelines.stages, "run_steps", lambda *stages: [])  # they are finished
    directory = pretrain(config, console)
    written = (directory / "manifest.json").stat().st_mtime_ns
    assert pretrain(config, console) == directory
    assert (directory / "manifest.json").stat().st_mtime_ns == written  # nothing to do
    monkey.undo()
    history = json.loads((directory / "history.json").read_text())
    assert set(history["epochs"][0]) >= {"ndcg@10_one", "ndcg@10_two", "loss", "seconds"}
    facts = read_manifest(config.workspace / SENTENCES)
    assert facts["domains"]["one"]["items"] == 25
    two = TokenStore.load(config.workspace / SENTENCES / "two")
    assert two.tokenizer_hash == facts["tokenizer_hash"]

    third = load_config(experiment(directory, write_config))
    finish_features(experiment(directory, write_config), *made)
    build_sentences(third)
    for refit in (False, True):
        for name in third.models:
            train(third, name, refit=refit)
    refitted = third.model_copy(update={"refit": True})
    for name in third.models:
        index(refitted, name)
    path = publish(refitted, evaluate(refitted))
    bundle = load_bundle(path)
    assert isinstance(bundle.model, Recformer) and bundle.index is not None
    assert torch.equal(bundle.index.vectors, bundle.model.encode_items())
    zero = open_run(third, "zero_shot", "main").model
    assert isinstance(zero, Recformer)
    pretrained = load_file(directory / "encoder.safetensors")
    assert torch.equal(zero.encoder.words.weight, pretrained["words.weight"])
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(path)], capture_output=True, text=True, check=True
    )
    items = json.loads(done.stdout.splitlines()[-1])
    assert len(set(items)) == 5 and not {"i03", "i04"} & set(items)
    assert (
        bundle.index.rescored is not None
    )  # measured, as for every model that is more than a product
    reading = Recommender(bundle, read_texts=TextPlaces(bundle))  # the bundle has what reads texts
    said = [ItemText({"title": tiny_items["title"][0]}), "i03"]
    [answer] = reading.recommend([Query(history=said, k=5)])
    assert answer.texts[0].taken_as == "text" and len(answer.items) == 5
    only_what_changed_is_encoded(third, tiny_items)


def only_what_changed_is_encoded(config: ExperimentConfig, items: pl.DataFrame) -> None:
    """Two items get other texts and one of them another item's: of 24 texts one is encoded again."""

    def encoded(refit: bool = False) -> float:
        found = read_manifest(train(config, "zero_shot", refit=refit))["metrics"]
        return float(found["texts_encoded"])

    assert (encoded(), encoded(refit=True)) == (26.0, 0.0)  # the empty text is one
    title = pl.Series(
        "title", [*items["title"][:5], "Another title", "Title of i00", *items["title"][7:]]
    )
    category = pl.Series("category", [*items["category"][:6], "even", *items["category"][7:]])
    path = config.workspace / "prepared" / "items.parquet"
    pl.read_parquet(path).with_columns(title, category).write_parquet(path)
    for stage in ("prepared", "features"):
        before = read_manifest(config.workspace / stage)
        write_manifest(config.workspace / stage, {**before, "key": f"another {stage}"})
    sentences = read_manifest(build_sentences(config))["rows"]["main"]
    assert (sentences["texts"], sentences["texts_reused"]) == (24, 23)
    assert encoded() == 1.0
    model = open_run(config, "zero_shot", "main").model
    assert isinstance(model, Recformer)
    whole = model.item_vectors.clone()
    assert model.refresh_items() == 25
    torch.testing.assert_close(model.item_vectors, whole, atol=1e-6, rtol=0)


def test_weights_that_are_not_there_are_missed_before_anything_is_trained(
    fitted_experiment: Any, tmp_path: Path
) -> None:
    from pipelines.run_keys import run_key
    from recsys.config import RecformerConfig

    model = RecformerConfig(pretrained=tmp_path / "nowhere", stages="none")
    config = fitted_experiment.model_copy(update={"models": {"recformer": model}})
    with pytest.raises(ArtifactError, match=r"sentences|neither a finished pre-training"):
        run_key(config, "recformer")


def test_a_configuration_says_where_it_is_wrong(pretraining: Path) -> None:
    with pytest.raises(ConfigError, match=r"mlm_share"):
        load_pretrain_config(pretraining, ["mlm_share=2"])
    with pytest.raises(ConfigError, match=r"domains"):
        load_pretrain_config(pretraining, ["domains=[]"])


def row(stage: int, epoch: int, value: float | None) -> dict[str, float]:
    found = {"stage": float(stage), "epoch": float(epoch), "loss": 1.0}
    return found if value is None else {**found, "ndcg@10": value}


def test_a_refit_is_told_the_epochs_that_led_to_the_best() -> None:
    first = [row(1, 0, None), row(1, 1, 0.3), row(1, 2, None), row(1, 3, 0.2)]
    second = [row(2, 4, 0.25), row(2, 5, None), row(2, 6, 0.4)]
    led = {"stage_1_epochs": 2.0, "stage_2_epochs": 3.0}
    assert _stage_epochs([*first, *second], second[2]) == led
    assert _stage_epochs(first, first[1]) == {"stage_1_epochs": 2.0, "stage_2_epochs": 0.0}
    assert _stage_epochs(second, {**second[2], "epoch": 2.0})["stage_1_epochs"] == 0.0
    assert _stage_epochs([], {"epoch": 3.0, "ndcg@10": 0.1}) == {}


def test_it_is_a_command() -> None:
    from pipelines.cli import app

    names = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback}
    assert "pretrain" in names
