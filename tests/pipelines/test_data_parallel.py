"""Two training processes on the CPU: what each of them sees, and that together they are one."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_experiment import clock_of
from safetensors.torch import load_file

from pipelines import train as stage
from pipelines.ray_session import ray_session
from pipelines.train import train
from pipelines.training_group import known_cause, worker_resources
from recsys.config import (
    EvaluationConfig,
    ExperimentConfig,
    PopularityConfig,
    RayConfig,
    parse_config,
)
from recsys.data.sequences import SequenceStore, Split, Targets, TrainingData
from recsys.errors import ConfigError, DataError, RecsysError
from recsys.evaluation.ranking import rank_targets
from recsys.manifest import read_manifest, write_manifest
from recsys.models import EncoderModel, build_model
from recsys.models.popularity import Popularity
from recsys.runtime import derive_seed
from recsys.training.fit import FitPlan, fit
from recsys.training.validation import means_by_user

ITEMS, USERS, EPOCHS, BATCH = 30, 70, 8, 8
KILLED_AFTER = 2


def planted() -> tuple[SequenceStore, Split]:
    """Walks of unequal length around a ring of items: the current item determines the next."""
    rng = np.random.default_rng(5)
    lengths = rng.integers(5, 13, size=USERS)
    walks = [(rng.integers(ITEMS) + np.arange(n)) % ITEMS + 1 for n in lengths]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    store = SequenceStore(np.concatenate(walks).astype(np.int32), offsets, ITEMS)
    user, end = np.arange(USERS, dtype=np.int32), offsets[1:]
    validation, test = Targets(user, end - 2, end - 1), Targets(user, end - 1, end)
    return store, Split(end - 2, validation, test)


def experiment() -> ExperimentConfig:
    """Write the stages before training; without drop-out, so that no process draws at random."""
    training = {"epochs": EPOCHS, "batch_size": BATCH, "lr": 0.02, "warmup_steps": 0, "ema": 0.5}
    shape = {"width": 16, "heads": 1, "blocks": 1, "max_length": 10, "dropout": 0.0}
    config = parse_config(
        {
            "name": "ring",
            "seed": 3,
            "output": "out",
            "data": {"events": ["unused"], "clock": "none"},
            "split": {"kind": "leave_one_out"},
            "models": {"sasrec": {"kind": "sasrec", **shape, "training": training}},
            "evaluation": {"exclude": "none"},
            "ray": {"workers": 1, "train_workers": 2, "object_store_mb": 80},
            "tracking": {"enabled": False},
        }
    )
    store, split = planted()
    split.save(config.workspace / "prepared" / "splits" / "main")
    store.save(config.workspace / "features" / "sequences")
    meaning = {"config": {"data": config.data.model_dump(mode="json")}}
    write_manifest(config.workspace / "prepared", {"key": "prepared", **meaning})
    facts = {"key": "features", "clock": clock_of(config, store)}
    write_manifest(config.workspace / "features", facts)
    return config


def watched_worker(settings: dict[str, Any]) -> None:
    """Train as the stage does, and write down which events this process predicts from.

    The first attempt ends in the middle: the process that saves is killed.
    """
    import pipelines.training_process as stage
    from recsys.data.windows import TrainingBatches

    targets, on_epoch = TrainingBatches._targets, stage.tell_epoch
    seen, world = [], []
    rank, folder = torch.distributed.get_rank(), Path(settings["directory"]).parent

    def watched(self: TrainingBatches, places: Any, draw: Any) -> Any:
        seen.append(places)
        world.append(torch.distributed.get_world_size())
        return targets(self, places, draw)

    def killed(work: Path, tracker: Any, row: dict[str, float]) -> None:
        on_epoch(work, tracker, row)
        if row["epoch"] == KILLED_AFTER and not (folder / "killed").exists():
            (folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    TrainingBatches._targets = watched  # type: ignore[method-assign]
    stage.tell_epoch = killed
    stage.train_worker(settings)
    record = {f"batch{i:04d}": places for i, places in enumerate(seen)}
    np.savez(folder / f"process{rank}.npz", world=world, pid=os.getpid(), **record)


@dataclass(frozen=True)
class Run:
    """A run of two processes that was killed, resumed and finished."""

    directory: Path
    history: dict[str, Any]
    processes: list[dict[str, Any]]
    failure: str
    printed: str

    def epochs(self, rank: int) -> list[list[np.ndarray[Any, Any]]]:
        """Return the places of each batch of each resumed epoch of a process."""
        record = self.processes[rank]
        batches = [record[name] for name in sorted(record) if name.startswith("batch")]
        steps = len(batches) // (EPOCHS - KILLED_AFTER - 1)
        return [batches[at : at + steps] for at in range(0, len(batches), steps)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two processes, started as a script would: with an output directory relative to its own."""
    import ray

    module, out, processes = sys.modules[__name__], io.StringIO(), []
    ray.cloudpickle.register_pickle_by_value(module)  # workers do not see the folders of the tests
    with pytest.MonkeyPatch.context() as patch, chdir(tmp_path_factory.mktemp("ring")):
        patch.setattr(stage, "train_worker", watched_worker)
        config = experiment()
        with ray_session(config.ray):
            with pytest.raises(RecsysError) as failure:
                train(config, "sasrec")
            with redirect_stdout(out), redirect_stderr(out):
                directory = train(config, "sasrec").absolute()
    ray.cloudpickle.unregister_pickle_by_value(module)
    for rank in range(2):
        with np.load(directory.parent / f"process{rank}.npz") as archive:
            processes.append({name: archive[name] for name in archive.files})
    history = json.loads((directory / "history.json").read_text())
    return Run(directory, history, processes, str(failure.value), out.getvalue())


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[EncoderModel, list[dict[str, float]]]:
    """The same training in one process that takes what both take at a step."""
    with chdir(tmp_path_factory.mktemp("alone")):
        config = experiment()
    store, split = planted()
    settings: Any = config.models["sasrec"]
    torch.manual_seed(derive_seed(config.seed, 1))
    model = build_model(settings, ITEMS)
    assert isinstance(model, EncoderModel)
    plan = FitPlan(
        training=settings.training.model_copy(update={"batch_size": 2 * BATCH}),
        evaluation=config.evaluation,
        data=TrainingData(store, split.train_end),
        validation=split.validation,
        directory=tmp_path_factory.mktemp("checkpoints"),
        seed=config.seed,
    )
    return model, fit(model, plan)


