"""The processes of a training: a Ray Train group, what each of them needs, what stopped it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.progress import follow_epochs
from recsys.config import RayConfig, TrainingConfig
from recsys.errors import ConfigError, RecsysError


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


def data_parallel() -> dict[str, Any]:
    """Return the Trainer's arguments that join this process to its Ray Train group."""
    from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment

    return {
        # No training changes a buffer, and those of a sampler are as long as the catalogue.
        "strategy": RayDDPStrategy(broadcast_buffers=False),
        "plugins": [RayLightningEnvironment()],
        "devices": "auto",
    }


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
