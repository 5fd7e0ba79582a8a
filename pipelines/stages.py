"""The stages in their order: which steps an experiment has, run one after another, with progress.

Every step is a function that returns its finished directory, at once if that is up to date. So a run
that was interrupted goes on, and a run of which nothing changed takes seconds: it starts no Ray and
imports no torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pipelines.summary import print_summary, shown
from recsys.config import ExperimentConfig
from recsys.errors import ConfigError
from recsys.lock import locked
from recsys.manifest import MANIFEST

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.rolling import RollingSettings

STAGES: Final = ("prepare", "features", "train", "index", "evaluate", "publish")
LOCK: Final = ".lock"
"""In a workspace: held by the process that runs its stages."""


@dataclass(frozen=True)
class Step:
    """One thing to do: `subject` tells the steps of a stage apart, the models in most."""

    stage: str
    subject: str
    run: Callable[[], Path]

    @property
    def title(self) -> str:
        """What the progress shows."""
        return f"{self.stage} {self.subject}".rstrip()


@dataclass(frozen=True)
class Done:
    """A finished step: where its result is, how long it took, whether there was anything to do."""

    step: Step
    directory: Path
    seconds: float
    skipped: bool


def run_experiment(config: ExperimentConfig, console: Console) -> list[Done]:
    """Run all stages and print the summary; stages that are up to date are skipped."""
    steps = [step for stage in STAGES for step in plan(config, stage)]
    done = run_steps(config, steps, console)
    results = {one.step.stage: one.directory for one in done}
    print_summary(config, results["evaluate"], results["publish"], console)
    return done


def run_tune(config: ExperimentConfig, console: Console) -> list[Done]:
    """Search the settings of every model of the section `tune`, after the stages before training."""
    from pipelines.tune import print_searches, tune_config

    tune_config(config)  # before anything is prepared for a configuration without one
    steps = [step for stage in ("prepare", "features", "tune") for step in plan(config, stage)]
    done = run_steps(config, steps, console)
    print_searches(config, console)
    return done


def run_rolling(config: ExperimentConfig, settings: RollingSettings, console: Console) -> Path:
    """Compare ways of keeping a model up to date, after the stages before training; print the table."""
    import json

    from pipelines.rolling import RESULT, difference_lines, rolling, rolling_table

    steps = [step for stage in ("prepare", "features") for step in plan(config, stage)]
    steps.append(Step("rolling", "", lambda: rolling(config, settings, console)))
    directory = run_steps(config, steps, console)[-1].directory
    result = json.loads((directory / RESULT).read_text(encoding="utf-8"))
    console.width = max(console.width, 140)
    console.print(rolling_table(result))
    for line in difference_lines(result):
        console.print(line, highlight=False, markup=False)
    return directory


def run_order_test(config: ExperimentConfig, console: Console) -> Path:
    """Test what order is worth to one model, after preparing the data and training that model alone."""
    from pipelines.order_test import asked_model, order_test
    from pipelines.runs import last_fold

    which = asked_model(config), last_fold(config)
    steps = [step for stage in ("prepare", "features") for step in plan(config, stage)]
    steps.append(_model_step("train", _train, config, *which))
    if config.refit:
        steps.append(_model_step("train", _refit, config, *which))
    steps.append(Step("order-test", which[0], lambda: order_test(config, console)))
    return run_steps(config, steps, console)[-1].directory


def run_stage(config: ExperimentConfig, stage: str, console: Console) -> list[Done]:
    """Run one stage; the ones before it must be finished."""
    return run_steps(config, plan(config, stage), console)


def plan(config: ExperimentConfig, stage: str) -> list[Step]:
    """Return the steps of a stage, in order."""
    from pipelines.runs import folds, has_vectors, last_fold
    from pipelines.statistics import wants_neighbours
    from pipelines.text import wanted_vectors, wants_sentences

    everything = [(name, fold) for fold in folds(config) for name in config.models]
    indexed = [(name, last_fold(config)) for name in config.models if has_vectors(config, name)]
    match stage:
        case "prepare":
            return [Step(stage, "", lambda: _prepare(config))]
        case "features":
            steps = [Step(stage, "", lambda: _features(config))]
            if wants_neighbours(config):
                steps.append(Step(stage, "neighbours", lambda: _neighbours(config)))
            if wants_sentences(config):
                steps.append(Step(stage, "sentences", lambda: _sentences(config)))
            if wanted_vectors(config):
                steps.append(Step(stage, "text vectors", lambda: _text_vectors(config)))
            return steps
        case "train":
            first = [_model_step(stage, _train, config, *which) for which in everything]
            again = [_model_step(stage, _refit, config, *which) for which in everything]
            return first + (again if config.refit else [])
        case "index":
            return [_model_step(stage, _index, config, *which) for which in indexed]
        case "evaluate":
            return [Step(stage, "", lambda: _evaluate(config))]
        case "publish":
            return [Step(stage, "", lambda: _publish(config))]
        case "tune" if config.tune is not None:
            return [_search_step(config, name) for name in config.tune.chosen]
    raise ConfigError(f"no stage {stage!r}; stages are {', '.join(STAGES)}")


def run_steps(config: ExperimentConfig, steps: list[Step], console: Console) -> list[Done]:
    """Run the steps in order and print a line for each.

    Only one process at a time runs steps of a workspace: they read what the others write.
    """
    done: list[Done] = []
    began = time.monotonic()
    width = max((len(step.title) for step in steps), default=0)
    with ExitStack() as session:
        session.enter_context(_alone(config.workspace))
        for i, step in enumerate(steps, start=1):
            if i < len(steps) and _has_work(config, step, done):
                _check_first(config, step)
                _open_session(config, session)
            label = f"[{i}/{len(steps)}] {step.title:<{width}}"
            if console.is_terminal:
                console.print(f"{label}  ...", end="\r", highlight=False, markup=False)
            done.append(one := _run(step))
            took = "up to date" if one.skipped else f"{one.seconds:.1f} s"
            where = shown(one.directory)
            console.print(f"{label}  {took:>10}  {where}", highlight=False, markup=False)
    skipped = sum(one.skipped for one in done)
    total = time.monotonic() - began
    summary = f"{len(done) - skipped} steps run, {skipped} up to date, {total:.1f} s in all"
    console.print(summary, highlight=False)
    return done


def _alone(workspace: Path) -> AbstractContextManager[None]:
    remedy = "or give this run another `output` or `name`"
    return locked(workspace / LOCK, workspace, remedy)


def _has_work(config: ExperimentConfig, step: Step, done: list[Done]) -> bool:
    """Tell whether Ray is surely needed: something was done already, or nothing exists yet.

    Where it cannot be told in advance, the step starts a session of its own if it needs one.
    """
    if any(not one.skipped for one in done):
        return True
    return step.stage == "prepare" and not (config.workspace / "prepared" / MANIFEST).is_file()


def _check_first(config: ExperimentConfig, step: Step) -> None:
    """Refuse input that can be refused without Ray before its start makes anybody wait."""
    if step.stage == "prepare":
        from pipelines.prepare import check_inputs

        check_inputs(config)


def _open_session(config: ExperimentConfig, session: ExitStack) -> None:
    """Keep one Ray for all further steps: starting it takes as long as most of them."""
    from pipelines.ray_session import ray_session

    session.enter_context(ray_session(config.ray))  # inside a session this one is used again


def _run(step: Step) -> Done:
    """Run a step; it was skipped if its result is older than the call."""
    now = time.time_ns()
    began = time.monotonic()
    directory = step.run()
    finished = (directory / MANIFEST).stat().st_mtime_ns
    return Done(step, directory, time.monotonic() - began, skipped=finished < now)


def _model_step(
    stage: str,
    run: Callable[[ExperimentConfig, str, str], Path],
    config: ExperimentConfig,
    name: str,
    fold: str,
) -> Step:
    subject = name if fold == "main" else f"{name} {fold}"
    subject += " (refit)" if run is _refit else ""
    return Step(stage, subject, lambda: run(config, name, fold))


def _search_step(config: ExperimentConfig, name: str) -> Step:
    from pipelines.tune import tune_model

    return Step("tune", name, lambda: tune_model(config, name))


def _prepare(config: ExperimentConfig) -> Path:
    from pipelines.prepare import prepare

    return prepare(config)


def _features(config: ExperimentConfig) -> Path:
    from pipelines.features import build_features

    return build_features(config)


def _neighbours(config: ExperimentConfig) -> Path:
    from pipelines.neighbours import build_neighbours

    return build_neighbours(config)


def _sentences(config: ExperimentConfig) -> Path:
    from pipelines.text import build_sentences

    return build_sentences(config)


def _text_vectors(config: ExperimentConfig) -> Path:
    from pipelines.text_vectors import build_text_vectors

    return build_text_vectors(config)


def _train(config: ExperimentConfig, name: str, fold: str) -> Path:
    from pipelines.train import train

    return train(config, name, fold)


def _refit(config: ExperimentConfig, name: str, fold: str) -> Path:
    from pipelines.train import train

    return train(config, name, fold, refit=True)


def _index(config: ExperimentConfig, name: str, fold: str) -> Path:
    from pipelines.index import index

    return index(config, name, fold)


def _evaluate(config: ExperimentConfig) -> Path:
    from pipelines.evaluate import evaluate

    return evaluate(config)


def _publish(config: ExperimentConfig) -> Path:
    from pipelines.evaluate import finished_report
    from pipelines.publish import publish

    return publish(config, finished_report(config))
