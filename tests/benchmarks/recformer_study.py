"""Recformer on data that its pre-training never saw, cell by cell.

A cell is a model, a share of the users to learn from, and a seed: `recsys run` up to the evaluation,
with that model alone of the target's configuration (`TARGETS`). Its stages are
cached by content and resumable, so a study that is interrupted, or asked for more, does only what is
missing; the pre-training itself is the first thing that is made, where it is missing. After every cell
its figures are stored, and all models are compared by user with paired tests.

    RECSYS_DATA_DIR=... python tests/benchmarks/recformer_study.py --hours 2
    python tests/benchmarks/recformer_study.py --target movielens --hours 1

The pre-training for MovieLens leaves it out. Every target has a folder of results of its own.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from environments import machine, now
from rich.console import Console

from pipelines.evaluate import finished_report
from pipelines.pretrain import pretrain
from pipelines.stages import plan, run_steps
from recsys.config import (
    ExperimentConfig,
    PublishConfig,
    TrackingConfig,
    load_config,
    load_pretrain_config,
)
from recsys.evaluation.intervals import user_means
from recsys.evaluation.metrics import Places, ndcg
from recsys.evaluation.significance import holm, permutation_test
from recsys.evaluation.targets_file import read_targets, targets_path
from recsys.manifest import read_manifest

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results"
CONFIGS = ROOT / "configs"
FLOORS = ("pop", "markov", "bag_of_tokens", "minilm")
SHARES = (0.1, 0.05, 0.01, 1.0)
LEARNED = ("recformer", "scratch", "sasrec")
PLAIN = ("plain", "plain_scratch")
"""The first two without the words' own term, at every share below the whole."""
ABLATED = ("one_stage", "frozen_words", "no_structure")
"""Of Recformer learned from all users; `scratch` is the fourth."""
NO_STRUCTURE = ("name=recformer_pretrain_no_structure", "encoder.structure=false")
STAGES = ("prepare", "features", "train", "evaluate")
PACKAGES = ("recsys", "torch", "numpy", "polars", "pytorch-lightning", "ray", "tokenizers")
METRICS = (("hr", 10), ("ndcg", 10), ("mrr", None))
PERMUTATIONS = 10_000

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Target:
    """A data set that the pre-training has not seen.

    Attributes:
        tuned, zero_shot: configurations of models that learn, and of Recformer that does not.
        name: of the experiments, below which their stages lie.
        results: folder of its figures.
        pretraining: settings of configs/recformer_pretrain.yaml.
        shares: of the users that models learn from; every one must leave some that validate.
    """

    tuned: str
    zero_shot: str
    name: str
    results: Path
    pretraining: tuple[str, ...] = ()
    shares: tuple[float, ...] = SHARES


WITHOUT_MOVIELENS = ("configs/beauty.yaml", "configs/toys.yaml", "configs/online_retail.yaml")
TARGETS = {
    "scientific": Target(
        "recformer_scientific", "recformer_zero_shot", "recformer_study", RESULTS / "recformer"
    ),
    "movielens": Target(
        "recformer_movielens",
        "recformer_movielens",
        "recformer_study_movielens",
        RESULTS / "recformer_movielens",
        (
            "name=recformer_pretrain_without_movielens",
            f"domains=[{', '.join(WITHOUT_MOVIELENS)}]",
        ),
        shares=(0.1, 1.0),  # of 671 users; of a twentieth nobody has a validation target
    ),
}


