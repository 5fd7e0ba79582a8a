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
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipelines.evaluate import finished_report
from pipelines.ray_session import ray_session
from pipelines.runs import tested_run
from pipelines.stages import plan, run_steps
from pipelines.study_cells import Cell, Study, is_done, keys_of, write_json
from pipelines.study_summary import write_summary
from recsys.config import StudyConfig
from recsys.errors import ConfigError
from recsys.manifest import file_hash, read_manifest

if TYPE_CHECKING:
    from rich.console import Console

    from recsys.evaluation.study import Scored

STAGES: Final = ("prepare", "features", "train", "evaluate")
SHOWN: Final = ("hr", "ndcg", "mrr")


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
        "keys": keys_of(study, cell),
        "rows": file_hash(study.rows(cell)),
        "seconds": round(time.monotonic() - began, 1),
    }
    write_json(study.file(cell), figures)


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
