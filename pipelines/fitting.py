"""One fit of a learned model inside a worker: the data it may see, its seeded weights, its plan."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.environment import set_training_environment
from pipelines.statistics import training_statistics
from pipelines.warm_start import FACTS, earlier_model, start_from
from recsys.config import ExperimentConfig
from recsys.errors import ArtifactError, ConfigError

if TYPE_CHECKING:
    from recsys.data.sequences import SequenceStore, Split, Targets, TrainingData
    from recsys.models import EncoderModel
    from recsys.models.recformer.model import Recformer
    from recsys.training.callbacks import EpochRow
    from recsys.training.fit import FitPlan
    from recsys.training.warm_start import Earlier


def open_data(
    config: ExperimentConfig, fold: str, *, refit: bool = False
) -> tuple[SequenceStore, Split]:
    """Return all events, and the fold as a model sees it that is fitted for the first time or again."""
    from recsys.data.sequences import SequenceStore, Split

    store = SequenceStore.load(config.workspace / "features" / "sequences")
    split = Split.load(config.workspace / "prepared" / "splits" / fold)
    return store, split.refitted() if refit else split


def training_data(
    config: ExperimentConfig, name: str, fold: str, store: SequenceStore, split: Split
) -> TrainingData:
    """Return what a model may learn from: training events, and the texts that it reads."""
    from recsys.data.sequences import TrainingData

    model: Any = config.models[name]
    sentences = vectors = None
    if getattr(model, "needs_sentences", False):
        from pipelines.text import open_sentences

        sentences = open_sentences(config, fold)
    if getattr(model, "item_vectors", None) is not None:
        from pipelines.text_vectors import open_vectors

        vectors = open_vectors(config, model.item_vectors, fold)
    return TrainingData(store, split.train_end, sentences, vectors)


def fit_model(
    config: ExperimentConfig,
    name: str,
    fold: str,
    directory: Path,
    *,
    refit: bool = False,
    earlier: Earlier | None = None,
    **plan: Any,
) -> list[EpochRow]:
    """Fit a learned model of the configuration, leave its weights in `directory`, return its epochs.

    A refit is not validated. A model whose configuration `needs_statistics` gets those of the events that
    it learns from. It goes on from an `earlier` model, by default from the bundle of `warm_start`.
    `plan` holds further fields of the `FitPlan`.
    """
    set_training_environment()
    import torch

    from recsys.models import EncoderModel, build_model
    from recsys.models.item_table import read_texts
    from recsys.models.recformer.model import Recformer
    from recsys.runtime import derive_seed
    from recsys.training.fit import FitPlan, fit

    store, split = open_data(config, fold, refit=refit)
    model_config: Any = config.models[name]
    torch.manual_seed(derive_seed(config.seed, 1))
    model = build_model(model_config, store.n_items)
    if not isinstance(model, EncoderModel):
        raise TypeError(f"{type(model).__name__} is not trained by gradient")
    data, validation = training_data(config, name, fold, store, split), split.validation
    read_texts(model, data)
    if model_config.training.users < 1:
        data, validation = some_users(config, name, data, validation)
    if getattr(model_config, "song_vectors", None) is not None:
        _give_song_vectors(model, config, model_config.song_vectors)
    if (earlier := earlier or earlier_model(config, name)) is not None:
        facts = start_from(earlier, config, name, model, data)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / FACTS).write_text(json.dumps(facts), encoding="utf-8")
    if getattr(model_config, "needs_statistics", False):
        plan["statistics"] = training_statistics(config, fold, refit)
    whole = FitPlan(
        training=model_config.training,
        evaluation=config.evaluation,
        data=data,
        validation=None if refit else validation,
        directory=directory,
        seed=config.seed,
        **plan,
    )
    if isinstance(model, Recformer):
        return fit_recformer(model, replace(whole, kept=encoded_texts(config, name)))
    return fit(model, whole)


def _give_song_vectors(model: EncoderModel, config: ExperimentConfig, path: Path) -> None:
    """Let items begin with the vectors of a file; those without one keep what was drawn."""
    import torch

    from recsys.data.song_vectors import read_song_vectors
    from recsys.data.vocabulary import Vocabulary
    from recsys.schema import ITEM

    items = Vocabulary.load(config.workspace / "prepared" / "items.parquet", ITEM)
    given = torch.from_numpy(read_song_vectors(path, items, model.width))  # [n_items + 1, D]
    with torch.no_grad():
        table: torch.Tensor = model.item_table.weight  # type: ignore[union-attr, assignment]
        table.copy_(torch.where(given.isnan(), table, given))


def encoded_texts(config: ExperimentConfig, name: str) -> Path:
    """Return the file in which a model's text vectors outlive its runs.

    A changed catalogue makes another run; of its texts only those are encoded that have changed, as long
    as the encoder's weights are the same (zero-shot). It is no result, and may be deleted.
    """
    return config.workspace / "encoded" / f"{name}.safetensors"


def fit_recformer(model: Recformer, plan: FitPlan) -> list[EpochRow]:
    """Fine-tune a text encoder on its catalogue's sentences, from its pre-trained weights if any."""
    from recsys.models.recformer.checkpoints import load_pretrained
    from recsys.training.finetune import finetune

    sentences = plan.data.sentences
    if sentences is None:
        raise ArtifactError(
            "a model of kind recformer reads sentences; run `recsys features` first"
        )
    model.set_sentences(sentences)
    if model.config.pretrained is not None:
        load_pretrained(model.encoder, sentences.tokenizer_hash, model.config.pretrained)
    return finetune(model, plan)


def some_users(
    config: ExperimentConfig, name: str, data: TrainingData, validation: Targets
) -> tuple[TrainingData, Targets]:
    """Return the training events and the validation targets of the configured share of the users."""
    from recsys.data.user_share import chosen_users, events_of, targets_of
    from recsys.runtime import derive_seed

    model: Any = config.models[name]
    if getattr(model, "needs_statistics", False):
        raise ConfigError(
            f"models.{name}.training.users is {model.training.users}, but the model reads statistics, "
            "which are of the events of all users; set users to 1"
        )
    users = chosen_users(data, model.training.users, derive_seed(config.seed, 5))
    return events_of(data, users), targets_of(validation, users)
