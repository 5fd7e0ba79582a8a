"""What texts are worth: every model of a configuration on the test split, all items and cold ones.

Prepares, makes features and trains by the stages (those that are up to date are skipped), then ranks the
whole catalogue for every test target and keeps HR@10 and NDCG@10 with bootstrap intervals over users and
paired permutation tests of the models (Holm's correction over the pairs). With `--cold` that share of
the items is hidden from training, and the same is kept of cold targets among all items, of cold targets
among cold items alone, and of warm targets; `warm, nothing hidden` are the same warm targets as the
models of a run without `--cold` (which must have been made) rank them.

    RECSYS_DATA_DIR=... python tests/benchmarks/text_models.py --config scientific_text --cold 0.1
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from environments import machine, now

from pipelines.runs import tested_run
from recsys.config import ExperimentConfig, load_config
from recsys.data.cold import choose_cold
from recsys.data.sequences import Targets
from recsys.evaluation.intervals import bootstrap, user_means
from recsys.evaluation.ranking import rank_targets
from recsys.evaluation.significance import holm, permutation_test

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results" / "text_models"
PACKAGES = ("recsys", "torch", "numpy", "polars", "tokenizers", "transformers")
STAGES = ("prepare", "features", "train")
COLUMNS = ("ndcg@10", "hr@10")
Values = np.ndarray[Any, np.dtype[np.float64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class ByUser:
    """What a model is worth to every user who has a target; `values` [users, 2] as in `COLUMNS`."""

    users: np.ndarray[Any, np.dtype[np.int32]]
    values: Values


Parts = dict[str, dict[str, ByUser]]


def main() -> None:
    """Train a configuration's models, rank, and store the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="a name in configs/")
    parser.add_argument("--cold", type=float, default=0.0, help="share of the items to hide")
    parser.add_argument(
        "--seeds",
        help="with commas between, more than one with --cold; the configuration's if left out",
    )
    parser.add_argument("--models", default=None, help="only these, with commas between")
    parser.add_argument("--set", nargs="*", default=[], help="KEY=VALUE of the configuration")
    parser.add_argument("--work", type=Path, default=Path("out"), help="where the runs are kept")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    settings = list(options.set)
    if options.models is not None:
        settings.append(f"models={chosen_models(options.config, options.models, settings)}")
    its_own = load_config(ROOT / f"configs/{options.config}.yaml", settings).seed
    seeds = [int(seed) for seed in (options.seeds or str(its_own)).split(",")]
    if len(seeds) > 1 and not options.cold:
        parser.error("several seeds are for items hidden from training; give --cold, or one seed")
    found: list[Parts] = []
    for seed in seeds:
        work = options.work if len(seeds) == 1 else options.work / f"seed{seed}"
        its = [*settings, f"seed={seed}"]
        plain = trained(options.config, work, 0.0, its)
        if options.cold:
            hidden = trained(options.config, work / "cold", options.cold, its)
            found.append(cold_parts(plain, hidden, options.cold))
        else:
            found.append({"all": {name: ranked(plain, name) for name in plain.models}})
    parts = pooled(found)
    result = {
        "benchmark": "text_models",
        "date": now(),
        "command": f"python tests/benchmarks/text_models.py --config {options.config}"
        + (f" --cold {options.cold}" if options.cold else "")
        + (f" --seeds {options.seeds}" if options.seeds else "")
        + (f" --models {options.models}" if options.models else "")
        + (f" --set {shlex.join(options.set)}" if options.set else ""),
        "seeds": seeds,
        "parts": {part: figures(values) for part, values in parts.items()},
        "tests": {part: tests(values) for part, values in parts.items()},
        "versions": {package: version(package) for package in PACKAGES},
        "machine": machine(),
    }
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / f"{options.config}{'_cold' if options.cold else ''}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(path, json.dumps(result["parts"]), file=sys.stderr)


def chosen_models(name: str, models: str, settings: list[str]) -> str:
    """Return some models of a configuration as they are written in a setting."""
    whole = load_config(ROOT / f"configs/{name}.yaml", settings)
    some = {model: whole.models[model] for model in models.split(",")}
    return json.dumps({model: some[model].model_dump(mode="json") for model in some})


