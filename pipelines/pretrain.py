"""The pre-training of Recformer over several data sets: one tokenizer, one encoder.

    <output>/<name>/sentences/     tokenizer, and the tokens of each domain's items
    <output>/<name>/pretrained/    encoder.safetensors, encoder.json, tokenizer, history, manifest

Each domain is an experiment's configuration; its stages `prepare` and `features` are run if they are not
up to date. Of its events those that train are learned from. An interrupted pre-training goes on after
its last finished epoch.
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipelines.environment import set_training_environment
from pipelines.training_group import data_parallel, run_workers
from pipelines.training_process import join_tracking, tell_epoch
from recsys.config import (
    EvaluationConfig,
    ExperimentConfig,
    PretrainConfig,
    dump_config,
    load_config,
    parse_pretrain_config,
)
from recsys.manifest import is_current, read_manifest, stable_hash, stage_directory

if TYPE_CHECKING:
    from rich.console import Console

    from features.tokenizer import TextTokenizer
    from recsys.data.domains import Domain

logger = logging.getLogger(__name__)

STAGE_VERSION: Final = 1
SENTENCES: Final = "sentences"
TOKENIZER: Final = "tokenizer"
PRETRAINED: Final = "pretrained"
HISTORY: Final = "history.json"


def pretrain(config: PretrainConfig, console: Console) -> Path:
    """Return the finished directory of a pre-training, made anew unless it is current."""
    from pipelines.stages import plan, run_steps

    domains = domain_configs(config)
    for domain in domains.values():
        run_steps(
            domain, [s for stage in ("prepare", "features") for s in plan(domain, stage)], console
        )
    sentences = build_sentences(config, domains)
    directory, key = config.workspace / PRETRAINED, pretrain_key(config, domains)
    if is_current(directory, key):
        return directory
    with stage_directory(directory, key) as (work, manifest):
        _train(config, domains, work, manifest)
        for file in (sentences / TOKENIZER).iterdir():
            shutil.copy(file, work / file.name)
    return directory


def domain_configs(config: PretrainConfig) -> dict[str, ExperimentConfig]:
    """Return the experiments of the domains by name, all below the pre-training's output."""
    found = {}
    for path in config.domains:
        domain = load_config(path, config.domain_overrides)
        found[domain.name] = domain.model_copy(update={"output": config.output})
    return found


def pretrain_key(config: PretrainConfig, domains: dict[str, ExperimentConfig]) -> str:
    """Return the hash of everything that makes the weights; needs the sentences."""
    from recsys.models.recformer.checkpoints import checkpoint_hash

    left_out = {
        "name", "output", "domains", "domain_overrides", "ray", "tracking",
        "tokenizer", "start",  # by their bytes, below and in the sentences' key
    }  # fmt: skip
    return stable_hash(
        {
            "sentences": read_manifest(config.workspace / SENTENCES)["key"],
            "features": {
                n: read_manifest(d.workspace / "features")["key"] for n, d in domains.items()
            },
            "settings": config.model_dump(mode="json", exclude=left_out),
            "start": None if config.start is None else checkpoint_hash(config.start),
            "train_workers": config.ray.train_workers,
            "version": STAGE_VERSION,
        }
    )


def build_sentences(config: PretrainConfig, domains: dict[str, ExperimentConfig]) -> Path:
    """Return the directory with the tokenizer and the tokens of every domain's items."""
    import polars as pl

    from features.sentences import SentenceMaker
    from features.texts import choose_attributes
    from features.tokenizer import tokenizer_files

    prepared = {n: read_manifest(d.workspace / "prepared")["key"] for n, d in domains.items()}
    limits = {
        name: domain.text.model_dump(
            mode="json", exclude={"tokenizer", "vocabulary_size", "lowercase"}
        )
        for name, domain in domains.items()
    }
    tokenizer = config.tokenizer.model_dump(mode="json")
    if config.tokenizer.directory is not None:
        tokenizer["directory"] = tokenizer_files(config.tokenizer.directory)
    key = stable_hash(
        {"prepared": prepared, "limits": limits, "tokenizer": tokenizer, "version": STAGE_VERSION}
    )
    directory = config.workspace / SENTENCES
    if is_current(directory, key):
        return directory
    with stage_directory(directory, key) as (work, manifest):
        items = {
            name: pl.read_parquet(domain.workspace / "prepared" / "items.parquet")
            for name, domain in domains.items()
        }
        chosen = {name: choose_attributes(items[name], domains[name].text) for name in domains}
        found = _tokenizer(config, domains, items, chosen)
        found.save(work / TOKENIZER)
        counts = {}
        for name, domain in domains.items():
            maker = SentenceMaker(found, tuple(chosen[name]), domain.text)
            store = maker.of_frame(items[name])
            store.save(work / name)
            counts[name] = {
                "items": store.n_items,
                "texts": store.n_texts - 1,
                "tokens": len(store.tokens),
            }
        manifest.update(tokenizer_hash=found.hash, vocabulary=found.vocabulary_size, domains=counts)
    return directory


