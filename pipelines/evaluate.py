"""The evaluate stage: every model on the same targets, compared, in one report.

Each model of each fold and split is ranked in a Ray task of its own; comparing them and writing the
report takes the stored rows alone.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipelines.order_test import RESULT as ORDER
from pipelines.order_test import order_test, read_result
from pipelines.ray_session import map_partitions, ray_session, worker_count
from pipelines.report_page import PAGE, PLOTS, write_page
from pipelines.report_parts import gather_parts, write_part, write_profiles, write_rows
from pipelines.run_keys import run_key
from pipelines.runs import (
    Run,
    asked_run,
    asks_refitted,
    dataset_name,
    folds,
    is_learned,
    last_fold,
)
from pipelines.tracking import Tracker, code_tags, tracker_settings
from recsys.config import ExperimentConfig
from recsys.errors import ArtifactError, DataError
from recsys.manifest import is_current, read_manifest, stable_hash, stage_directory, written_aside
from recsys.schema import SplitName

if TYPE_CHECKING:
    from recsys.evaluation.beyond import Float32
    from recsys.evaluation.evaluate import Ground, MetricRow

logger = logging.getLogger(__name__)

STAGE_VERSION: Final = 2
METRICS: Final = "metrics.json"
COMPARISONS: Final = "comparisons.json"
TRACKED: Final = "tracked.json"
"""In a report: the run directories whose figures are recorded (true) or never can be (false)."""
_SPLITS: Final[tuple[SplitName, ...]] = ("validation", "test")


@dataclass(frozen=True)
class Exam:
    """What all models are asked together: the targets of one split of one fold."""

    config: ExperimentConfig
    fold: str
    split: SplitName

    @property
    def dataset(self) -> str:
        """How rows name the data."""
        return dataset_name(self.config, self.fold)

    @property
    def refit(self) -> bool:
        """Whether refitted runs are asked, which have learned the validation targets."""
        return asks_refitted(self.config, self.split)

    def run(self, name: str) -> Run:
        """Return the model's run that is asked; `ArtifactError` if it is not trained."""
        return asked_run(self.config, name, self.fold, self.split)

    def title(self, name: str) -> str:
        """Return how a report calls that run: `fold/model`, a refitted one with `/refit`."""
        return f"{self.fold}/{name}" + ("/refit" if self.refit else "")

    def directory(self, report: Path) -> Path:
        """Return where its rows are kept; folds do not share a directory."""
        return report if len(folds(self.config)) == 1 else report / self.fold


def exams(config: ExperimentConfig) -> list[Exam]:
    """Return what is measured: the configured splits of every fold.

    Where the best model has to be chosen for publishing, validation of the last fold is added.
    """
    chosen = [Exam(config, fold, split) for fold in folds(config) for split in _splits(config)]
    needed = Exam(config, last_fold(config), "validation")
    if config.publish.model is None and needed not in chosen:
        chosen.append(needed)
    return chosen


def evaluate(config: ExperimentConfig) -> Path:
    """Evaluate all models of the configuration and return the finished report directory.

    `metrics.json` and `comparisons.json` are lists of rows, `targets/` has the rows they are derived
    from, `report.html` shows them, `plots/` has the charts of the models as files.

    Raises:
        ArtifactError: a model is not trained with this configuration.
        DataError: a split that is asked for has no targets.
    """
    asked = exams(config)
    runs = {exam.title(name): exam.run(name) for exam in asked for name in config.models}
    key = report_key(config)
    directory = _directory(config, key)
    if is_current(directory, key):
        _track(config, list(runs.values()), directory)
        return directory
    _check_targets(asked)
    with stage_directory(directory, key) as (work, manifest):
        tasks = [(exam, name, work) for exam in asked for name in config.models]
        with ray_session(config.ray):
            workers = min(worker_count(config.ray), len(tasks))
            rows = [
                row for part in map_partitions(grade, tasks, workers, "evaluate") for row in part
            ]
        comparisons = [row for exam in asked for row in _compare(exam, work)]
        write_rows(work / METRICS, rows)
        write_rows(work / COMPARISONS, comparisons)
        gather_parts(work, [(exam.dataset, exam.split, name) for exam, name, _ in tasks])
        write_profiles(config, [exam.fold for exam in asked], work)
        if config.order_test is not None:
            write_rows(work / ORDER, read_result(order_test(config)))
        facts = about(config)
        write_page(config, runs, facts, work)
        manifest.update(
            about=facts,
            models=list(config.models),
            exams=[{"fold": exam.fold, "split": exam.split} for exam in asked],
            runs={title: run.directory.name for title, run in runs.items()},
            evaluation=config.evaluation.model_dump(mode="json"),
            seed=config.seed,
        )
    _track(config, list(runs.values()), directory)
    return directory


