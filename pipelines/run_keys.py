"""What a run is named by: everything that makes it what it is, as one hash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.statistics import NEIGHBOURS
from pipelines.warm_start import bundle_version
from recsys.config import ExperimentConfig, TiSASRecConfig, UniRecConfig
from recsys.errors import ConfigError
from recsys.manifest import file_hash, read_manifest, stable_hash

STAGE_VERSION = 1


def run_directory(
    config: ExperimentConfig, name: str, fold: str = "main", *, refit: bool = False
) -> Path:
    """Return where the run of a model lies, finished or not; needs the features stage."""
    key = run_key(config, name, fold, refit=refit)
    suffix = ("" if fold == "main" else f"-{fold}") + ("-refit" if refit else "")
    return config.workspace / "runs" / f"{name}{suffix}-{key[:8]}"


def run_key(config: ExperimentConfig, name: str, fold: str = "main", *, refit: bool = False) -> str:
    """Return the hash of everything that makes a run: its data, its configuration, its seed."""
    if refit:
        first = run_key(config, name, fold)
        return stable_hash({"refit": first, "version": STAGE_VERSION})
    model = model_of(config, name)
    inputs = {
        stage: read_manifest(config.workspace / stage)["key"] for stage in ("prepared", "features")
    }
    if getattr(model, "needs_neighbours", False):
        inputs[NEIGHBOURS] = read_manifest(config.workspace / NEIGHBOURS)["key"]
    inputs |= _text_inputs(config, model)
    if (vectors := getattr(model, "song_vectors", None)) is not None:
        inputs["song_vectors"] = _hash_of_vectors(config, name, vectors)
    learned = hasattr(model, "training")
    warm = bundle_version(config, name)
    return stable_hash(
        {
            "inputs": inputs,
            "model": _described(model),
            "fold": fold,
            "seed": config.seed if learned else None,
            "exclude": [config.evaluation.exclude, config.evaluation.repeats] if learned else None,
            "train_workers": config.ray.train_workers if learned else None,
            "version": STAGE_VERSION,
            **({} if warm is None else {"warm_start": warm}),
        }
    )


def model_of(config: ExperimentConfig, name: str) -> Any:
    """Return the configuration of a model; `ConfigError` if there is none of that name."""
    if name not in config.models:
        raise ConfigError(f"no model {name!r}; the configuration has: {', '.join(config.models)}")
    return config.models[name]


def _described(model: Any) -> dict[str, Any]:
    """Return the settings of a model; of files it reads, what they hold instead of where they lie."""
    described: dict[str, Any] = model.model_dump(mode="json")
    if changed := [name for name, has in _changed(model) if has]:
        described["changed"] = changed
    if (pretrained := getattr(model, "pretrained", None)) is not None:
        from recsys.models.recformer.checkpoints import checkpoint_hash

        described["pretrained"] = checkpoint_hash(pretrained)
    if getattr(model, "song_vectors", None) is not None:
        described["song_vectors"] = True  # their hash is among the inputs
    if (wanted := getattr(model, "item_vectors", None)) is not None:
        from pipelines.text_vectors import described_vectors

        holder = described if "vectors" in described else described["text"]
        holder["vectors"] = described_vectors(wanted)
    return described


def _changed(model: Any) -> list[tuple[str, bool]]:
    """Return what a part of a model does otherwise than in an earlier version, and whether it has that part.

    Runs of models without it stay what they are, which a new `STAGE_VERSION` would not leave them.
    """
    if isinstance(model, TiSASRecConfig):
        return [("no place knows how soon later events follow", True)]
    if not isinstance(model, UniRecConfig):
        return []
    regular = model.mode == "reference" and model.frequency_by == "count"
    return [
        ("the global term learns the logit", model.global_term),
        ("baskets vote without an order", model.votes is not None and model.baskets == "set"),
        ("uniformity is counted in whole numbers", model.uniformity),
        ("baskets have one gap before them", model.uniformity and model.baskets == "set"),
        ("rarity is by count where frequency is", regular and model.needs_statistics),
        ("items that training does not know are not counted", model.needs_statistics),
    ]


def _text_inputs(config: ExperimentConfig, model: Any) -> dict[str, str]:
    """Return the keys of what a model reads of the items' texts."""
    found = {}
    if getattr(model, "needs_sentences", False):
        from pipelines.text import SENTENCES

        found[SENTENCES] = read_manifest(config.workspace / SENTENCES)["key"]
    if getattr(model, "item_vectors", None) is not None:
        from pipelines.text_vectors import TEXT_VECTORS, source_key

        found[TEXT_VECTORS] = source_key(config, model.item_vectors)
    return found


def _hash_of_vectors(config: ExperimentConfig, name: str, path: Path) -> str:
    if not path.is_file():
        raise ConfigError(f"models.{name}.song_vectors: {path} is missing")
    return file_hash(path)
