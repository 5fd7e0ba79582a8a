"""Continuing lists: given the first items of a list, which model completes it best, and by which loss.

A cell is one data set and seed: `recsys run configs/continuation_NAME.yaml` trains its models (or finds
them trained), and each is then asked for the rest of every test list after so many given items, also
other numbers than the one it was validated with. Figures with intervals and paired tests over lists go
to a JSON file; a cell that is there is skipped, and stages that are up to date are not run again.

    python tests/benchmarks/continuation.py --sets grateful_dead --given own,0,1,5,10
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from environments import machine, now

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results" / "continuation"
PACKAGES = ("recsys", "torch", "numpy")
KS = (5, 10)
METRICS = (
    ("r_precision", None),
    ("clicks", None),
    *((metric, k) for metric in ("ndcg", "recall", "next_hr", "next_recall", "hr") for k in KS),
)


def main() -> None:
    """Run every cell that is asked for and not there yet; print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", required=True, help="of configs/continuation_*.yaml, with commas")
    parser.add_argument("--given", default="own", help="`own` (the configuration's) and numbers")
    parser.add_argument("--seeds", default="0")
    parser.add_argument(
        "--models", help="only these, trained already; by default all, trained first"
    )
    parser.add_argument("--work", type=Path, default=Path("out"), help="where the runs are kept")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.sets.split(","):
        for seed in map(int, options.seeds.split(",")):
            path = options.output / f"{name}-s{seed}.json"
            if not path.is_file():
                result = run(name, seed, options)
                path.write_text(json.dumps(result, indent=1) + "\n")
            show(path)


def run(name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train and ask one cell; return its record."""
    from recsys.config import load_config

    work, given = options.work.absolute(), options.given.split(",")
    output = work if seed == 0 else work / f"seed-{seed}"
    path = f"configs/continuation_{name}.yaml"
    command = [sys.executable, "-m", "pipelines.cli", "run", path, f"seed={seed}"]
    if options.models is None:
        subprocess.run([*command, f"output={output}"], cwd=ROOT, check=True)
    config = load_config(ROOT / path, [f"seed={seed}", f"output={output}"])
    if options.models is not None:
        models = {model: config.models[model] for model in options.models.split(",")}
        config = config.model_copy(update={"models": models})
    return {
        "benchmark": "continuation",
        "date": now(),
        "command": f"python tests/benchmarks/continuation.py --sets {name} --seeds {seed} "
        f"--given {','.join(given)}",
        "config": path,
        "seed": seed,
        "models": {key: value.model_dump(mode="json") for key, value in config.models.items()},
        "given": {text: ask(config, None if text == "own" else int(text)) for text in given},
        "versions": {package: version(package) for package in PACKAGES},
        "machine": machine(),
    }


def ask(config: Any, given: int | None) -> dict[str, Any]:
    """Ask every model for the rest of the test lists after so many items; figures and tests."""
    from pipelines.runs import tested_run
    from recsys.data.sequences import Targets, TrainingData
    from recsys.evaluation.compare import compare_models
    from recsys.evaluation.evaluate import Ground, evaluate_model

    rows: list[Any] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in config.models:
            opened = tested_run(config, name, "main")
            split, store = opened.split, opened.store
            if given is not None:
                lists = np.unique(split.test.user)
                end = store.offsets[lists + 1]
                start = np.minimum(store.offsets[lists] + given, end)
                some = end > start
                split = replace(split, test=Targets(lists[some], start[some], end[some]))
            counts = TrainingData(store, split.train_end).item_counts()
            evaluation = config.evaluation.model_copy(update={"ks": list(KS)})
            ground = Ground(config.name, store, split, "test", evaluation, counts)
            rows += evaluate_model(name, opened.model, ground, Path(folder))
        tests = compare_models(Path(folder), list(config.models), evaluation)
    figures: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if row["slice"] == "all" and is_asked(row):
            values = [round(row[field], 4) for field in ("value", "low", "high")]
            figures.setdefault(row["model"], {})[called(row)] = values
    return {
        "lists": max(row["users"] for row in rows),
        "figures": figures,
        "tests": [
            {
                "models": [row["model_a"], row["model_b"]],
                "metric": called(row),
                "difference": [round(row[field], 4) for field in ("difference", "low", "high")],
                "p": round(row["p"], 5),
                "p_holm": round(row["p_holm"], 5),
            }
            for row in tests
            if is_asked(row)
        ],
    }


def is_asked(row: Any) -> bool:
    """Tell whether a row is of a metric of the study."""
    return (row["metric"], row["k"]) in METRICS


def called(row: Any) -> str:
    """Return a metric's name with its cut-off."""
    return f"{row['metric']}@{row['k']}" if row["k"] else str(row["metric"])


def show(path: Path) -> None:
    """Print a cell's figures, a model a line."""
    for given, result in json.loads(path.read_text())["given"].items():
        print(f"{path.name}, given {given}: {result['lists']} lists")
        for model, figures in result["figures"].items():
            values = "  ".join(f"{name} {value[0]:.4f}" for name, value in figures.items())
            print(f"  {model:<18} {values}", flush=True)


if __name__ == "__main__":
    main()