def _check_targets(asked: Sequence[Exam]) -> None:
    """Refuse what would leave a table empty, or the best model unknown, after all the work."""
    from recsys.data.sequences import Split

    for exam in asked:
        name, config = exam.split, exam.config
        folder = config.workspace / "prepared" / "splits" / exam.fold
        if len(getattr(Split.load(folder), name)):
            continue
        if name in config.evaluation.splits:
            purpose, otherwise = "evaluation.splits asks for", f"leave {name} out of it"
        else:
            purpose = "the best model is chosen by"
            otherwise = "name the model to publish with publish.model"
        raise DataError(
            f"{folder}: the split has no {name} targets, which {purpose}; set split.{name} higher or "
            f"split.{name}_from earlier (split.window higher where split.kind is rolling), or {otherwise}"
        )


def finished_report(config: ExperimentConfig) -> Path:
    """Return the report of this configuration; `ArtifactError` says to evaluate first."""
    key = report_key(config)
    directory = _directory(config, key)
    if not is_current(directory, key):
        raise ArtifactError(
            f"{directory} is no report of this configuration; run `recsys evaluate` first"
        )
    return directory


def grade(task: tuple[Exam, str, Path]) -> list[MetricRow]:
    """Rank the targets of one exam with one model; write its rows, return its figures (a Ray task)."""
    from recsys.evaluation.evaluate import evaluate_model
    from recsys.evaluation.targets_file import read_targets, targets_path
    from recsys.runtime import resolve_device

    exam, name, work = task
    run = exam.run(name)
    device = resolve_device("auto") if is_learned(exam.config, name) else "cpu"
    ground, folder = _ground(exam, run), exam.directory(work)
    rows = evaluate_model(name, run.model, ground, folder, device=device)
    ranked = read_targets(targets_path(folder, name, exam.split))
    write_part(work, run, (exam.dataset, exam.split, name), ranked, ground.item_counts)
    return rows


def _ground(exam: Exam, run: Run) -> Ground:
    from recsys.data.sequences import TrainingData
    from recsys.evaluation.evaluate import Ground

    return Ground(
        dataset=exam.dataset,
        store=run.store,
        split=run.split,
        split_name=exam.split,
        config=exam.config.evaluation,
        item_counts=TrainingData(run.store, run.split.train_end).item_counts(),
        item_vectors=_shared_vectors(exam),
        seed=exam.config.seed,
    )


def _shared_vectors(exam: Exam) -> Float32 | None:
    """Return the item vectors by which all lists' inner distance is measured: the first learned
    model's, so that figures of one report compare; None where no model has any.
    """
    import torch

    from pipelines.index import item_vectors

    learned = [name for name in exam.config.models if is_learned(exam.config, name)]
    if not learned:
        return None
    with torch.inference_mode():
        vectors: Float32 = item_vectors(exam.run(learned[0])).numpy()
    return vectors


def _compare(exam: Exam, work: Path) -> list[dict[str, Any]]:
    from recsys.evaluation.compare import compare_models

    rows = compare_models(
        exam.directory(work),
        list(exam.config.models),
        exam.config.evaluation,
        split_name=exam.split,
        seed=exam.config.seed,
    )
    return [{"dataset": exam.dataset, **row} for row in rows]


