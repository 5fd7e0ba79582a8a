"""The train stage: one run directory per model, counted in a Ray task or trained by Ray Train.

A learned model is trained by Lightning inside Ray Train, data-parallel when `ray.train_workers` says
so. The workers write checkpoints into the stage's unfinished directory; a stage that was killed finds
them there and goes on.
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.progress import follow_epochs, record_epoch
from pipelines.ray_session import map_partitions, ray_session
from pipelines.tracking import Tracker, code_tags, tracker_settings
from recsys.config import ExperimentConfig, dump_config, parse_config
from recsys.errors import ConfigError, RecsysError
from recsys.manifest import is_current, read_manifest, stable_hash, stage_directory

logger = logging.getLogger(__name__)

STAGE_VERSION = 1
CHECKPOINTS = "checkpoints"
WEIGHTS = "model.safetensors"
HISTORY = "history.json"
RECORD = "run.json"


def run_directory(config: ExperimentConfig, name: str, fold: str = "main") -> Path:
    """Return where the run of a model lies, finished or not; needs the features stage."""
    key = run_key(config, name, fold)
    suffix = "" if fold == "main" else f"-{fold}"
    return config.workspace / "runs" / f"{name}{suffix}-{key[:8]}"


def run_key(config: ExperimentConfig, name: str, fold: str = "main") -> str:
    """Return the hash of everything that makes a run: its data, its configuration, its seed."""
    model = _model_config(config, name)
    inputs = {
        stage: read_manifest(config.workspace / stage)["key"] for stage in ("prepared", "features")
    }
    learned = hasattr(model, "training")
    return stable_hash(
        {
            "inputs": inputs,
            "model": model.model_dump(mode="json"),
            "fold": fold,
            "seed": config.seed if learned else None,
            "exclude": [config.evaluation.exclude, config.evaluation.repeats] if learned else None,
            "train_workers": config.ray.train_workers if learned else None,
            "version": STAGE_VERSION,
        }
    )


def train(config: ExperimentConfig, name: str, fold: str = "main") -> Path:
    """Fit the model `name` of the configuration and return its finished run directory."""
    directory, key = run_directory(config, name, fold), run_key(config, name, fold)
    if is_current(directory, key):
        return directory
    with stage_directory(directory, key) as (work, manifest):
        (work / "config.yaml").write_text(dump_config(config), encoding="utf-8")
        tracker = _start_tracking(config, name, key, work)
        settings = {
            "config": config.model_dump(mode="json"),
            "name": name,
            "fold": fold,
            "directory": str(work),
            "mlflow_run": tracker.run_id,
        }
        with ray_session(config.ray):
            if hasattr(_model_config(config, name), "training"):
                _train_learned(settings, config)
            else:
                list(map_partitions(count_model, [settings], workers=1, title=f"train {name}"))
        record = json.loads((work / RECORD).read_text())
        tracker.log_metrics(record["metrics"])
        for path in (work / "config.yaml", work / HISTORY):
            if path.is_file():
                tracker.log_artifact(path)
        tracker.finish()
        shutil.rmtree(work / "ray", ignore_errors=True)
        manifest.update(
            model=name,
            fold=fold,
            seed=config.seed,
            model_config=_model_config(config, name).model_dump(mode="json"),
            mlflow_run=tracker.run_id,
            **record,
        )
    return directory


def _start_tracking(config: ExperimentConfig, name: str, key: str, work: Path) -> Tracker:
    """Start the run's record, or go on with the one that an interrupted stage began."""
    remembered = work / "mlflow_run"
    settings = tracker_settings(config, name)
    if remembered.is_file():
        settings = replace(settings, run_id=remembered.read_text())
    tracker = Tracker(settings)
    prepared = read_manifest(config.workspace / "prepared")
    tags = {"run_key": key, "data_hash": prepared["key"], "stage": "train", **code_tags()}
    tracker.start_run(config.models[name].model_dump(mode="json"), tags)
    if tracker.run_id is not None:
        remembered.write_text(tracker.run_id)
    return tracker


def _model_config(config: ExperimentConfig, name: str) -> Any:
    if name not in config.models:
        raise ConfigError(f"no model {name!r}; the configuration has: {', '.join(config.models)}")
    return config.models[name]


def _train_learned(settings: dict[str, Any], config: ExperimentConfig) -> None:
    import ray.train
    from ray.train.torch import TorchTrainer

    from recsys.runtime import available_cores, resolve_device

    workers = config.ray.train_workers
    gpu = resolve_device(_model_config(config, settings["name"]).training.device) == "cuda"
    cores = max(1, available_cores() // workers) if config.ray.address is None else 1
    trainer = TorchTrainer(
        train_worker,
        train_loop_config=settings,
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers, use_gpu=gpu, resources_per_worker={"CPU": cores, "GPU": int(gpu)}
        ),
        run_config=ray.train.RunConfig(
            name="ray", storage_path=str(Path(settings["directory"]) / "ray")
        ),
    )
    epochs = _model_config(config, settings["name"]).training.epochs
    try:
        with follow_epochs(Path(settings["directory"]), epochs, f"train {settings['name']}"):
            trainer.fit()
    except Exception as error:
        raise _cause(error) from error


