"""The quality figures of the README: every configuration from raw files to test metrics, by seed.

Runs `recsys run` for each configuration and seed (stages that are up to date are skipped, so the same
command goes on where it was stopped) and keeps HR@10 and NDCG@10 of every model with their intervals,
the paired tests between the models, and what training cost. A seed changes weights, drop-out, order
and negatives; data and split stay. Figures are of the test split; every model's settings and epoch
were chosen on validation.

    RECSYS_DATA_DIR=... python tests/benchmarks/quality.py --configs beauty,toys --seeds 0,1,2
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from environments import machine, now

from recsys.evaluation.significance import holm, permutation_test
from recsys.evaluation.targets_file import read_targets, targets_path
from recsys.training.validation import means_by_user

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results" / "quality"
METRICS = (("hr", 10), ("ndcg", 10), ("mrr", None))
PACKAGES = ("recsys", "torch", "numpy", "polars", "pytorch-lightning", "ray")


def main() -> None:
    """Run all configurations with all seeds and store a file for each configuration."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configs", required=True, help="names in configs/, with commas between")
    parser.add_argument("--seeds", default="0", help="numbers with commas between")
    parser.add_argument("--work", type=Path, default=Path("out"), help="where the runs are kept")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    seeds = [int(text) for text in options.seeds.split(",")]
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.configs.split(","):
        runs = [run(name, seed, options.work) for seed in seeds]
        reports = [report_of(name, seed, options.work) for seed in seeds]
        result = {
            "benchmark": "quality",
            "date": now(),
            "command": f"python tests/benchmarks/quality.py --configs {name} --seeds {options.seeds}",
            "config": f"configs/{name}.yaml",
            "over_seeds": over_seeds(runs),
            "tests_of_the_seeds_together": tests_together(reports, list(runs[0]["models"])),
            "runs": runs,
            "versions": {package: version(package) for package in PACKAGES},
            "machine": machine(),
        }
        path = options.output / f"{name}.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
        print(path, json.dumps(result["over_seeds"]), file=sys.stderr, flush=True)


def run(name: str, seed: int, work: Path) -> dict[str, Any]:
    """Run one configuration with one seed and return its figures."""
    output = work if seed == 0 else work / f"seed-{seed}"
    command = [sys.executable, "-m", "pipelines.cli", "run", f"configs/{name}.yaml"]
    command += [f"seed={seed}", f"output={output}"]
    subprocess.run(command, cwd=ROOT, check=True)
    workspace = ROOT / output / name
    report = report_of(name, seed, work)
    metrics = json.loads((report / "metrics.json").read_text())
    tests = json.loads((report / "comparisons.json").read_text())
    manifest = json.loads((report / "manifest.json").read_text())
    rows = [row for row in metrics if wanted(row)]
    return {
        "seed": seed,
        "models": {
            model: {
                f"{row['metric']}@{row['k']}" if row["k"] else row["metric"]: [
                    round(row[field], 4) for field in ("value", "low", "high")
                ]
                for row in rows
                if row["model"] == model
            }
            for model in manifest["models"]
        },
        "users": rows[0]["users"],
        "tests": [
            {
                "models": [test["model_a"], test["model_b"]],
                "metric": f"{test['metric']}@{test['k']}",
                "difference": [round(test[field], 4) for field in ("difference", "low", "high")],
                "p_holm": round(test["p_holm"], 5),
            }
            for test in tests
            if test["split"] == "test" and (test["metric"], test["k"]) in METRICS
        ],
        "training": {
            path.name.rsplit("-", 1)[0]: json.loads((path / "manifest.json").read_text())["metrics"]
            for path in (workspace / "runs" / one for one in manifest["runs"].values())
        },
        "keys": {"report": manifest["key"], "runs": manifest["runs"]},
    }


def wanted(row: dict[str, Any]) -> bool:
    """Tell whether a row of metrics.json belongs to the figures: over all test targets."""
    return (row["metric"], row["k"]) in METRICS and (row["split"], row["slice"]) == ("test", "all")


def newest(reports: Path) -> Path:
    """Return the report that was written last; one that was stopped half-way is none."""
    finished = reports.glob("[!.]*/manifest.json")
    return max(finished, key=lambda path: path.stat().st_mtime).parent


def report_of(name: str, seed: int, work: Path) -> Path:
    """Return the newest report of a configuration and a seed."""
    output = work if seed == 0 else work / f"seed-{seed}"
    return newest(ROOT / output / name / "reports")


def tests_together(reports: list[Path], models: list[str]) -> list[dict[str, Any]]:
    """Test every pair of models on each user's mean over the seeds, corrected over all pairs by Holm.

    Models that are counted are the same for every seed; a learned one is tested as it is on average.
    """
    means = {
        model: np.mean(
            [means_by_user(read_targets(targets_path(one, model, "test"))) for one in reports],
            axis=0,
        )
        for model in models
    }  # [users, 2]: NDCG@10, HR@10
    pairs = list(combinations(models, 2))
    rng = np.random.default_rng(0)
    p_values = np.array([permutation_test(means[a] - means[b], 10_000, rng) for a, b in pairs])
    corrected = [holm(column) for column in p_values.T]
    return [
        {
            "models": [a, b],
            "metric": metric,
            "difference": round(float((means[a] - means[b])[:, column].mean()), 4),
            "p": round(float(p_values[at, column]), 5),
            "p_holm": round(float(corrected[column][at]), 5),
        }
        for column, metric in enumerate(("ndcg@10", "hr@10"))
        for at, (a, b) in enumerate(pairs)
    ]


def over_seeds(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return mean and standard deviation over the seeds, by model and metric."""
    summary: dict[str, dict[str, Any]] = {}
    for model, metrics in runs[0]["models"].items():
        for name in metrics:
            values = [one["models"][model][name][0] for one in runs]
            summary.setdefault(model, {})[name] = {
                "mean": round(mean(values), 4),
                "sd": round(stdev(values), 4) if len(values) > 1 else None,
            }
    return summary


if __name__ == "__main__":
    main()
