"""`recsys study`: models of several experiments and seeds, cell by cell, and what they say together.

A cell is a set, a model and a seed: every stage up to the evaluation, of that model alone, on the test
targets. Stages are cached by content and an interrupted training goes on, so a study that is stopped or
asked for more does only what is missing. The cells most worth having come first; at the end the summary
and the page are made anew, of all cells whose data and settings are those of the configuration.

A cell's own two files are all that the study needs of it: its runs may be deleted, and cells that
another machine has trained count wherever the same data are prepared with the same settings. Models of a
set that have equal settings are trained once, under the name of the one that its experiment has first (new
models go below), and compared under each; the summary says which.

    out/<study>/
      cells/<set>/<model>/<seed>.json     figures, the keys of the run and the report they are of, and
                                          the hash of the other file
      cells/<set>/<model>/<seed>.parquet  the metric of every target, and the slices it is in
      summary.json, study.html
      runs/<set>/                         the experiments' own stages
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipelines.evaluate import finished_report, report_key
from pipelines.ray_session import ray_session
from pipelines.report_parts import write_rows
from pipelines.run_keys import run_key
from pipelines.runs import tested_run
from pipelines.stages import plan, run_steps
from recsys.config import (
    ExperimentConfig,
    PublishConfig,
    StudyConfig,
    TrackingConfig,
    load_config,
)
from recsys.errors import ArtifactError, ConfigError
from recsys.manifest import file_hash, read_manifest, written_aside

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from recsys.evaluation.study import Scored

STAGES: Final = ("prepare", "features", "train", "evaluate")
CELLS, SUMMARY, PAGE, RUNS = "cells", "summary.json", "study.html", "runs"
SHOWN: Final = ("hr", "ndcg", "mrr")


@dataclass(frozen=True)
class Cell:
    """What is trained and evaluated at once."""

    set: str
    model: str
    seed: int

    @property
    def name(self) -> str:
        """How it is called, and its file."""
        return f"{self.set}/{self.model}/{self.seed}"


@dataclass(frozen=True)
class Study:
    """A configured study and the experiments that it is made of."""

    config: StudyConfig

    @property
    def directory(self) -> Path:
        """Where everything of it is written."""
        return self.config.output / self.config.name

    @cached_property
    def experiments(self) -> dict[str, ExperimentConfig]:
        """The sets' experiments.

        Raises:
            ConfigError: one lacks the baseline, has several folds, or a model is in none of them.
        """
        found = {name: load_config(path) for name, path in self.config.sets.items()}
        for name, experiment in found.items():
            path = self.config.sets[name]
            if self.config.baseline not in experiment.models:
                raise ConfigError(
                    f"sets.{name}: {path} has no model {self.config.baseline}, which is the baseline; "
                    f"its models are {', '.join(experiment.models)}"
                )
            if experiment.split.kind == "rolling":
                raise ConfigError(
                    f"sets.{name}: {path} has a rolling split, but a study compares the targets of one "
                    "split; use another kind"
                )
            if self.config.k not in experiment.evaluation.ks:
                raise ConfigError(
                    f"sets.{name}: {path} does not measure at k = {self.config.k}; add it to its "
                    "evaluation.ks"
                )
        for model in (*self.config.models, *self.config.once):
            if not any(model in experiment.models for experiment in found.values()):
                raise ConfigError(f"model {model} is in none of the experiments of the sets")
        return found

    def asked(self) -> list[Cell]:
        """Return what is compared, in the order in which it is worth having.

        Of each seed the first two models on all sets, then the other ones; after the first seed's the
        models without chance and the ablations.
        """
        names, first = self.config, self.config.seeds[0]
        ordered: list[Cell] = []
        for seed in names.seeds:
            for some in (names.models[:2], names.models[2:]):
                ordered += [Cell(s, m, seed) for s in self.experiments for m in some]
            if seed == first:
                ordered += [Cell(s, m, seed) for s in self.experiments for m in names.once]
                ordered += [Cell(s, m, seed) for s in names.ablations for m in self.ablated(s)]
        return [cell for cell in ordered if cell.model in self.experiments[cell.set].models]

    def cells(self) -> list[Cell]:
        """Return what is trained, in that order."""
        return list(dict.fromkeys(self.trained(cell) for cell in self.asked()))

    def trained(self, cell: Cell) -> Cell:
        """Return the cell that is trained for one: its set's first model with the same settings."""
        models = self.experiments[cell.set].models
        first = next(name for name in models if models[name] == models[cell.model])
        return replace(cell, model=first)

    def same(self) -> dict[str, str]:
        """Return whose run it is, set/model by set/model, for the models that have no run of their own."""
        pairs = ((cell, self.trained(cell)) for cell in self.asked())
        return {
            f"{cell.set}/{cell.model}": f"{trained.set}/{trained.model}"
            for cell, trained in pairs
            if cell != trained
        }

    def ablated(self, name: str) -> list[str]:
        """Return the models of a set's experiment that lack a part, or have one more."""
        others = (*self.config.models, *self.config.once)
        return [model for model in self.experiments[name].models if model not in others]

    def experiment(self, cell: Cell) -> ExperimentConfig:
        """Return a cell's experiment: one model of its set's."""
        whole = self.experiments[cell.set]
        return whole.model_copy(
            update={
                "name": cell.set,
                "seed": cell.seed,
                "data_seed": whole.drawn_by,  # all seeds have the same targets, so they can be paired
                "output": self.directory / RUNS,
                "models": {cell.model: whole.models[cell.model]},
                "evaluation": whole.evaluation.model_copy(
                    update={"baseline": None, "splits": ["test"]}
                ),
                "publish": PublishConfig(model=cell.model),  # so validation need not choose one
                "tracking": TrackingConfig(enabled=False),
                "order_test": None,
                "tune": None,
            }
        )

    def file(self, cell: Cell) -> Path:
        """Return where a cell's figures are."""
        return self.directory / CELLS / f"{cell.name}.json"

    def rows(self, cell: Cell) -> Path:
        """Return where a cell's targets are."""
        return self.file(cell).with_suffix(".parquet")

    def done(self) -> list[Cell]:
        """Return the trained cells whose figures are those of the configuration, in their order."""
        return [cell for cell in self.cells() if is_done(self, cell)]