def _cause(error: BaseException) -> BaseException:
    """Return the user's error inside Ray's wrapping, or the error itself."""
    seen: BaseException | None = error
    while seen is not None:
        inner = getattr(seen, "cause", None)
        if isinstance(seen, RecsysError):
            return seen
        failures = getattr(seen, "worker_failures", None)
        seen = next(iter(failures.values())) if failures else inner or seen.__cause__
    return error


def _open(settings: dict[str, Any]) -> tuple[ExperimentConfig, Any, Any, Path]:
    """Return `(config, store, split, work directory)` inside a worker."""
    from recsys.data.sequences import SequenceStore, Split

    config = parse_config(settings["config"])
    store = SequenceStore.load(config.workspace / "features" / "sequences")
    split = Split.load(config.workspace / "prepared" / "splits" / settings["fold"])
    return config, store, split, Path(settings["directory"])


def count_model(settings: dict[str, Any]) -> None:
    """Fit a counting model and write its weights (a Ray task)."""
    import time

    from safetensors.torch import save_file

    from recsys.data.sequences import TrainingData
    from recsys.models import CountingModel, build_model

    config, store, split, work = _open(settings)
    model = build_model(config.models[settings["name"]], store.n_items)
    if not isinstance(model, CountingModel):
        raise TypeError(f"{type(model).__name__} is not fitted by counting")
    began = time.perf_counter()
    model.fit(TrainingData(store, split.train_end))
    metrics = {"train_seconds": time.perf_counter() - began}
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, work / WEIGHTS)
    (work / RECORD).write_text(json.dumps({"metrics": metrics, "epochs": 0}))


def train_worker(settings: dict[str, Any]) -> None:
    """Train a learned model in one process of a Ray Train group."""
    import ray.train
    import torch

    from recsys.data.sequences import TrainingData
    from recsys.models import EncoderModel, build_model
    from recsys.runtime import derive_seed
    from recsys.training.fit import FitPlan, fit

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    config, store, split, work = _open(settings)
    model_config: Any = config.models[settings["name"]]
    torch.manual_seed(derive_seed(config.seed, 1))
    model = build_model(model_config, store.n_items)
    if not isinstance(model, EncoderModel):
        raise TypeError(f"{type(model).__name__} is not trained by gradient")
    tracker = _join_tracking(config, settings) if rank == 0 else None
    plan = FitPlan(
        training=model_config.training,
        evaluation=config.evaluation,
        data=TrainingData(store, split.train_end),
        validation=split.validation,
        directory=work / CHECKPOINTS,
        seed=config.seed,
        on_epoch=partial(_on_epoch, work, tracker),
        trainer=_data_parallel() if world_size > 1 else None,
        rank=rank,
        world_size=world_size,
    )
    rows = fit(model, plan)
    if rank == 0:
        for name in (WEIGHTS, HISTORY):
            (plan.directory / name).replace(work / name)
        _write_record(work, rows)


def _on_epoch(work: Path, tracker: Tracker | None, row: dict[str, float]) -> None:
    """Tell whoever waits for this training, and the tracking server, about an epoch."""
    record_epoch(work, row)
    if tracker is not None:
        tracker.log_epoch(row, int(row["epoch"]))


def _data_parallel() -> dict[str, Any]:
    """Return the Trainer's arguments that join this process to its Ray Train group."""
    from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment

    return {
        "strategy": RayDDPStrategy(),
        "plugins": [RayLightningEnvironment()],
        "devices": "auto",
    }


def _join_tracking(config: ExperimentConfig, settings: dict[str, Any]) -> Tracker | None:
    if settings["mlflow_run"] is None:
        return None
    own = replace(tracker_settings(config, settings["name"]), run_id=settings["mlflow_run"])
    tracker = Tracker(own)
    tracker.start_run({}, {})
    return tracker


def _write_record(work: Path, rows: list[dict[str, float]]) -> None:
    """Write what the manifest says of a training: epochs, time, throughput, padding, best."""
    seconds = sum(row["seconds"] for row in rows)
    best = max((row for row in rows if "ndcg@10" in row), key=lambda row: row["ndcg@10"])
    metrics = {
        "train_seconds": seconds,
        "validation_seconds": sum(row.get("validation_seconds", 0.0) for row in rows),
        "events_per_second": sum(r["events_per_second"] * r["seconds"] for r in rows) / seconds,
        "padding_share": rows[-1]["padding_share"],
        "best_epoch": best["epoch"],
        "best_validation_ndcg@10": best["ndcg@10"],
    }
    (work / RECORD).write_text(json.dumps({"metrics": metrics, "epochs": len(rows)}))
