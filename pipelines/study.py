"""`recsys study`: models of several experiments and seeds, cell by cell, and what they say together.

A cell is a set, a model and a seed: every stage up to the evaluation, of that model alone, on the test
targets. Stages are cached by content and an interrupted training goes on, so a study that is stopped or
asked for more does only what is missing. The cells most worth having come first; at the end the summary
and the page are made anew, of all cells whose data and settings are those of the configuration.

A cell's own two files are all that the study needs of it: trained runs and reports may be deleted, and
cells that another machine has trained count wherever the same data are prepared with the same settings.
Models of a set that have equal settings are trained once, under the name of the one that its experiment
has first (new models go below), and compared under each; the summary says which.

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
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipelines.evaluate import finished_report
from pipelines.ray_session import ray_session
from pipelines.runs import tested_run
from pipelines.stages import plan, run_steps
from pipelines.study_cells import Cell, Study, rows_of, write_json
from pipelines.study_summary import write_summary
from recsys.config import StudyConfig
from recsys.errors import ConfigError
from recsys.manifest import file_hash, read_manifest

if TYPE_CHECKING:
    from rich.console import Console

    from recsys.evaluation.study import Scored

PREPARING: Final = ("prepare", "features")
STAGES: Final = (*PREPARING, "train", "evaluate")
SHOWN: Final = ("hr", "ndcg", "mrr")


def run_study(
    config: StudyConfig,
    console: Console,
    *,
    sets: Sequence[str] = (),
    models: Sequence[str] = (),
    seeds: Sequence[int] = (),
    hours: float | None = None,
    stored: Path | None = None,
) -> Path:
    """Run the cells that are asked for, and return the study's directory.

    Args:
        config: the study.
        console: told what is done.
        sets, models, seeds: only these; all where empty.
        hours: begin no cell after so many.
        stored: a directory of cells that are kept beside the study's own, read and added to.

    Raises:
        ConfigError: a set, model or seed is not of the study, or no cell is of all three.
    """
    study, began = Study(config, stored), time.monotonic()
    cells, wanted = study.cells(), _wanted(study, sets, models, seeds)
    for name, first in sorted(study.aliases().items()):
        console.print(f"{name} has the settings of {first}: trained once", highlight=False)
    for name in dict.fromkeys(cell.set for cell in wanted):
        console.rule(name)
        there = [c for c in cells if c.set == name and (c in wanted or study.has_figures(c))]
        _bring_up_to_date(study, there, console)
    todo = [cell for cell in wanted if study.found(cell) is None]
    if len(todo) < len(wanted):
        console.print(f"{len(wanted) - len(todo)} of {len(wanted)} cells are up to date")
    _tell_outdated(study, console)
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
    done = study.done()
    for cell, file in done.items():
        study.keep(cell, file)
    write_summary(study, done)
    return study.directory


def _wanted(
    study: Study, sets: Sequence[str], models: Sequence[str], seeds: Sequence[int]
) -> list[Cell]:
    """Return the trained cells that are asked for, by a name that is compared or its run's own."""
    pairs = [(cell, study.trained_for(cell)) for cell in study.compared()]
    _check_asked("set", sets, [cell.set for cell, _ in pairs])
    _check_asked("model", models, [one.model for pair in pairs for one in pair])
    _check_asked("seed", seeds, [cell.seed for cell, _ in pairs])
    wanted = {
        trained: None
        for cell, trained in pairs
        if (not sets or cell.set in sets)
        and (not models or cell.model in models or trained.model in models)
        and (not seeds or cell.seed in seeds)
    }
    if not wanted:
        raise ConfigError(
            "no cell of this study is of these sets, models and seeds together: models under once, and "
            f"those that only against names, have seed {study.config.seeds[0]} alone, and a set has only "
            "the models of its experiment"
        )
    return list(wanted)


def _tell_outdated(study: Study, console: Console) -> None:
    """Say of every set how many cells have figures that do not count, and why."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for cell in study.cells():
        if study.found(cell) is None and (why := study.outdated(cell)) is not None:
            found[cell.set, why].append(cell.name)
    for (name, why), cells in found.items():
        told = f"{name}: figures of {', '.join(cells)} do not count: {why}"
        console.print(told, highlight=False, markup=False, soft_wrap=True)


def _bring_up_to_date(study: Study, cells: Sequence[Cell], console: Console) -> None:
    """Run the stages before training for the cells of a set; keys are of what these make."""
    whole = study.experiments[cells[0].set]
    models = {cell.model: whole.models[cell.model] for cell in cells}
    config = study.experiment(cells[0]).model_copy(update={"models": models})
    run_steps(config, [step for stage in PREPARING for step in plan(config, stage)], console)


def _check_asked(what: str, asked: Sequence[Any], known: Sequence[Any]) -> None:
    if unknown := [name for name in asked if name not in known]:
        raise ConfigError(
            f"{what} {', '.join(map(str, unknown))} is not of this study; it has "
            f"{', '.join(map(str, dict.fromkeys(known)))}"
        )


def run_cell(study: Study, cell: Cell, console: Console) -> None:
    """Run one cell's stages, those that are up to date excepted, and store its figures."""
    config = study.experiment(cell)
    began = time.monotonic()
    done = run_steps(config, [step for stage in STAGES for step in plan(config, stage)], console)
    report = finished_report(config)
    rows = json.loads((report / "metrics.json").read_text(encoding="utf-8"))
    first = next(one.directory for one in done if one.step.stage == "train")
    _scored(study, cell).save(rows_of(study.file(cell)))
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
        "keys": study.keys(cell),
        "rows": file_hash(rows_of(study.file(cell))),
        "seconds": round(time.monotonic() - began, 1),
    }
    write_json(study.file(cell), figures)
    study.keep(cell, study.file(cell))


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
