"""One search by Ray Tune: trials proposed by Optuna, each fitted as in training, the poor ones stopped.

A trial is one process that calls `fit` on the model with the proposed settings. It keeps its checkpoints
and its epochs' records in a directory of its own, named after the trial, so that a search that was killed
goes on inside its last epoch. Trials run one at a time on this machine, and as many at once as there are
CPUs (or GPUs) on a cluster.
"""

from __future__ import annotations

import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from pipelines.fitting import fit_model
from pipelines.progress import EPOCHS_FILE, read_epochs, record_epoch, transient_bar, watched
from pipelines.stopping import EPOCHS, METRIC, scheduler
from pipelines.training_group import known_cause
from recsys.config import (
    ExperimentConfig,
    Range,
    TuneConfig,
    apply_settings,
    parse_config,
    setting_of,
)
from recsys.errors import RecsysError

logger = logging.getLogger(__name__)

BEGUN: Final = "begun.json"
STATE: Final = "ray"
CHECKPOINTS: Final = "checkpoints"
FAILED: Final = "failed.txt"
TRIALS: Final = "trials"
LOOK_EVERY: Final = 1.0
SAVE_EVERY: Final = "1"
"""Seconds between two states of the search on disk."""


@dataclass(frozen=True)
class Search:
    """What one search works on, in plain values that cross a process border.

    Attributes:
        config: the experiment, with absolute paths.
        name: the model that is searched.
        fold: its validation decides.
        directory: where trials and the state of the search are kept.
    """

    config: dict[str, Any]
    name: str
    fold: str
    directory: str


def run_search(search: Search, tune: TuneConfig, resources: Mapping[str, int]) -> None:
    """Run (or go on with) a search until all its trials have ended; they lie in `directory`.

    A trial that fails for a reason that a message names (it gave no finite figure, say) counts as one of
    the worst, and the search goes on; anything else ends it.

    Raises:
        RecsysError: a trial's process died.
    """
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = SAVE_EVERY
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new one prints whatever `verbose` says
    import optuna
    from ray import tune as ray_tune

    optuna.logging.set_verbosity(optuna.logging.WARNING)

    state = Path(search.directory) / STATE
    trainable = ray_tune.with_resources(partial(run_trial, search=search), dict(resources))
    where = str(state / "search")
    if ray_tune.Tuner.can_restore(where):
        logger.info("going on with the search in %s", search.directory)
        tuner = ray_tune.Tuner.restore(
            where, trainable, resume_unfinished=True, restart_errored=True
        )
    else:
        tuner = ray_tune.Tuner(
            trainable,
            param_space={key: _domain(values) for key, values in tune.space[search.name].items()},
            tune_config=_tune_config(search, tune),
            run_config=ray_tune.RunConfig(
                name="search",
                storage_path=str(state),
                failure_config=ray_tune.FailureConfig(fail_fast=True),
                verbose=0,
            ),
        )
    with _progress(search, tune), warnings.catch_warnings():
        # A trial that goes on after a kill makes its old reports again.
        warnings.filterwarnings("ignore", "The reported value is ignored because this `step=")
        grid = tuner.fit()
    for error in grid.errors:
        raise known_cause(error, f"train {search.name}") or error from error


def _tune_config(search: Search, tune: TuneConfig) -> Any:
    from ray import tune as ray_tune
    from ray.tune.search.optuna import OptunaSearch

    config = parse_config(search.config)
    first = {key: setting_of(config.models[search.name], key) for key in tune.space[search.name]}
    inside = all(tune.space[search.name][key].holds(value) for key, value in first.items())
    return ray_tune.TuneConfig(
        metric=METRIC,
        mode="max",
        num_samples=tune.trials,
        reuse_actors=True,  # a new process would import torch again, for seconds
        search_alg=OptunaSearch(seed=config.seed, points_to_evaluate=[first] if inside else None),
        scheduler=scheduler(tune, partial(earlier_reports, Path(search.directory))),
    )


def _domain(values: Range) -> Any:
    from ray import tune as ray_tune

    if values.choice is not None:
        return ray_tune.choice(values.choice)
    if values.integers is not None:
        low, high = values.integers
        return ray_tune.randint(low, high + 1)
    if values.log_uniform is not None:
        return ray_tune.loguniform(*values.log_uniform)
    return ray_tune.uniform(*values.edges)