def run_study(
    config: StudyConfig,
    console: Console,
    *,
    sets: Sequence[str] = (),
    models: Sequence[str] = (),
    seeds: Sequence[int] = (),
    hours: float | None = None,
) -> Path:
    """Run the cells that are asked for, and return the study's directory.

    Args:
        config: the study.
        console: told what is done.
        sets, models, seeds: only these; all where empty.
        hours: begin no cell after so many.

    Raises:
        ConfigError: a set, model or seed is not of the study, or no cell is of all three.
    """
    study, began = Study(config), time.monotonic()
    cells, compared = study.cells(), study.asked()
    _check_asked("set", sets, [cell.set for cell in compared])
    _check_asked("model", models, [cell.model for cell in compared])
    _check_asked("seed", seeds, [cell.seed for cell in compared])
    wanted = {
        study.trained(cell)
        for cell in compared
        if (not sets or cell.set in sets)
        and (not models or cell.model in models)
        and (not seeds or cell.seed in seeds)
    }
    if not wanted:
        raise ConfigError(
            f"no cell of this study is of these sets, models and seeds together: models under once and "
            f"the ablations have seed {config.seeds[0]} alone, and a set has only the models of its "
            "experiment"
        )
    asked = [cell for cell in cells if cell in wanted]
    for name, first in sorted(study.same().items()):
        console.print(f"{name} has the settings of {first}: trained once", highlight=False)
    for name in dict.fromkeys(cell.set for cell in asked):
        console.rule(name)
        there = [c for c in cells if c.set == name and (c in asked or study.file(c).is_file())]
        _bring_up_to_date(study, there, console)
    todo = [cell for cell in asked if not is_done(study, cell)]
    if len(todo) < len(asked):
        console.print(f"{len(asked) - len(todo)} of {len(asked)} cells are up to date")
    with ExitStack() as stack:
        for number, cell in enumerate(todo, start=1):
            if hours is not None and time.monotonic() - began > 3600 * hours:
                left = len(todo) - number + 1
                console.print(f"{hours:g} hours are over; {left} cells are left", highlight=False)
                break
            if number == 1:
                # One session for all cells: to start one takes longer than a small cell.
                stack.enter_context(ray_session(study.experiment(cell).ray))
            console.rule(f"{number}/{len(todo)} {cell.name}")
            run_cell(study, cell, console)
    write_summary(study)
    return study.directory


