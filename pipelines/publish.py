"""The publish stage: the best model becomes a bundle, registered under an alias."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from pipelines.feature_store import fill_feature_store
from pipelines.index import index_directory, index_key
from pipelines.runs import Run, dataset_name, has_vectors, last_fold, tested_run
from pipelines.tracking import Tracker, code_tags, tracker_settings
from pipelines.warm_start import LEARNED_UNTIL, newest_learned
from recsys.config import ExperimentConfig
from recsys.errors import ArtifactError
from recsys.manifest import MANIFEST, is_current, read_manifest, stable_hash
from recsys.published import read_record, write_record
from recsys.schema import BASKET, USER

if TYPE_CHECKING:
    import polars as pl

    from recsys.playlist_index import PlaylistIndex
    from recsys.retrieval.index import Index

logger = logging.getLogger(__name__)

STAGE_VERSION: Final = 8
CHOSEN_BY: Final = ("validation", "ndcg", 10)
Row = dict[str, Any]


def bundles_directory(config: ExperimentConfig) -> Path:
    """Return where the experiment's bundles are."""
    return config.workspace / "bundles"


def publish(config: ExperimentConfig, report: Path) -> Path:
    """Write the bundle of `publish.model`, or of the best one in the report, and return its path.

    The new version is registered in MLflow under the bundle's experiment name, with the alias
    `publish.alias`. Where the registry could not be reached, the next run tries again. With
    `feast.enabled` the feature store is filled, too.
    """
    fill_feature_store(config)
    rows = json.loads((report / "metrics.json").read_text(encoding="utf-8"))
    name = config.publish.model or best_model(config, rows)
    run = tested_run(config, name, last_fold(config))
    key = _key(run, report)
    directory = bundles_directory(config)
    record = read_record(directory)
    if record.get("key") == key and (directory / str(record["bundle"]) / MANIFEST).is_file():
        path = directory / str(record["bundle"])
        if record["registered"] is None and config.tracking.enabled:
            write_record(directory, {**record, "registered": _register(run, path)})
        return path
    path = _write(run, rows, directory)
    record = {"key": key, "bundle": path.name, "model": name, "registered": None}
    write_record(directory, record)  # the bundle counts, whether or not the registry answers
    write_record(directory, {**record, "registered": _register(run, path)})
    return path


def best_model(config: ExperimentConfig, rows: list[Row]) -> str:
    """Return the model with the highest validation NDCG@10 over all targets of the last fold.

    Ties go to the model that comes first in the configuration.
    """
    split, metric, k = CHOSEN_BY
    values = {
        row["model"]: row["value"]
        for row in rows
        if (row["split"], row["metric"].lower(), row["k"], row["slice"])
        == (split, metric, k, "all")
        and row["dataset"] == dataset_name(config, last_fold(config))
    }
    missing = [name for name in config.models if name not in values]
    if not values:
        raise ArtifactError(
            f"the report has no {split} {metric}@{k} of any model, so the best one is unknown; either "
            "the split has no validation targets (set split.validation higher or "
            "split.validation_from earlier and run again) or name a model with publish.model"
        )
    if missing:
        raise ArtifactError(
            f"the report has no {split} {metric}@{k} of {', '.join(missing)}, so the best model is "
            "unknown; run `recsys evaluate` again, or name one with publish.model"
        )
    return max(config.models, key=lambda name: values[name])


def _key(run: Run, report: Path) -> str:
    return stable_hash(
        {
            "run": run.key,
            "index": index_key(run) if has_vectors(run.config, run.name) else None,
            "report": read_manifest(report)["key"],
            "recent_events": run.config.publish.recent_events,
            "playlists": run.config.publish.playlists.model_dump(mode="json"),
            "name": run.config.name,
            "version": STAGE_VERSION,
        }
    )


def _write(run: Run, rows: list[Row], directory: Path) -> Path:
    import polars as pl

    from recsys.bundle import write_bundle
    from recsys.data.sequences import TrainingData

    kept, read = run.config.publish.recent_events, run.model.max_length
    if 0 < kept < read:
        logger.warning(
            "publish.recent_events is %d, but %s reads %d events of a history: the users of the bundle "
            "are served by fewer; set it to %d",
            kept,
            run.name,
            read,
            read,
        )
    prepared = run.config.workspace / "prepared"
    users = pl.read_parquet(prepared / "users.parquet")
    with TemporaryDirectory() as scratch:
        return write_bundle(
            directory,
            name=f"{run.config.name}-{run.name}",
            model=run.model,
            model_config=run.config.models[run.name],
            items=pl.read_parquet(prepared / "items.parquet"),
            users=users,
            store=run.store,
            index=_index(run),
            popularity=TrainingData(run.store, run.split.train_end).item_counts(),
            recent_events=run.config.publish.recent_events,
            info=_info(run, rows),
            text=_text_tower(run, Path(scratch)),
            playlists=_playlists(run, users[USER]),
        )