def _tokenizer(
    config: PretrainConfig,
    domains: dict[str, ExperimentConfig],
    items: dict[str, Any],
    attributes: dict[str, list[str]],
) -> TextTokenizer:
    """Return the configured tokenizer, or one trained on the items with training events."""
    from features.texts import attribute_texts, most_characters
    from features.tokenizer import load_tokenizer, train_tokenizer

    settings = config.tokenizer
    if settings.directory is not None:
        return load_tokenizer(settings.directory)
    texts: list[str] = []
    for name, domain in domains.items():
        trained = _training_data(domain).item_counts()[1:] > 0
        some = items[name].sort("item").filter(trained)
        read = attribute_texts(
            some, attributes[name], most_characters(domain.text, attributes[name])
        )
        texts += [text for column in read for text in column]
    names = dict.fromkeys(name for some in attributes.values() for name in some)
    return train_tokenizer(
        texts, list(names), vocabulary_size=settings.vocabulary_size, lowercase=settings.lowercase
    )


def _training_data(domain: ExperimentConfig) -> Any:
    from pipelines.fitting import open_data
    from pipelines.runs import last_fold
    from recsys.data.sequences import TrainingData

    store, split = open_data(domain, last_fold(domain))
    return TrainingData(store, split.train_end)


def _train(
    config: PretrainConfig,
    domains: dict[str, ExperimentConfig],
    work: Path,
    manifest: dict[str, Any],
) -> None:
    """Train in Ray's processes; leave weights and history in the stage's directory."""
    from pipelines.ray_session import ray_session
    from pipelines.tracking import Tracker, code_tags, tracker_settings

    (work / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    tracker = Tracker(tracker_settings(config, "pretrain"))
    tracker.start_run(config.training.model_dump(mode="json"), {"stage": "pretrain", **code_tags()})
    joined = replace(tracker.settings, run_id=tracker.run_id)
    # Ray's training workers run in a directory of their own.
    start = None if config.start is None else config.start.absolute()
    homes = {n: d.model_copy(update={"output": d.output.absolute()}) for n, d in domains.items()}
    settings = {
        "config": config.model_copy(update={"start": start}).model_dump(mode="json"),
        "domains": {name: domain.model_dump(mode="json") for name, domain in homes.items()},
        "sentences": str(config.workspace / SENTENCES),
        "directory": str(work),
        "tracking": None if tracker.run_id is None else asdict(joined),
    }
    with ray_session(config.ray):
        training = config.training
        run_workers(pretrain_worker, settings, config.ray, training, training.epochs, "pretrain")
    shutil.rmtree(work / "ray", ignore_errors=True)
    shutil.rmtree(work / "checkpoints", ignore_errors=True)
    history = json.loads((work / HISTORY).read_text())
    manifest.update(
        best=history["best"], best_epoch=history["best_epoch"], mlflow_run=tracker.run_id
    )
    tracker.finish()


def pretrain_worker(settings: dict[str, Any]) -> None:
    """Pre-train in one process of a Ray Train group."""
    import ray.train

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    work = Path(settings["directory"])
    tracker = join_tracking(settings) if rank == 0 else None
    fit_encoder(
        settings,
        on_epoch=partial(tell_epoch, work, tracker),
        trainer=data_parallel() if world_size > 1 else None,
        rank=rank,
        world_size=world_size,
    )


def fit_encoder(settings: dict[str, Any], **plan: Any) -> None:
    """Pre-train the encoder that the settings describe, leave it and its history in their directory."""
    set_training_environment()
    import torch
    from safetensors.torch import load_file

    from recsys.models.recformer.checkpoints import load_pretrained, save_pretrained
    from recsys.models.recformer.encoder import TextEncoder
    from recsys.runtime import derive_seed
    from recsys.training.callbacks import BEST
    from recsys.training.fit import FitPlan
    from recsys.training.pretrain import hold_out
    from recsys.training.pretrain import pretrain as train_encoder

    config, work = parse_pretrain_config(settings["config"]), Path(settings["directory"])
    data = hold_out(config, open_domains(settings))
    tokens = data.joined.sentences
    torch.manual_seed(derive_seed(config.seed, 1))
    encoder = TextEncoder(config.encoder, tokens.vocabulary_size)
    if config.start is not None:
        load_pretrained(encoder, tokens.tokenizer_hash, config.start)
    checkpoints = work / "checkpoints"
    fit_plan = FitPlan(
        training=config.training,
        evaluation=EvaluationConfig(),
        data=data.joined.data,
        validation=None,
        directory=checkpoints,
        seed=config.seed,
        **plan,
    )
    end = train_encoder(encoder, config, data, fit_plan)
    if fit_plan.rank > 0:
        return
    best = load_file(checkpoints / BEST)
    own = {n.removeprefix("encoder."): v for n, v in best.items() if n.startswith("encoder.")}
    encoder.load_state_dict(own)
    save_pretrained(encoder, tokens.tokenizer_hash, work)
    history = {"best": end.best[0], "best_epoch": end.best[1], "epochs": end.rows}
    (work / HISTORY).write_text(json.dumps(history, indent=1) + "\n", encoding="utf-8")


def open_domains(settings: dict[str, Any]) -> list[Domain]:
    """Return the domains of a pre-training, memory-mapped."""
    from recsys.config import parse_config
    from recsys.data.domains import Domain
    from recsys.data.token_store import TokenStore

    return [
        Domain(
            name,
            _training_data(parse_config(raw)),
            TokenStore.load(Path(settings["sentences"]) / name),
        )
        for name, raw in settings["domains"].items()
    ]