def _bring_up_to_date(study: Study, cells: Sequence[Cell], console: Console) -> None:
    """Prepare the data of the cells of a set as its configuration and files are now: keys are of these."""
    whole = study.experiments[cells[0].set]
    models = {cell.model: whole.models[cell.model] for cell in cells}
    config = study.experiment(cells[0]).model_copy(update={"models": models})
    run_steps(config, [step for stage in STAGES[:2] for step in plan(config, stage)], console)


def _check_asked(what: str, asked: Sequence[Any], known: Sequence[Any]) -> None:
    if unknown := [name for name in asked if name not in known]:
        raise ConfigError(
            f"{what} {', '.join(map(str, unknown))} is not of this study; it has "
            f"{', '.join(map(str, dict.fromkeys(known)))}"
        )


def is_done(study: Study, cell: Cell) -> bool:
    """Tell whether a cell's figures are of the prepared data and the settings as they are."""
    file, rows = study.file(cell), study.rows(cell)
    if not (file.is_file() and rows.is_file()):
        return False
    figures = json.loads(file.read_text(encoding="utf-8"))
    try:
        current = figures["keys"] == _keys(study, cell)
    except ArtifactError:  # the set is not prepared
        return False
    return bool(current and figures["rows"] == file_hash(rows))


def _keys(study: Study, cell: Cell) -> dict[str, Any]:
    """Return what a cell's figures are of; `ArtifactError` if the set's data are not prepared."""
    config = study.experiment(cell)
    return {
        "k": study.config.k,
        "run": run_key(config, cell.model, refit=config.refit),
        "report": report_key(config),
    }


def run_cell(study: Study, cell: Cell, console: Console) -> None:
    """Run one cell's stages, those that are up to date excepted, and store its figures."""
    config = study.experiment(cell)
    began = time.monotonic()
    done = run_steps(config, [step for stage in STAGES for step in plan(config, stage)], console)
    report = finished_report(config)
    rows = json.loads((report / "metrics.json").read_text(encoding="utf-8"))
    first = next(one.directory for one in done if one.step.stage == "train")
    _scored(study, cell).save(study.rows(cell))
    figures: dict[str, Any] = {
        **asdict(cell),
        "metrics": {
            f"{row['metric']}@{row['k']}" if row["k"] else row["metric"]: [
                round(row[field], 5) for field in ("value", "low", "high")
            ]
            for row in rows
            if row["metric"] in SHOWN
            and row["k"] in (study.config.k, None)
            and row["slice"] == "all"
        },
        "users": rows[0]["users"],
        "training": read_manifest(first)["metrics"],
        "keys": _keys(study, cell),
        "rows": file_hash(study.rows(cell)),
        "seconds": round(time.monotonic() - began, 1),
    }
    _write(study.file(cell), figures)