@dataclass(frozen=True)
class Cell:
    """What is trained and evaluated at once; `zero_shot` is Recformer that does not learn."""

    model: str
    users: float
    seed: int

    @property
    def path(self) -> str:
        """Name of its file of figures."""
        return f"{self.model}.{self.users:g}.{self.seed}.json"

    def config(self, target: Target, work: Path, pretrained: Path) -> ExperimentConfig:
        """Return its experiment: one model of a configuration, with these pre-trained weights."""
        zero = self.model == "zero_shot"
        stem = target.zero_shot if zero else target.tuned
        whole = load_config(CONFIGS / f"{stem}.yaml", [f"text.tokenizer={pretrained}"])
        model: Any = whole.models["recformer" if zero else self.model]
        if getattr(model, "pretrained", None) is not None:
            model = model.model_copy(update={"pretrained": pretrained})
        if zero:
            model = model.model_copy(update={"stages": "none"})
        if hasattr(model, "training") and not zero:
            training = model.training.model_copy(update={"users": self.users})
            model = model.model_copy(update={"training": training})
        return whole.model_copy(
            update={
                "name": target.name,
                "seed": self.seed,
                "output": work,
                "models": {self.model: model},
                "evaluation": whole.evaluation.model_copy(update={"baseline": None}),
                "publish": PublishConfig(model=self.model),  # the test targets alone are ranked
                "tracking": TrackingConfig(enabled=False),
            }
        )


def few(model: str, share: float) -> str:
    """Return the model as it is set for so many users: the one of ids learns otherwise from few."""
    return "sasrec_few" if model == "sasrec" and share < 1 else model


def cells(
    seeds: Iterable[int], shares: Sequence[float] = SHARES, *, ablations: bool = False
) -> list[Cell]:
    """Return the cells in the order in which they are worth having."""
    found = []
    for number, seed in enumerate(seeds):
        if number == 0:
            found += [Cell("zero_shot", 0.0, seed)]
            found += [Cell(model, 1.0, seed) for model in (*FLOORS, "sasrec")]
        for share in shares:
            found += [Cell(few(model, share), share, seed) for model in LEARNED]
        if number == 0 and ablations:
            found += [Cell(model, share, seed) for share in SHARES[:3] for model in PLAIN]
            found += [Cell(model, 1.0, seed) for model in ABLATED]
    return list(dict.fromkeys(found))


def run(
    cell: Cell, target: Target, work: Path, pretrained: Path, results: Path, console: Console
) -> None:
    """Run one cell's stages, those that are up to date excepted, and store its figures."""
    config = cell.config(target, work, pretrained)
    began = time.monotonic()
    done = run_steps(config, [step for stage in STAGES for step in plan(config, stage)], console)
    report = finished_report(config)
    rows = json.loads((report / "metrics.json").read_text())
    trained = next(d.directory for d in done if d.step.stage == "train")
    manifest = read_manifest(trained)
    figures: dict[str, Any] = {
        **asdict(cell),
        "metrics": {
            f"{row['metric']}@{row['k']}" if row["k"] else row["metric"]: [
                round(row[field], 5) for field in ("value", "low", "high")
            ]
            for row in rows
            if (row["metric"], row["k"]) in METRICS and row["slice"] == "all"
        },
        "tested_users": rows[0]["users"],
        "training": manifest["metrics"],
        "keys": {"run": manifest["key"], "report": read_manifest(report)["key"]},
        "date": now(),
    }
    path = results / "cells" / cell.path
    path.parent.mkdir(parents=True, exist_ok=True)
    _keep_users(results, cell, report)
    if path.is_file() and json.loads(path.read_text())["keys"] == figures["keys"]:
        return
    figures["seconds"] = round(time.monotonic() - began, 1)
    path.write_text(json.dumps(figures, indent=1) + "\n")


def _keep_users(results: Path, cell: Cell, report: Path) -> None:
    """Keep each tested user's NDCG@10 beside the runs: the next cell's report takes this one's place."""
    found = read_targets(targets_path(report, cell.model, "test"))
    values = ndcg(Places.of(found.ranks, found.offsets), 10)
    users, means = user_means(values[:, None], found.user)
    folder = results / "users"
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / cell.path.replace(".json", ".npz"), users=users, ndcg=means[:, 0])


