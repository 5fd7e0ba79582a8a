"""The train stage: one run directory per model, counted in a Ray task or trained by Ray Train.

A learned model is trained by Lightning inside Ray Train, data-parallel when `ray.train_workers` says
so. The workers write checkpoints into the stage's unfinished directory; a stage that was killed finds
them there and goes on.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.fitting import fit_model, open_data, training_data
from pipelines.progress import follow_epochs, record_epoch
from pipelines.ray_session import map_partitions, ray_session
from pipelines.statistics import NEIGHBOURS
from pipelines.tracking import Tracker, TrackerSettings, code_tags, tracker_settings
from pipelines.warm_start import FACTS, bundle_version, check_warm_start, read_facts
from recsys.config import (
    ExperimentConfig,
    RayConfig,
    TrainingConfig,
    check_clock,
    dump_config,
    parse_config,
)
from recsys.errors import ArtifactError, ConfigError, RecsysError
from recsys.manifest import file_hash, is_current, read_manifest, stable_hash, stage_directory

logger = logging.getLogger(__name__)

STAGE_VERSION = 1
CHECKPOINTS = "checkpoints"
WEIGHTS = "model.safetensors"
HISTORY = "history.json"
RECORD = "run.json"


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
    model = _model_config(config, name)
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
    described = model.model_dump(mode="json")
    if (pretrained := getattr(model, "pretrained", None)) is not None:
        from recsys.models.recformer.checkpoints import checkpoint_hash

        described["pretrained"] = checkpoint_hash(pretrained)  # what it holds, not where it lies
    return stable_hash(
        {
            "inputs": inputs,
            "model": described,
            "fold": fold,
            "seed": config.seed if learned else None,
            "exclude": [config.evaluation.exclude, config.evaluation.repeats] if learned else None,
            "train_workers": config.ray.train_workers if learned else None,
            "version": STAGE_VERSION,
            **({} if warm is None else {"warm_start": warm}),
        }
    )


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


def train(config: ExperimentConfig, name: str, fold: str = "main", *, refit: bool = False) -> Path:
    """Fit the model `name` of the configuration and return its finished run directory.

    With `refit` it learns from the validation window as well, for as many epochs as were best in the
    run without, which must be finished.
    """
    config = config.anchored()
    directory = run_directory(config, name, fold, refit=refit)
    key = run_key(config, name, fold, refit=refit)
    if is_current(directory, key):
        return directory
    _check_clock(config, name)
    check_warm_start(config, name, fold, refit=refit)
    with stage_directory(directory, key) as (work, manifest):
        (work / "config.yaml").write_text(dump_config(config), encoding="utf-8")
        tracker = _start_tracking(config, f"{name} refit" if refit else name, key, work)
        joined = replace(tracker.settings, run_id=tracker.run_id)
        settings = {
            "config": config.model_dump(mode="json"),
            "name": name,
            "fold": fold,
            "refit": refit,
            "epochs": best_epochs(config, name, fold) if refit else None,
            "stage_epochs": best_stage_epochs(config, name, fold) if refit else None,
            "directory": str(work),
            "tracking": None if tracker.run_id is None else asdict(joined),
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
            refit=refit,
            seed=config.seed,
            model_config=_model_config(config, name).model_dump(mode="json"),
            mlflow_run=tracker.run_id,
            warm_start=read_facts(work),
            **record,
        )
    return directory


def best_epochs(config: ExperimentConfig, name: str, fold: str) -> int | None:
    """Return how many epochs a model's validated run found best; None if it is not learned."""
    directory = run_directory(config, name, fold)
    if not is_current(directory, run_key(config, name, fold)):
        raise ArtifactError(
            f"{name} must be trained and validated before it is fitted again ({directory} is missing "
            "or of another configuration); run `recsys train`"
        )
    best = read_manifest(directory)["metrics"].get("best_epoch")
    return None if best is None else int(best) + 1


def best_stage_epochs(config: ExperimentConfig, name: str, fold: str) -> list[int] | None:
    """Return the same for each stage of a training in stages; None for one without."""
    metrics = read_manifest(run_directory(config, name, fold))["metrics"]
    found = [metrics.get(f"stage_{stage}_epochs") for stage in (1, 2)]
    return None if None in found else [int(epochs) for epochs in found]


def _start_tracking(config: ExperimentConfig, title: str, key: str, work: Path) -> Tracker:
    """Start the run's record, or go on with the one that an interrupted stage began."""
    remembered = work / "mlflow_run"
    name = title.removesuffix(" refit")
    settings = tracker_settings(config, title)
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