def _write(path: Path, content: Any) -> None:
    """Write JSON whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside:
        write_rows(aside, content)


def write_summary(study: Study) -> dict[str, Any]:
    """Make `summary.json` and the page of all cells that are done; return the summary."""
    from recsys.evaluation.study import Scored, compare_with, over_seeds
    from recsys.evaluation.study_page import write_study_page

    config = study.config
    cells: dict[tuple[str, str], dict[int, Cell]] = defaultdict(dict)
    found = {cell: Scored.load(study.rows(cell)) for cell in study.done()}
    for cell in study.asked():
        if (trained := study.trained(cell)) in found:
            cells[cell.set, cell.model][cell.seed] = trained
    if not config.slices:
        found = {cell: one.whole() for cell, one in found.items()}
    means = []
    for (name, model), by_seed in cells.items():
        known = {seed: _means_of(study.file(cell)) for seed, cell in by_seed.items()}
        means.append({"set": name, "model": model, **over_seeds(known)})
    by_set, pooled = {}, {}
    for model in dict.fromkeys(model for _, model in cells if model != config.baseline):
        pairs, seeds = {}, {}
        for name in study.experiments:
            mine, base = cells.get((name, model), {}), cells.get((name, config.baseline), {})
            if both := sorted(mine.keys() & base.keys()):
                pairs[name] = [(found[mine[s]], found[base[s]]) for s in both]
                seeds[name] = both
        if pairs:
            rows, pooled[model] = compare_with(pairs)
            by_set[model] = [{**row, "seeds": seeds[row["set"]]} for row in rows]
    summary: dict[str, Any] = {
        "name": config.name,
        "baseline": config.baseline,
        "metric": f"NDCG@{config.k}",
        "sets": list(config.sets),
        "over_seeds": means,
        "by_set": by_set,
        "pooled": pooled,
        "same": study.same(),
        "missing": [cell.name for cell in study.asked() if study.trained(cell) not in found],
    }
    _write(study.directory / SUMMARY, summary)
    write_study_page(study.directory / PAGE, summary)
    return summary


def _means_of(file: Path) -> dict[str, float]:
    cell = json.loads(file.read_text(encoding="utf-8"))
    seconds = cell["training"].get("train_seconds")
    found = {name: values[0] for name, values in cell["metrics"].items()}
    return found if seconds is None else {**found, "train_seconds": seconds}


def _scored(study: Study, cell: Cell) -> Scored:
    """Return the targets of a cell's report, their NDCG, and the slices that they are in."""
    from recsys.data.sequences import TrainingData
    from recsys.evaluation.metrics import Places, ndcg
    from recsys.evaluation.study import Scored, slices_of
    from recsys.evaluation.targets_file import read_targets, targets_path

    config = study.experiment(cell)
    found = read_targets(targets_path(finished_report(config), cell.model, "test"))
    values = ndcg(Places.of(found.ranks, found.offsets), study.config.k)
    run = tested_run(config, cell.model, "main")
    counts = TrainingData(run.store, run.split.train_end).item_counts()
    slices = slices_of(found, run.store, run.split.test.start, counts)
    return Scored(found.index, found.user, values, slices)


def study_table(summary: dict[str, Any]) -> Table:
    """Return every comparison with the baseline, and the pooled one of each model."""
    from rich.table import Table

    from recsys.evaluation.names import p_text

    title = f"{summary['metric']} against {summary['baseline']}, by user (with 95 % intervals)"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in ("model", "set", "model's", "baseline's", "gain", "p", "p, Holm", "seeds"):
        table.add_column(heading, no_wrap=True)
    for model, rows in summary["by_set"].items():
        for row in rows:
            values = (f"{row[name]:.4f}" for name in ("value", "baseline"))
            p = (p_text(row[name]) for name in ("p", "p_holm"))
            seeds = ", ".join(map(str, row["seeds"]))
            table.add_row(model, row["set"], *values, _gain(row), *p, seeds)
        pooled = summary["pooled"][model]
        table.add_row(model, f"all {len(pooled['sets'])}", "", "", _gain(pooled), "", "", "")
    return table


def _gain(row: dict[str, Any]) -> str:
    if row["gain"] is None:
        return "the baseline is 0"
    return f"{row['gain']:+.1%} [{row['low']:+.1%}, {row['high']:+.1%}]"