def compare(results: Path) -> list[dict[str, Any]]:
    """Return paired comparisons by user: fine-tuned with scratch and SASRec of the same share and seed,
    zero-shot with the floors and with SASRec, ablations with the whole; p by sign flips, with Holm's
    correction over all.
    """
    there = {path.stem: np.load(path) for path in sorted((results / "users").glob("*.npz"))}
    pairs = []
    for name in there:
        model, rest = name.split(".", 1)
        seed = rest.rsplit(".", 1)[1]
        if model == "recformer":
            share = float(rest.rsplit(".", 1)[0])
            pairs += [(name, f"{few(other, share)}.{rest}") for other in LEARNED[1:]]
        if model == "plain":
            pairs += [(name, f"{other}.{rest}") for other in ("plain_scratch", "sasrec_few")]
        if model in ABLATED:
            pairs += [(name, f"recformer.{rest}")]
        if model == "zero_shot":
            pairs += [(name, f"{other}.1.{seed}") for other in (*FLOORS, "sasrec")]
    rows = []
    for one, other in pairs:
        if other not in there:
            continue
        mine, its = there[one], there[other]
        if not np.array_equal(mine["users"], its["users"]):
            raise ValueError(f"{one} and {other} were tested on different users")
        difference: Float64 = mine["ndcg"] - its["ndcg"]
        p = permutation_test(difference[:, None], PERMUTATIONS, np.random.default_rng(1))[0]
        means = {"of": float(mine["ndcg"].mean()), "against": float(its["ndcg"].mean())}
        rows.append({"pair": [one, other], "ndcg@10": means, "p": float(p)})
    for row, p in zip(rows, holm(np.array([r["p"] for r in rows])), strict=True):
        row["p_holm"] = round(float(p), 5)
    return rows


def main() -> None:
    """Run what is asked for, until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", choices=sorted(TARGETS), default="scientific")
    parser.add_argument("--models", default=None, help="only these, with commas between")
    parser.add_argument("--seeds", default="0", help="with commas between")
    parser.add_argument("--hours", type=float, default=None, help="begin no cell after this")
    parser.add_argument("--work", type=Path, default=Path("out"), help="where the runs are kept")
    parser.add_argument("--pretrained", type=Path, default=None, help="a finished one, elsewhere")
    parser.add_argument("--pretrain", nargs="*", default=[], help="KEY=VALUE of the pre-training")
    parser.add_argument("--ablations", action="store_true", help="also what the parts are worth")
    parser.add_argument("--output", type=Path, default=None, help="else that of the target")
    options = parser.parse_args()
    target = TARGETS[options.target]
    if options.ablations and options.target != "scientific":
        parser.error("the ablations are of configs/recformer_scientific.yaml; leave out --target")
    results: Path = options.output or target.results
    console, began, work = Console(), time.monotonic(), options.work.absolute()
    pretrained, chosen = options.pretrained, [*target.pretraining, *options.pretrain]

    def pretrained_by(*settings: str) -> Path:
        every = [f"output={work}", "tracking.enabled=false", *settings]
        return pretrain(load_pretrain_config(CONFIGS / "recformer_pretrain.yaml", every), console)

    if pretrained is None:
        pretrained = pretrained_by(*chosen)
    wanted = None if options.models is None else options.models.split(",")
    asked = [
        cell
        for cell in cells(
            map(int, options.seeds.split(",")), target.shares, ablations=options.ablations
        )
        if wanted is None or cell.model in wanted
    ]
    for number, cell in enumerate(asked, start=1):
        if options.hours is not None and (time.monotonic() - began) / 3600 > options.hours:
            console.print(f"the time is over; {len(asked) - number + 1} cells are left")
            break
        console.rule(f"{number}/{len(asked)} {cell.model} {cell.users:g} seed {cell.seed}")
        its = pretrained_by(*chosen, *NO_STRUCTURE) if cell.model == "no_structure" else pretrained
        run(cell, target, work, its.absolute(), results, console)
        history = json.loads((pretrained / "history.json").read_text())
        summary = {
            "target": options.target,
            "comparisons": compare(results),
            "pretraining": {**history, "settings": chosen},
            "date": now(),
            "command": f"python tests/benchmarks/recformer_study.py --target {options.target}",
            "versions": {package: version(package) for package in PACKAGES},
            "machine": machine(),
        }
        (results / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")


if __name__ == "__main__":
    main()