def _check_clock(config: ExperimentConfig, name: str) -> None:
    """Refuse what the data's clock does not carry."""
    clock = read_manifest(config.workspace / "prepared")["config"]["data"]["clock"]
    check_clock({name: _model_config(config, name)}, clock)


def _train_learned(settings: dict[str, Any], config: ExperimentConfig) -> None:
    model = _model_config(config, settings["name"])
    epochs = settings["epochs"] or planned_epochs(model)
    run_workers(
        train_worker, settings, config.ray, model.training, epochs, f"train {settings['name']}"
    )


def planned_epochs(model: Any) -> int:
    """Return how many epochs a model's training has, if nothing stops it early."""
    stages = {"two": 2, "second": 1, "none": 0}[getattr(model, "stages", "second")]
    return stages * int(model.training.epochs)


def run_workers(
    worker: Callable[[dict[str, Any]], None],
    settings: dict[str, Any],
    ray_config: RayConfig,
    training: TrainingConfig,
    epochs: int,
    title: str,
) -> None:
    """Run a training in the processes of a Ray Train group, its progress shown.

    Args:
        worker: what each process does, with `settings`; their `directory` is the stage's.
        settings: plain values.
        ray_config: how many processes, and where.
        training: which device they need.
        epochs: how many are planned.
        title: of the progress, and of errors.
    """
    import ray.train
    from ray.train.torch import TorchTrainer

    resources = worker_resources(ray_config, training.device, ray.cluster_resources())
    trainer = TorchTrainer(
        worker,
        train_loop_config=settings,
        scaling_config=ray.train.ScalingConfig(
            num_workers=ray_config.train_workers,
            use_gpu=resources["GPU"] > 0,
            resources_per_worker=resources,
        ),
        run_config=ray.train.RunConfig(
            name="ray", storage_path=str(Path(settings["directory"]) / "ray")
        ),
    )
    try:
        with follow_epochs(Path(settings["directory"]), epochs, title):
            trainer.fit()
    except Exception as error:
        known = known_cause(error, title)
        if known is None:
            raise
        raise known from error


