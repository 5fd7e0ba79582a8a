"""Training that goes on from a published bundle (`warm_start`): which models do, and whether they may.

A model of the bundle's kind starts from its weights; counted ones are counted anew, which costs little and
is exact; learned ones of other kinds start anew, and the log says so.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from recsys.config import ExperimentConfig
from recsys.errors import ConfigError, DataError
from recsys.manifest import MANIFEST, read_manifest

if TYPE_CHECKING:
    from recsys.data.sequences import Int64, SequenceStore, Split, TrainingData
    from recsys.models import EncoderModel
    from recsys.training.warm_start import Earlier

logger = logging.getLogger(__name__)

FACTS: Final = "warm_start.json"
"""In a run that started from a bundle: from which, and how its items came."""
LEARNED_UNTIL: Final = "learned_until"
"""In a bundle's facts: the newest moment it learned from, where the clock is absolute."""
FREE: Final = frozenset({"training", "dropout", "pretrained"})
"""Settings of a model that may change from one training to the next."""


def warm_bundle(config: ExperimentConfig, name: str) -> Path | None:
    """Return the bundle that the training of a model goes on from; None if it starts anew.

    Raises:
        ConfigError: `warm_start` is no bundle, or no model of the configuration is of its kind.
    """
    path = config.warm_start
    if path is None:
        return None
    if not (path / MANIFEST).is_file():
        raise ConfigError(
            f"warm_start: {path} is no bundle ({MANIFEST} is missing); name one bundle, as "
            "out/shop/bundles/shop-sasrec@0123abcd, and not a directory of them: which is the newest "
            "changes"
        )
    kind = read_manifest(path)["model"]["kind"]
    if kind == "recformer":
        raise ConfigError(
            f"warm_start: {path} holds a model of kind recformer, which ranks new items by their texts "
            "without any training; leave warm_start out, and fine-tune it anew from its pre-training"
        )
    kinds = {model: settings.kind for model, settings in config.models.items()}
    learned = [model for model, settings in config.models.items() if hasattr(settings, "training")]
    if kind not in [kinds[model] for model in learned]:
        have = ", ".join(f"{model} (kind {kinds[model]})" for model in learned) or "none"
        raise ConfigError(
            f"warm_start: {path} holds a model of kind {kind}, but the learned models of the "
            f"configuration are {have}; name a bundle of one of these kinds, or leave warm_start out "
            "(what is counted is counted anew from all events)"
        )
    return path if name in learned and kinds[name] == kind else None


def bundle_version(config: ExperimentConfig, name: str) -> str | None:
    """Return the version of the bundle that a model goes on from, for the key of its run."""
    path = warm_bundle(config, name)
    return None if path is None else str(read_manifest(path)["version"])


def check_warm_start(config: ExperimentConfig, name: str, fold: str, *, refit: bool) -> None:
    """Refuse a bundle that a model cannot go on from, or that has learned what is to be tested.

    Raises:
        ConfigError: the model has other settings than the bundle's.
        DataError: the bundle learned from events that the split holds out.
    """
    path = warm_bundle(config, name)
    if path is None:
        if config.warm_start is not None and hasattr(config.models[name], "training"):
            logger.warning("%s starts anew: the bundle of warm_start is of another kind", name)
        return
    if getattr(config.models[name], "pretrained", None) is not None:
        raise ConfigError(
            f"models.{name}.pretrained and warm_start both name the weights to begin with; leave one out"
        )
    from recsys.bundle import read_config

    mine, theirs = (_settings(model) for model in (config.models[name], read_config(path)))
    other = [f"{key} is {mine[key]!r} instead of {theirs[key]!r}" for key in mine
             if mine[key] != theirs[key]]  # fmt: skip
    if other:
        raise ConfigError(
            f"models.{name} differs from the model of warm_start ({path}): {', '.join(other)}; give it "
            "the bundle's settings, or leave warm_start out (training and dropout may differ)"
        )
    _check_moments(config, path, fold, refit)


