"""Continuing lists: given the first items of a list, which model completes it best, and by which loss.

Every cell is one `recsys run configs/continuation_NAME.yaml` with so many items given (`half` leaves the
configuration's own share or number) and one seed; its figures, paired tests and settings go to a JSON
file that is skipped when it is there, so the same command goes on where it was stopped.

    python tests/benchmarks/continuation.py --sets grateful_dead --given 0,1,5,10 --seeds 0
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

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
    parser.add_argument("--given", default="own", help="numbers of items, or `own`, with commas")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--work", type=Path, default=Path("out"), help="where the runs are kept")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.sets.split(","):
        for given in options.given.split(","):
            for seed in options.seeds.split(","):
                path = options.output / f"{name}-{given}-s{seed}.json"
                if not path.is_file():
                    result = run(name, given, seed, options.work.absolute())
                    path.write_text(json.dumps(result, indent=1) + "\n")
                show(path)


def run(name: str, given: str, seed: str, work: Path) -> dict[str, Any]:
    """Run one cell and return its record."""
    output = work / f"given-{given}-s{seed}"
    settings = [f"seed={seed}"] + ([] if given == "own" else [f"split.given={given}"])
    arguments = ["run", f"configs/continuation_{name}.yaml", *settings]
    command = [sys.executable, "-m", "pipelines.cli", *arguments, f"output={output}"]
    subprocess.run(command, cwd=ROOT, check=True)
    reports = output / f"continuation_{name}" / "reports"
    report = max(reports.iterdir(), key=lambda path: (path / "manifest.json").stat().st_mtime)
    rows = json.loads((report / "metrics.json").read_text())
    tests = json.loads((report / "comparisons.json").read_text())
    manifest = json.loads((report / "manifest.json").read_text())
    chosen = [r for r in rows if (r["split"], r["slice"]) == ("test", "all") and is_asked(r)]
    return {
        "benchmark": "continuation",
        "date": now(),
        "command": f"recsys {' '.join(arguments)}",
        "set": name,
        "given": given,
        "seed": int(seed),
        "lists": chosen[0]["users"],
        "models": {
            model: {
                called(row): [round(row[field], 4) for field in ("value", "low", "high")]
                for row in chosen
                if row["model"] == model
            }
            for model in manifest["models"]
        },
        "tests": [
            {
                "models": [row["model_a"], row["model_b"]],
                "metric": called(row),
                "difference": [round(row[field], 4) for field in ("difference", "low", "high")],
                "p": round(row["p"], 5),
                "p_holm": round(row["p_holm"], 5),
            }
            for row in tests
            if row["split"] == "test" and is_asked(row)
        ],
        "about": manifest["about"],
        "versions": {package: version(package) for package in PACKAGES},
        "machine": machine(),
    }


def is_asked(row: dict[str, Any]) -> bool:
    """Tell whether a row is of a metric of the study."""
    return (row["metric"], row["k"]) in METRICS


def called(row: dict[str, Any]) -> str:
    """Return a metric's name with its cut-off."""
    return f"{row['metric']}@{row['k']}" if row["k"] else str(row["metric"])


def show(path: Path) -> None:
    """Print a cell's figures, a model a line."""
    result = json.loads(path.read_text())
    print(f"{path.name}: {result['lists']} lists")
    for model, figures in result["models"].items():
        values = "  ".join(f"{name} {value[0]:.4f}" for name, value in figures.items())
        print(f"  {model:<12} {values}", flush=True)


if __name__ == "__main__":
    main()
