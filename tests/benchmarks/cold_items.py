"""Items nobody has had: a share of the catalogue hidden from training, ranked where it is tested.

Runs `recsys run` of a configuration twice, as it is and with `split.cold_items`, and keeps HR@10 and
NDCG@10 of every model: of the cold targets among all items and among cold items alone, of the warm
targets, and of the warm targets of the run that hides nothing. Models are tested in pairs on the cold
targets by permutation over users, with Holm's correction.

    RECSYS_DATA_DIR=... python tests/benchmarks/cold_items.py --config scientific_text
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from environments import machine, now

from recsys.data.cold import choose_cold
from recsys.evaluation.significance import holm, permutation_test
from recsys.evaluation.targets_file import read_targets, targets_path
from recsys.manifest import read_manifest

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results" / "cold_items"
PACKAGES = ("recsys", "torch", "numpy", "polars", "tokenizers")
QUICK = ("index.tradeoff=off", "evaluation.bootstrap=200", "evaluation.permutations=200")
"""What is not read here is not computed at length."""
COLUMNS = ("ndcg@10", "hr@10")
Values = np.ndarray[Any, np.dtype[np.float64]]


def main() -> None:
    """Run the configuration with and without cold items and store the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="a name in configs/")
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--work", type=Path, default=Path("out"), help="where the runs are kept")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    whole = run(options.config, options.work, [])
    hidden = [f"split.cold_items={options.share}", "evaluation.among_cold=true", *QUICK]
    cold = run(options.config, options.work / "cold", hidden)
    result = {
        "benchmark": "cold_items",
        "date": now(),
        "command": f"python tests/benchmarks/cold_items.py --config {options.config} "
        f"--share {options.share}",
        **compared(whole, cold, options.share),
        "versions": {package: version(package) for package in PACKAGES},
        "machine": machine(),
    }
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / f"{options.config}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(path, json.dumps(result["models"]), file=sys.stderr)


def run(name: str, output: Path, overrides: list[str]) -> Path:
    """Run one experiment and return its newest report."""
    command = [sys.executable, "-m", "pipelines.cli", "run", f"configs/{name}.yaml"]
    command += [f"output={output}", *overrides]
    subprocess.run(command, cwd=ROOT, check=True)
    reports = ROOT / output / name / "reports"
    return max(reports.iterdir(), key=lambda path: (path / "manifest.json").stat().st_mtime)


def compared(whole: Path, cold: Path, share: float) -> dict[str, Any]:
    """Return every model's figures of cold and warm targets, and the tests between models."""
    models = read_manifest(cold)["models"]
    prepared = read_manifest(cold.parents[1] / "prepared")
    chosen = choose_cold(prepared["rows"]["items"], share, prepared["seed"])
    parts = {
        "cold": {name: means(cold, name, chosen) for name in models},
        "cold, among cold": {name: means(cold, f"{name}.among-cold", chosen) for name in models},
        "warm": {name: means(cold, name, ~chosen) for name in models},
        "warm, nothing hidden": {name: means(whole, name, ~chosen) for name in models},
    }
    return {
        "cold_items": int(chosen.sum()),
        "users": {part: len(next(iter(found.values()))) for part, found in parts.items()},
        "models": {
            name: {part: figures(found[name]) for part, found in parts.items()} for name in models
        },
        "tests": {part: tests(parts[part]) for part in ("cold", "cold, among cold")},
    }


def means(report: Path, name: str, wanted: np.ndarray[Any, np.dtype[np.bool_]]) -> Values:
    """Return NDCG@10 and HR@10 of each user with a target among the wanted items, [users, 2]."""
    ranked = read_targets(targets_path(report, name, "test"))
    if (np.diff(ranked.offsets) != 1).any():
        raise SystemExit("cold items are compared where a target is one item")
    rows = np.flatnonzero(wanted[ranked.items])
    ranks = ranked.ranks[rows]
    gains = np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0.0)
    hits = (ranks <= 10).astype(float)
    user, place = np.unique(ranked.user[rows], return_inverse=True)
    counts = np.bincount(place, minlength=len(user))
    summed = [np.bincount(place, column, minlength=len(user)) / counts for column in (gains, hits)]
    return np.stack(summed, axis=1)


def figures(values: Values) -> dict[str, float]:
    """Return the means over users by metric."""
    return {name: round(float(values[:, i].mean()), 4) for i, name in enumerate(COLUMNS)}


def tests(values: dict[str, Values]) -> list[dict[str, Any]]:
    """Return the paired tests of every two models on the same users, NDCG@10."""
    rng = np.random.default_rng(0)
    pairs = list(combinations(values, 2))
    p_values = np.array(
        [permutation_test(values[a][:, :1] - values[b][:, :1], 10_000, rng)[0] for a, b in pairs]
    )
    return [
        {
            "models": [a, b],
            "difference": round(float((values[a] - values[b])[:, 0].mean()), 4),
            "p": round(float(p), 5),
            "p_holm": round(float(corrected), 5),
        }
        for (a, b), p, corrected in zip(pairs, p_values, holm(p_values), strict=True)
    ]


if __name__ == "__main__":
    main()