def _playlists(run: Run, names: pl.Series) -> PlaylistIndex | None:
    """Return the users' lists by their vectors, if the configuration wants them in the bundle."""
    from recsys.models import EncoderModel
    from recsys.playlist_index import build_playlists

    wanted = run.config.publish.playlists
    if not wanted.enabled:
        return None
    if not isinstance(run.model, EncoderModel):
        raise ArtifactError(
            f"publish.playlists.enabled is true, but {run.name} counts and has no vectors of lists; set "
            "publish.model to a learned one, or leave the playlists out"
        )
    return build_playlists(run.model, run.store, names, wanted.index, wanted.min_songs)


def _text_tower(run: Run, scratch: Path) -> Path | None:
    """Write what places a new item by its texts, where the model can, and return its directory."""
    model: Any = run.config.models[run.name]
    if not getattr(model, "places_texts", False):
        return None
    from features.text_tower import write_tower
    from pipelines.text import SENTENCES, TOKENIZER, attributes_of
    from pipelines.text_vectors import vectors_directory

    target = scratch / "text"
    wanted = getattr(model, "item_vectors", None)
    reads_tokens = wanted is None or wanted.source == "tokens"
    workspace = run.config.workspace
    write_tower(
        target,
        attributes_of(run.config),
        run.config.text,
        tokenizer=workspace / SENTENCES / run.fold / TOKENIZER if reads_tokens else None,
        text_map=None if wanted is None else vectors_directory(run.config, wanted) / run.fold,
    )
    return target


def _index(run: Run) -> Index | None:
    """Return the run's index; None for a model without item vectors."""
    if not has_vectors(run.config, run.name):
        return None
    directory = index_directory(run)
    if not is_current(directory, index_key(run)):
        raise ArtifactError(
            f"{run.name} has no index of this run and configuration; run `recsys index` first"
        )
    from recsys.retrieval.index import load_index

    return load_index(directory)


def _info(run: Run, rows: list[Row]) -> dict[str, Any]:
    """Return the facts that travel in the bundle: where it comes from and how good it is."""
    from recsys.bundle import BASKET_MINUTES

    prepared = read_manifest(run.config.workspace / "prepared")
    data = prepared["config"]["data"]
    measured = [
        {key: row.get(key) for key in ("split", "metric", "k", "value", "low", "high", "users")}
        for row in rows
        if (row["model"], row["slice"]) == (run.name, "all")
        and row["dataset"] == dataset_name(run.config, run.fold)
    ]
    return {
        "experiment": run.config.name,
        "model": run.name,
        "run": run.directory.name,
        "run_key": run.key,
        "learned_from": "training and validation" if run.refit else "training",
        LEARNED_UNTIL: newest_learned(run.config, run.store, run.split.train_end),
        "data_hash": prepared["key"],
        "seed": run.config.seed,
        "target": prepared["target"],
        # A column of baskets goes before the minutes, as it does in the prepare stage.
        BASKET_MINUTES: None if BASKET in data["columns"] else data["basket_minutes"],
        "exclude": run.config.evaluation.exclude,
        "metrics": measured,
        "code": code_tags(),
    }


def _register(run: Run, path: Path) -> str | None:
    """Register the bundle with the run that made it; return the version, None if it failed."""
    from dataclasses import replace

    settings = replace(
        tracker_settings(run.config, f"publish {path.name}"), run_id=run.manifest.get("mlflow_run")
    )
    tracker = Tracker(settings)
    tracker.start_run({}, {"stage": "publish"})
    tracker.describe(path)
    manifest = read_manifest(path)
    tags = {
        "bundle": str(path),
        "version": str(manifest["version"]),
        "data_hash": str(manifest["info"]["data_hash"]),
    }
    version = tracker.register(run.config.name, path, run.config.publish.alias, tags)
    tracker.log_artifact(path / MANIFEST)
    tracker.finish()
    return version