def trained(name: str, output: Path, cold: float, settings: list[str]) -> ExperimentConfig:
    """Run the stages up to training and return the configuration."""
    overrides = [f"output={output}", *settings, f"split.cold_items={cold}"]
    overrides += ["publish={}", "evaluation.baseline=null", "tracking.enabled=false"]
    path = f"configs/{name}.yaml"
    for stage in STAGES:
        command = [sys.executable, "-m", "pipelines.cli", stage, path, *overrides]
        subprocess.run(command, cwd=ROOT, check=True)
    return load_config(ROOT / path, [f"output={ROOT / output}", *overrides[1:]])


def ranked(
    config: ExperimentConfig, name: str, wanted: Bools | None = None, among: Bools | None = None
) -> ByUser:
    """Return NDCG@10 and HR@10 of the test targets of wanted items; one target a user."""
    run = tested_run(config, name, "main")
    targets = run.split.test
    items = run.store.items[targets.start]
    chosen = np.ones(len(items), dtype=np.bool_) if wanted is None else wanted[items]
    some = Targets(targets.user[chosen], targets.start[chosen], targets.end[chosen])
    found = rank_targets(run.model, run.store, some, config.evaluation, list_length=10, among=among)
    if len(np.unique(found.user)) != len(found) or (found.n_relevant != 1).any():
        raise SystemExit("these figures are for one target of one item a user")
    inside = found.ranks <= 10
    gains = np.where(inside, 1 / np.log2(found.ranks + 1), 0.0)
    return ByUser(found.user, np.stack([gains, inside], axis=1))


def cold_parts(plain: ExperimentConfig, hidden: ExperimentConfig, share: float) -> Parts:
    """Return what every model is worth in every part."""
    n_items = tested_run(hidden, next(iter(hidden.models)), "main").store.n_items
    cold = choose_cold(n_items, share, hidden.seed)
    names = list(hidden.models)
    return {
        "cold": {name: ranked(hidden, name, cold) for name in names},
        "cold, among cold": {name: ranked(hidden, name, cold, cold) for name in names},
        "warm": {name: ranked(hidden, name, ~cold) for name in names},
        "warm, nothing hidden": {name: ranked(plain, name, ~cold) for name in names},
    }


def pooled(found: list[Parts]) -> dict[str, dict[str, Values]]:
    """Return every part's and model's values by user, [users, 2], each user's mean over the runs."""
    return {
        part: {
            name: user_means(
                np.concatenate([one[part][name].values for one in found]),
                np.concatenate([one[part][name].users for one in found]),
            )[1]
            for name in models
        }
        for part, models in found[0].items()
    }


def figures(values: dict[str, Values]) -> dict[str, Any]:
    """Return mean and 95 % interval of every model and metric, and how many users there are."""
    found = {}
    for name, rows in values.items():
        low, high = bootstrap(rows, 2000, 0.95, np.random.default_rng(0))
        found[name] = {
            metric: [round(float(x), 4) for x in (rows[:, i].mean(), low[i], high[i])]
            for i, metric in enumerate(COLUMNS)
        } | {"users": len(rows)}
    return found


def tests(values: dict[str, Values]) -> list[dict[str, Any]]:
    """Return the paired test of every two models, corrected over the pairs of each metric."""
    rng = np.random.default_rng(0)
    pairs = list(combinations(values, 2))
    p = np.array([permutation_test(values[a] - values[b], 2_000, rng) for a, b in pairs])
    corrected = [holm(column) for column in p.T]
    return [
        {
            "models": [a, b],
            "metric": metric,
            "difference": round(float((values[a] - values[b])[:, i].mean()), 4),
            "p": round(float(p[at, i]), 5),
            "p_holm": round(float(corrected[i][at]), 5),
        }
        for i, metric in enumerate(COLUMNS)
        for at, (a, b) in enumerate(pairs)
    ]


if __name__ == "__main__":
    main()