@pytest.mark.ray
@pytest.mark.slow
def test_two_processes_take_disjoint_halves_of_the_windows(run: Run) -> None:
    first, second = run.processes
    assert int(first["pid"]) != int(second["pid"])
    assert set(first["world"]) == set(second["world"]) == {2}
    store, split = planted()
    every = np.concatenate(
        [np.arange(a, b - 1) for a, b in zip(store.offsets[:-1], split.train_end, strict=True)]
    )
    assert len(run.epochs(0)) == len(run.epochs(1)) == EPOCHS - KILLED_AFTER - 1
    for mine, other in zip(run.epochs(0), run.epochs(1), strict=True):
        assert len(mine) == len(other), "as many steps, or one process waits for ever"
        both = np.concatenate(mine + other)
        np.testing.assert_array_equal(np.sort(both), every)  # each event once: no overlap, no gap
    steps = list(zip(run.epochs(0)[0], run.epochs(1)[0], strict=True))
    assert any(len(a) != len(b) for a, b in steps), "their shares of a step are not all equal"


@pytest.mark.ray
@pytest.mark.slow
def test_two_processes_end_where_one_with_twice_the_batch_does(
    run: Run, alone: tuple[EncoderModel, list[dict[str, float]]]
) -> None:
    """So the gradient is that of the mean over all targets of a step, whoever holds them."""
    model, rows = alone
    for row, other in zip(run.history["epochs"], rows, strict=True):
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert row["ndcg@10"] == pytest.approx(other["ndcg@10"], abs=1e-3)
    weights = load_file(run.directory / "model.safetensors")
    for name, value in model.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.ray
@pytest.mark.slow
def test_two_processes_learn_what_popularity_cannot(run: Run) -> None:
    losses = [row["loss"] for row in run.history["epochs"]]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0] / 2
    weights = load_file(run.directory / "model.safetensors")
    assert all(bool(torch.isfinite(value).all()) for value in weights.values())
    store, split = planted()
    pop = Popularity(PopularityConfig(), ITEMS)
    pop.fit(TrainingData(store, split.train_end))
    ranked = rank_targets(pop, store, split.validation, EvaluationConfig(exclude="none"))
    popular = means_by_user(ranked).mean(axis=0)[0]
    metrics = read_manifest(run.directory)["metrics"]
    assert metrics["best_validation_ndcg@10"] > 0.9 > 0.5 > popular


@pytest.mark.ray
@pytest.mark.slow
def test_a_killed_process_says_what_to_do(run: Run) -> None:
    assert "train sasrec: a training process died" in run.failure
    assert "run the same command again" in run.failure


@pytest.mark.ray
@pytest.mark.slow
def test_training_prints_nothing_but_its_progress(run: Run) -> None:
    assert run.printed == ""


def test_processes_share_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.runtime.available_cores", lambda: 6)
    two = RayConfig(train_workers=2)
    assert worker_resources(two, "cpu", {"CPU": 8.0}) == {"CPU": 3, "GPU": 0}
    assert worker_resources(two, "cpu", {"CPU": 4.0}) == {"CPU": 2, "GPU": 0}
    monkeypatch.setattr("recsys.runtime.available_cores", lambda: 1)
    assert worker_resources(two, "cpu", {"CPU": 2.0}) == {"CPU": 1, "GPU": 0}
    with pytest.raises(ConfigError, match=r"train_workers is 2, which needs 2 CPUs.*has 1 here"):
        worker_resources(two, "cpu", {"CPU": 1.0})


@pytest.mark.ray
def test_the_error_for_people_is_found_in_whichever_process_it_was() -> None:
    from ray.train import WorkerGroupError

    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = DataError("events.csv: no item")
    both = WorkerGroupError("two", {0: RuntimeError("connection reset by peer"), 1: wrapped})
    assert str(known_cause(both, "train sasrec")) == "events.csv: no item"
    assert known_cause(WorkerGroupError("one", {0: RuntimeError("a bug")}), "train sasrec") is None


def test_a_machine_with_too_few_gpus_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    available = {"CPU": 8.0, "GPU": 1.0}
    assert worker_resources(RayConfig(train_workers=1), "auto", available)["GPU"] == 1
    with pytest.raises(ConfigError, match=r"needs 2 GPUs, but Ray has 1 here"):
        worker_resources(RayConfig(train_workers=2), "auto", available)


def test_a_cluster_is_asked_for_its_gpus_not_this_machine() -> None:
    cluster = RayConfig(address="head:6379", train_workers=4)
    assert worker_resources(cluster, "auto", {"CPU": 64.0, "GPU": 8.0}) == {"CPU": 1, "GPU": 1}
    assert worker_resources(cluster, "cpu", {"CPU": 64.0, "GPU": 8.0}) == {"CPU": 1, "GPU": 0}
    assert worker_resources(cluster, "auto", {"CPU": 64.0}) == {"CPU": 1, "GPU": 0}