def worker_resources(ray: RayConfig, device: str, available: Mapping[str, float]) -> dict[str, int]:
    """Return the CPUs and GPUs of one training process: on this machine, an equal share of its cores.

    On a cluster it is one CPU, and one GPU where the cluster has any (the machine that starts the
    training need not have one).

    Args:
        ray: the configuration of the session.
        device: `training.device`.
        available: what the session has, by name.

    Raises:
        ConfigError: this machine will never have what `train_workers` processes need, so Ray would
            wait for it without an end.
    """
    from recsys.runtime import available_cores, resolve_device

    workers = ray.train_workers
    if ray.address is not None:
        gpus = device == "cuda" or (device == "auto" and available.get("GPU", 0) > 0)
        return {"CPU": 1, "GPU": int(gpus)}
    cpus = int(available.get("CPU", 1))
    needed = {
        "CPU": max(1, min(available_cores(), cpus) // workers),
        "GPU": int(resolve_device(device) == "cuda"),
    }
    for name, each in needed.items():
        if each * workers > available.get(name, 0):
            raise ConfigError(
                f"ray.train_workers is {workers}, which needs {each * workers} {name}s, but Ray has "
                f"{available.get(name, 0):g} here; set it lower, or training.device to cpu"
            )
    return needed


def known_cause(error: BaseException, title: str) -> RecsysError | None:
    """Return the error for people that stopped a training, whichever process it was in, or None.

    The other processes fail as well, by the silence of the first.
    """
    from ray.exceptions import RayActorError

    causes = list(_causes(error))
    known = next((cause for cause in causes if isinstance(cause, RecsysError)), None)
    if known is None and any(isinstance(cause, RayActorError) for cause in causes):
        return RecsysError(
            f"{title}: a training process died, most likely for want of memory; run the same "
            "command again and it goes on after the last finished epoch; a lower training.batch_size "
            "or ray.train_workers needs less"
        )
    return known


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that Ray has wrapped in it, that of the first process first."""
    yield error
    inside = [*getattr(error, "worker_failures", {}).values(), error.__cause__]
    inside += [getattr(error, name, None) for name in ("cause", "health_check_failure")]
    for one in inside:
        if isinstance(one, BaseException):
            yield from _causes(one)


def count_model(settings: dict[str, Any]) -> None:
    """Fit a counting model and write its weights (a Ray task)."""
    import time

    from safetensors.torch import save_file

    from recsys.models import CountingModel, build_model

    config, work = parse_config(settings["config"]), Path(settings["directory"])
    store, split = open_data(config, settings["fold"], refit=settings["refit"])
    model = build_model(config.models[settings["name"]], store.n_items)
    if not isinstance(model, CountingModel):
        raise TypeError(f"{type(model).__name__} is not fitted by counting")
    began = time.perf_counter()
    model.fit(training_data(config, settings["name"], settings["fold"], store, split))
    metrics = {"train_seconds": time.perf_counter() - began}
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, work / WEIGHTS)
    (work / RECORD).write_text(json.dumps({"metrics": metrics, "epochs": 0}))


def train_worker(settings: dict[str, Any]) -> None:
    """Train a learned model in one process of a Ray Train group."""
    import ray.train

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    context = ray.train.get_context()
    train_process(settings, context.get_world_rank(), context.get_world_size())


def train_process(settings: dict[str, Any], rank: int = 0, world_size: int = 1) -> None:
    """Do what one of the processes that train together does; the first one leaves the result."""
    work = Path(settings["directory"])
    tracker = join_tracking(settings) if rank == 0 else None
    rows = fit_model(
        parse_config(settings["config"]),
        settings["name"],
        settings["fold"],
        work / CHECKPOINTS,
        refit=settings["refit"],
        epochs=settings["epochs"],
        stage_epochs=settings["stage_epochs"],
        on_epoch=partial(tell_epoch, work, tracker),
        trainer=data_parallel() if world_size > 1 else None,
        rank=rank,
        world_size=world_size,
    )
    if rank == 0:
        for name in (WEIGHTS, HISTORY):
            (work / CHECKPOINTS / name).replace(work / name)
        if (work / CHECKPOINTS / FACTS).is_file():
            (work / CHECKPOINTS / FACTS).replace(work / FACTS)
        _write_record(work, rows)


def tell_epoch(work: Path, tracker: Tracker | None, row: dict[str, float]) -> None:
    """Tell whoever waits for this training, and the tracking server, about an epoch."""
    record_epoch(work, row)
    if tracker is not None:
        tracker.log_epoch(row, int(row["epoch"]))


def data_parallel() -> dict[str, Any]:
    """Return the Trainer's arguments that join this process to its Ray Train group."""
    from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment

    return {
        # No training changes a buffer, and those of a sampler are as long as the catalogue.
        "strategy": RayDDPStrategy(broadcast_buffers=False),
        "plugins": [RayLightningEnvironment()],
        "devices": "auto",
    }


def join_tracking(settings: dict[str, Any]) -> Tracker | None:
    """Return a tracker that goes on with the stage's run, or None."""
    if settings["tracking"] is None:
        return None
    tracker = Tracker(TrackerSettings(**settings["tracking"]))
    tracker.start_run({}, {})
    return tracker


def _write_record(work: Path, rows: list[dict[str, float]]) -> None:
    """Write what the manifest says of a training: epochs, time, throughput, padding, best."""
    seconds = sum(row["seconds"] for row in rows)
    metrics = {
        "train_seconds": seconds,
        "validation_seconds": sum(row.get("validation_seconds", 0.0) for row in rows),
    }
    if learned := [
        row for row in rows if "loss" in row
    ]:  # none in a model that is used as it comes
        events = sum(row["events_per_second"] * row["seconds"] for row in learned)
        metrics |= {"events_per_second": events / seconds}
        metrics |= {"padding_share": learned[-1]["padding_share"]}
    if validated := [row for row in rows if "ndcg@10" in row]:  # none in a refit
        best = max(validated, key=lambda row: row["ndcg@10"])
        metrics |= {"best_epoch": best["epoch"], "best_validation_ndcg@10": best["ndcg@10"]}
        metrics |= _stage_epochs(rows, best)
    (work / RECORD).write_text(json.dumps({"metrics": metrics, "epochs": len(learned)}))


def _stage_epochs(rows: list[dict[str, float]], best: dict[str, float]) -> dict[str, float]:
    """Return how many epochs of each stage led to the best one; nothing for a training without stages.

    Stage two begins from the best epoch of stage one, whose later epochs led nowhere.
    """
    if "stage" not in best:
        return {}
    first = [row for row in rows if row["stage"] == 1]
    judged = [row for row in first if "ndcg@10" in row]
    led = max(judged, key=lambda row: row["ndcg@10"])["epoch"] + 1 if judged else 0.0
    second = best["epoch"] - len(first) + 1 if best["stage"] == 2 else 0.0
    return {"stage_1_epochs": led, "stage_2_epochs": second}