def about(config: ExperimentConfig) -> dict[str, str]:
    """Return what the figures of a report stand on: data, split, rule, models, code, date."""
    from datetime import UTC, datetime

    prepared = read_manifest(config.workspace / "prepared")
    sizes = ", ".join(f"{count:,} {what}" for what, count in prepared["rows"].items())
    source = config.data.preset or ", ".join(config.data.events)
    split = config.split.model_dump(mode="json", exclude_none=True)
    code = code_tags()
    return {
        "made": datetime.now(UTC).isoformat(timespec="minutes"),
        "data": f"{source}: {sizes.replace('_', ' ')}",
        "data hash": prepared["key"][:16],
        "split": ", ".join(f"{key} {value}" for key, value in split.items()),
        "target": prepared["target"],
        "learned from": "training events; those of the test from training and validation events"
        if config.refit
        else "training events",
        "excluded": f"{config.evaluation.exclude}; targets that this forbids: "
        f"{config.evaluation.repeats}",
        "seed": str(config.seed),
        "code": f"{code['code_version']}, sources {code['code_hash'][:16]}"
        + (f", commit {code['git_commit'][:12]}" if "git_commit" in code else ""),
    }


def _track(config: ExperimentConfig, runs: Sequence[Run], report: Path) -> None:
    """Add the figures of a report to the MLflow runs of its models, if that was not done before.

    What could not be recorded is said, and tried again by the next call.
    """
    file = report / TRACKED
    done = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    # A model that could not be tracked and was fitted again, this time with tracking, is left too.
    left = [run for run in runs if done.get(run.directory.name) != _can_be_tracked(run)]
    if not config.tracking.enabled or not left:
        return
    rows = json.loads((report / METRICS).read_text(encoding="utf-8"))
    for run in left:
        recorded = _track_run(config, run, rows, report)
        if recorded is None:
            break  # the others would wait for the same server
        done[run.directory.name] = recorded
    with written_aside(file) as aside:
        write_rows(aside, done)
    if missed := [run.name for run in left if done.get(run.directory.name) != _can_be_tracked(run)]:
        logger.warning(
            "The figures of %s are in %s but not in the tracking at %s; `recsys evaluate` (or run) "
            "with the same configuration records them once it answers",
            ", ".join(missed), report, tracker_settings(config, "").uri,
        )  # fmt: skip


def _can_be_tracked(run: Run) -> bool:
    return run.manifest.get("mlflow_run") is not None


def _track_run(
    config: ExperimentConfig, run: Run, rows: Sequence[MetricRow], report: Path
) -> bool | None:
    """Record a model's figures, the page and the plots; None if that failed, False if it never can."""
    if not _can_be_tracked(run):
        logger.warning(
            "%s was fitted while tracking was off or down, so no run of it can have the figures, which "
            "are in the report alone; delete %s and run again to have both",
            run.name, run.directory,
        )  # fmt: skip
        return False
    asked = {s for s in _SPLITS if run.refit == asks_refitted(config, s)}
    dataset = dataset_name(config, run.fold)
    mine: dict[str, float] = {}
    for row in rows:
        if (row["model"], row["dataset"], row["slice"]) != (run.name, dataset, "all"):
            continue
        name = f"{row['split']}/{row['metric']}" + (f"@{row['k']}" if row["k"] else "")
        figures = {"": row["value"], "_low": row["low"], "_high": row["high"]}
        if row["split"] in asked:
            mine |= {name + end: value for end, value in figures.items() if value is not None}
    if not mine:
        return True
    settings = replace(tracker_settings(config, run.name), run_id=run.manifest["mlflow_run"])
    tracker = Tracker(settings)
    tracker.start_run({}, {})
    tracker.log_metrics(mine)
    for path in (report / PAGE, report / PLOTS):
        if path.exists():
            tracker.log_artifact(path)
    tracker.finish()
    return None if tracker.failures else True


def _splits(config: ExperimentConfig) -> list[SplitName]:
    return list(dict.fromkeys(config.evaluation.splits))


def report_key(config: ExperimentConfig) -> str:
    """Return the hash of everything that makes a report; needs the features stage, and no run.

    Raises:
        ArtifactError: the data are not prepared.
    """
    asked = exams(config)
    return stable_hash(
        {
            "runs": {
                exam.title(name): run_key(config, name, exam.fold, refit=exam.refit)
                for exam in asked
                for name in config.models
            },
            "exams": [[exam.fold, exam.split] for exam in asked],
            "order_test": config.order_test and config.order_test.model_dump(mode="json"),
            "evaluation": config.evaluation.model_dump(mode="json"),
            "name": config.name,
            "seed": config.seed,
            "version": STAGE_VERSION,
        }
    )


def _directory(config: ExperimentConfig, key: str) -> Path:
    return config.workspace / "reports" / key[:8]
