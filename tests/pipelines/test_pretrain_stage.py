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
import yaml
from rich.console import Console

from pipelines.pretrain import PRETRAINED, SENTENCES, pretrain
from pipelines.ray_session import ray_session
from pipelines.stages import run_experiment
from recsys.bundle import load_bundle
from recsys.config import RayConfig, load_config, load_pretrain_config
from recsys.data.token_store import TokenStore
from recsys.errors import ArtifactError, ConfigError
from recsys.manifest import read_manifest
from recsys.models.recformer.model import Recformer
from recsys.published import find_bundle

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


def experiment(pretrained: Path, write_config: Callable[..., Path], **model: Any) -> Path:
    recformer = {"kind": "recformer", "encoder": ENCODER, "pretrained": str(pretrained), **model}
    return write_config(
        name="third",
        models={"pop": {"kind": "pop"}, "recformer": recformer},
        text={"tokenizer": str(pretrained)},
        tracking={"enabled": False},
        publish={"model": "recformer"},
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


@pytest.mark.ray
@pytest.mark.slow
def test_an_encoder_of_two_domains_ranks_a_third(
    pretraining: Path, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    config, out = load_pretrain_config(pretraining), io.StringIO()
    console = Console(file=out, width=120)
    with ray_session(RayConfig(workers=1, object_store_mb=80)):
        directory = pretrain(config, console)
        made = (directory / "manifest.json").stat().st_mtime_ns
        assert pretrain(config, console) == directory
        assert (directory / "manifest.json").stat().st_mtime_ns == made  # nothing to do
        history = json.loads((directory / "history.json").read_text())
        assert set(history["epochs"][0]) >= {"ndcg@10_one", "ndcg@10_two", "loss", "seconds"}
        assert (directory / "tokenizer.json").is_file()
        sentences = config.workspace / SENTENCES
        facts = read_manifest(sentences)
        assert facts["domains"]["one"]["items"] == 25 and config.workspace / PRETRAINED == directory
        assert TokenStore.load(sentences / "two").tokenizer_hash == facts["tokenizer_hash"]

        third = load_config(experiment(directory, write_config, stages="none"))
        run_experiment(third, console)
        assert "recformer" in out.getvalue()
        bundle = load_bundle(find_bundle(third.workspace / "bundles"))
        model = bundle.model
        assert isinstance(model, Recformer) and bundle.index is not None
        assert pl.Series(bundle.index.vectors.norm(dim=1)[1:].tolist()).is_between(0.99, 1.01).all()

        learned = load_config(
            experiment(directory, write_config, training={**TRAINING, "epochs": 2}), ["refit=true"]
        )
        run_experiment(learned, console)
    path = find_bundle(learned.workspace / "bundles")
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(path)], capture_output=True, text=True, check=True
    )
    items = json.loads(done.stdout.splitlines()[-1])
    assert len(set(items)) == 5 and not {"i03", "i04"} & set(items)


def test_weights_that_are_not_there_are_missed_before_anything_is_trained(
    fitted_experiment: Any, tmp_path: Path
) -> None:
    from pipelines.train import run_key
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