def run_trial(parameters: dict[str, Any], search: Search) -> None:
    """Fit one proposal and report its epochs (in a process of Ray Tune)."""
    from ray import tune as ray_tune

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    work = Path(search.directory) / TRIALS / ray_tune.get_context().get_trial_id()
    work.mkdir(parents=True, exist_ok=True)
    if not (work / BEGUN).is_file():  # nor is it a second attempt
        begun = {"settings": parameters, "at": time.time_ns()}
        (work / BEGUN).write_text(json.dumps(begun), encoding="utf-8")
    for report in reports_of(read_epochs(work / EPOCHS_FILE)):  # of an attempt that was killed
        ray_tune.report(report)

    def on_epoch(row: dict[str, float]) -> None:
        record_epoch(work, row)
        if "ndcg@10" in row:
            ray_tune.report(reports_of(read_epochs(work / EPOCHS_FILE))[-1])

    config = trial_config(parse_config(search.config), search.name, parameters)
    try:
        rows = fit_model(config, search.name, search.fold, work / CHECKPOINTS, on_epoch=on_epoch)
        if len(read_epochs(work / EPOCHS_FILE)) < len(rows):  # killed right after its last epoch
            on_epoch(rows[-1])
    except RecsysError as error:
        (work / FAILED).write_text(str(error), encoding="utf-8")
        rows = read_epochs(work / EPOCHS_FILE)
        best = max((report[METRIC] for report in reports_of(rows)), default=0.0)
        ray_tune.report({METRIC: best, EPOCHS: len(rows) + 1})


def trial_config(
    config: ExperimentConfig, name: str, parameters: Mapping[str, Any]
) -> ExperimentConfig:
    """Return the experiment with the proposed settings and the search's epochs.

    Where training is data-parallel, a trial's one process takes the sequences of all: a step is the same.
    """
    if config.tune is None:
        raise ValueError("the configuration has no search")
    chosen = {**parameters, "training.epochs": config.tune.epochs}
    model: Any = apply_settings(config.models[name], chosen)
    if config.ray.train_workers > 1:
        batch = model.training.batch_size * config.ray.train_workers
        model = apply_settings(model, {"training.batch_size": batch})
    return config.model_copy(update={"models": {**config.models, name: model}})


@contextmanager
def _progress(search: Search, tune: TuneConfig) -> Iterator[None]:
    """Show a bar of the epochs that trials have made, of those planned, while the body runs."""
    bar = transient_bar()
    task = bar.add_task(f"tune {search.name}", total=tune.trials * tune.epochs)

    def watch(wait: Callable[[float], bool]) -> None:
        while not wait(LOOK_EVERY):
            trials = [
                read_epochs(path / EPOCHS_FILE) for path in begun_trials(Path(search.directory))
            ]
            best = max((row.get("ndcg@10", 0.0) for rows in trials for row in rows), default=0.0)
            title = f"tune {search.name}  {len(trials)} of {tune.trials} trials, best {best:.4f}"
            bar.update(task, completed=sum(map(len, trials)), description=title)

    with watched(bar, watch):
        yield


def begun_trials(directory: Path) -> list[Path]:
    """Return the directories of the trials of a search that have begun, in order of their begin."""

    def begun(path: Path) -> int:
        return int(json.loads((path / BEGUN).read_text(encoding="utf-8"))["at"])

    return sorted((path.parent for path in (directory / TRIALS).glob(f"*/{BEGUN}")), key=begun)


def reports_of(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """Return what Ray Tune is told of a trial's epochs: one report for each that was validated."""
    reports, best = [], float("-inf")
    for row in rows:
        if "ndcg@10" in row:
            best = max(best, row["ndcg@10"])
            reports.append({METRIC: best, EPOCHS: int(row["epoch"]) + 1})
    return reports


def earlier_reports(directory: Path) -> dict[str, list[dict[str, float]]]:
    """Return, by trial in order of their begin, what the trials of a search have reported so far."""
    return {
        path.name: reports_of(read_epochs(path / EPOCHS_FILE)) for path in begun_trials(directory)
    }
