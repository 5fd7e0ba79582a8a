"""UniRec against SASRec, TiSASRec and its ancestor on five data sets, cell by cell.

A cell is a data set, a model and a seed: `recsys run` up to the evaluation, with that model alone of
configs/unirec_<set>.yaml, ranking the full catalogue. Its stages are cached by content and resumable, so
a study that is interrupted, or asked for more, does only what is missing. The most informative cells
come first. After every cell its figures are stored and the summary is made again (`unirec_summary.py`).

    RECSYS_DATA_DIR=... python tests/benchmarks/unirec_study.py --hours 6
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from environments import machine, now
from rich.console import Console
from unirec_summary import summarise

from pipelines.evaluate import finished_report
from pipelines.runs import tested_run
from pipelines.stages import plan, run_steps
from recsys.config import ExperimentConfig, PublishConfig, TrackingConfig, load_config
from recsys.manifest import read_manifest

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results" / "unirec"
SETS = ("30music", "online_retail", "beauty", "toys", "movielens")
MAIN = ("sasrec", "unirec", "unirec_published", "tisasrec", "ancestor")
ABLATED = ("30music", "beauty")
FLOORS = ("pop", "markov")
SEEDS = (0, 1, 2)
STAGES = ("prepare", "features", "train", "evaluate")
PACKAGES = ("recsys", "torch", "numpy", "polars", "pytorch-lightning", "ray")
METRICS = (("hr", 10), ("ndcg", 10), ("mrr", None))


@dataclass(frozen=True)
class Cell:
    """What is trained and evaluated at once."""

    set: str
    model: str
    seed: int

    @property
    def path(self) -> str:
        """Name of its file of figures."""
        return f"{self.set}.{self.model}.{self.seed}.json"

    def config(self, work: Path) -> ExperimentConfig:
        """Return its experiment: one model of the set's configuration."""
        whole = load_config(ROOT / "configs" / f"unirec_{self.set}.yaml")
        evaluation = whole.evaluation.model_copy(update={"baseline": None})
        return whole.model_copy(
            update={
                "seed": self.seed,
                "output": work,
                "models": {self.model: whole.models[self.model]},
                "evaluation": evaluation,
                "publish": PublishConfig(model=self.model),  # the test targets alone are ranked
                "tracking": TrackingConfig(enabled=False),
            }
        )


def cells(sets: Sequence[str], seeds: Sequence[int], *, ablations: bool) -> list[Cell]:
    """Return the cells in the order in which they are worth having.

    The ancestor reads the calendar alone, so sets without one have none.
    """
    first = [s for s in ABLATED if s in sets]
    ordered: list[Cell] = []
    for seed in seeds:
        for two in (MAIN[:2], MAIN[2:]):
            ordered += [Cell(s, m, seed) for s in sets for m in two]
        if seed == seeds[0]:
            ordered += [Cell(s, m, seed) for s in sets for m in FLOORS]
            if ablations:
                ordered += [Cell(s, m, seed) for s in first for m in ablated(s)]
    return [cell for cell in dict.fromkeys(ordered) if cell.model in models_of(cell.set)]


def models_of(name: str) -> list[str]:
    """Return the models of a set's configuration."""
    return list(load_config(ROOT / "configs" / f"unirec_{name}.yaml").models)


def ablated(name: str) -> list[str]:
    """Return the models of a set's configuration that lack a part, or have one more."""
    return [model for model in models_of(name) if model not in MAIN + FLOORS]


def run(cell: Cell, work: Path, results: Path, console: Console) -> None:
    """Run one cell's stages, those that are up to date excepted, and store its figures."""
    config = cell.config(work)
    began = time.monotonic()
    done = run_steps(config, [step for stage in STAGES for step in plan(config, stage)], console)
    report = finished_report(config)
    rows = json.loads((report / "metrics.json").read_text())
    manifest = tested_run(config, cell.model, "main").manifest
    first = next(d.directory for d in done if d.step.stage == "train")
    figures: dict[str, Any] = {
        "set": cell.set,
        "model": cell.model,
        "seed": cell.seed,
        "metrics": {
            f"{row['metric']}@{row['k']}" if row["k"] else row["metric"]: [
                round(row[field], 5) for field in ("value", "low", "high")
            ]
            for row in rows
            if (row["metric"], row["k"]) in METRICS and row["slice"] == "all"
        },
        "users": rows[0]["users"],
        "training": read_manifest(first)["metrics"],
        "keys": {"run": manifest["key"], "report": read_manifest(report)["key"]},
        "date": now(),
    }
    path = results / "cells" / cell.path
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and json.loads(path.read_text())["keys"] == figures["keys"]:
        return
    figures["seconds"] = round(time.monotonic() - began, 1)
    path.write_text(json.dumps(figures, indent=1) + "\n")


def missing(results: Path) -> list[str]:
    """Return the cells of the whole study, in their order, that have no figures yet."""
    whole = cells(SETS, SEEDS, ablations=True)
    return [
        c.path.removesuffix(".json") for c in whole if not (results / "cells" / c.path).exists()
    ]


def main() -> None:
    """Run what is asked for, until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = lambda text: text.split(",")  # noqa: E731
    parser.add_argument("--sets", type=names, default=list(SETS), help="with commas between")
    parser.add_argument("--models", type=names, default=None, help="only these")
    parser.add_argument("--seeds", default="0,1,2", help="with commas between")
    parser.add_argument("--no-ablations", dest="ablations", action="store_false")
    parser.add_argument("--hours", type=float, default=None, help="begin no cell after this")
    parser.add_argument("--work", type=Path, default=Path("out"), help="where the runs are kept")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    console, began = Console(), time.monotonic()
    asked = cells(
        options.sets, list(map(int, options.seeds.split(","))), ablations=options.ablations
    )
    asked = [c for c in asked if options.models is None or c.model in options.models]
    for number, cell in enumerate(asked, start=1):
        hours = (time.monotonic() - began) / 3600
        if options.hours is not None and hours > options.hours:
            console.print(
                f"{options.hours} hours are over; {len(asked) - number + 1} cells are left"
            )
            break
        console.rule(f"{number}/{len(asked)} {cell.set} {cell.model} seed {cell.seed}")
        run(cell, options.work.absolute(), options.output, console)
        summary = summarise(options.output / "cells", lambda c: Cell(**c).config(options.work))
        summary |= {
            "date": now(),
            "command": "python tests/benchmarks/unirec_study.py",
            "versions": {package: version(package) for package in PACKAGES},
            "machine": machine(),
            "missing": missing(options.output),
        }
        (options.output / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")


if __name__ == "__main__":
    main()