def _settings(model: Any) -> dict[str, Any]:
    """Return every setting that must be the bundle's; a dump may leave some out at their default."""
    every = {name: getattr(model, name) for name in type(model).model_fields if name not in FREE}
    dumped: dict[str, Any] = model.model_dump(mode="json", exclude=set(FREE))
    return every | dumped


def _check_moments(config: ExperimentConfig, path: Path, fold: str, refit: bool) -> None:
    from pipelines.fitting import open_data

    until = read_manifest(path)["info"].get(LEARNED_UNTIL)
    store, split = open_data(config, fold, refit=refit)
    held_out = None if until is None else first_held_out(config, store, split, refit)
    if until is None or held_out is None:
        logger.warning(
            "warm_start: whether %s learned from events that this split holds out cannot be told%s; "
            "figures are honest only if it did not",
            path, " from it" if until is None else f" with split {config.split.kind}",
        )  # fmt: skip
    elif until >= held_out:
        what = "test" if refit or not len(split.validation) else "validation"
        raise DataError(
            f"warm_start: {path} learned from events until {_date(until)}, but {what} begins at "
            f"{_date(held_out)}: its figures would be of what was learned. Set split.{what}_from after "
            "the former, or start from an older bundle"
        )


def newest_learned(config: ExperimentConfig, store: SequenceStore, ends: Int64) -> int | None:
    """Return the newest moment among training events (of lists: of their starts), in seconds.

    None where moments of different users cannot be compared.
    """
    begin = store.offsets[:-1]
    some = ends > begin
    if not _comparable(config) or store.timestamps is None or not some.any():
        return None
    place = begin[some] if _data(config)["kind"] == "lists" else ends[some] - 1
    return int(store.timestamps[place].max())


def first_held_out(
    config: ExperimentConfig, store: SequenceStore, split: Split, refit: bool
) -> int | None:
    """Return the first moment (of lists: the first start) that is asked for; None as above."""
    targets = split.test if refit or not len(split.validation) else split.validation
    if not _comparable(config) or store.timestamps is None or not len(targets):
        return None
    lists = _data(config)["kind"] == "lists"
    place = store.offsets[targets.user] if lists else targets.start
    return int(store.timestamps[place].min())


def _comparable(config: ExperimentConfig) -> bool:
    """Tell whether everybody is cut at the same moments (see `recsys.data.splits.cuts_by`)."""
    from recsys.data.splits import cuts_by

    data = _data(config)
    return cuts_by(config.split, data["kind"], data["clock"]) in ("moments", "starts")


def _data(config: ExperimentConfig) -> dict[str, Any]:
    """Return the section `data` as it was prepared, which is where a preset says what it is."""
    data: dict[str, Any] = read_manifest(config.workspace / "prepared")["config"]["data"]
    return data


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def earlier_model(config: ExperimentConfig, name: str) -> Earlier | None:
    """Return what a model's training goes on from, verified; None if it starts anew."""
    path = warm_bundle(config, name)
    if path is None:
        return None
    from recsys.bundle import load_bundle
    from recsys.data.vocabulary import Vocabulary
    from recsys.schema import ITEM
    from recsys.training.warm_start import Earlier

    bundle = load_bundle(path)
    new = Vocabulary.load(config.workspace / "prepared" / "items.parquet", ITEM)
    return Earlier.of(bundle.model.state_dict(), bundle.item_ids, bundle.popularity, new)


def start_from(
    earlier: Earlier, config: ExperimentConfig, name: str, model: EncoderModel, data: TrainingData
) -> dict[str, Any]:
    """Fill a new model with what an earlier one learned; return how its items came."""
    import polars as pl

    from recsys.training.warm_start import carry_over

    items = pl.read_parquet(config.workspace / "prepared" / "items.parquet")
    found = carry_over(model, config.models[name], earlier, data, items)
    return {"bundle": bundle_version(config, name), "items": asdict(found)}


def read_facts(directory: Path) -> dict[str, Any] | None:
    """Return how a run in this directory started; None if anew."""
    path = directory / FACTS
    if not path.is_file():
        return None
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return facts
