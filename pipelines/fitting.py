"""One fit of a learned model inside a worker: the data it may see, its seeded weights, its plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.statistics import training_statistics
from recsys.config import ExperimentConfig

if TYPE_CHECKING:
    from recsys.data.sequences import SequenceStore, Split, TrainingData
    from recsys.training.callbacks import EpochRow


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
    **plan: Any,
) -> list[EpochRow]:
    """Fit a learned model of the configuration, leave its weights in `directory`, return its epochs.

    A refit is not validated. A model whose configuration `needs_statistics` gets those of the events that
    it learns from. `plan` holds further fields of the `FitPlan`.
    """
    import torch

    from recsys.models import EncoderModel, build_model
    from recsys.models.item_table import read_texts
    from recsys.runtime import derive_seed
    from recsys.training.fit import FitPlan, fit

    store, split = open_data(config, fold, refit=refit)
    model_config: Any = config.models[name]
    torch.manual_seed(derive_seed(config.seed, 1))
    model = build_model(model_config, store.n_items)
    if not isinstance(model, EncoderModel):
        raise TypeError(f"{type(model).__name__} is not trained by gradient")
    data = training_data(config, name, fold, store, split)
    read_texts(model, data)
    if getattr(model_config, "needs_statistics", False):
        plan["statistics"] = training_statistics(config, fold, refit)
    return fit(
        model,
        FitPlan(
            training=model_config.training,
            evaluation=config.evaluation,
            data=data,
            validation=None if refit else split.validation,
            directory=directory,
            seed=config.seed,
            **plan,
        ),
    )
