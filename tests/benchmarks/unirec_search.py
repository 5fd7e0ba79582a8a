"""Equal tuning: `recsys tune` of the compared models by the spaces of configs/unirec_*.yaml.

Every model has the same number of trials, epochs and early stops; the first trial is the setting of the
configuration. Stores for every set all trials, and what the best is above the configuration's, on
validation. A search that was stopped goes on when the same command runs again.

    RECSYS_DATA_DIR=... python tests/benchmarks/unirec_search.py --sets beauty,toys
"""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
from environments import machine, now
from rich.console import Console

from pipelines.stages import run_tune
from pipelines.tune import search_directory, tune_config
from recsys.config import ExperimentConfig, load_config, load_study_config, setting_of
from recsys.manifest import read_manifest

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results" / "unirec" / "search"
STUDY = ROOT / "configs" / "unirec_study.yaml"
PACKAGES = ("recsys", "torch", "numpy", "polars", "pytorch-lightning", "ray", "optuna")


def main() -> None:
    """Search what is asked for and store it."""
    parser = argparse.ArgumentParser(description=__doc__)
    known = load_study_config(STUDY, []).sets
    parser.add_argument("--sets", default=",".join(known), help="commas between")
    parser.add_argument(
        "--models", default="", help="these instead of the configured, commas between"
    )
    parser.add_argument("--work", type=Path, default=Path("out"), help="where searches are kept")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    asked = options.sets.split(",")
    for name in asked:
        if name not in known:
            parser.error(f"--sets: no set {name!r}; there are {', '.join(known)}")
    for name in asked:
        settings = [f"output={options.work.absolute()}", "tracking.enabled=false"]
        if options.models:
            settings.append(f"tune.models=[{options.models}]")
        config = load_config(ROOT / known[name], settings)
        run_tune(config, Console(width=120))
        path = options.output / f"{name}.json"
        before = json.loads(path.read_text())["models"] if path.is_file() else {}
        about = {
            "budget": tune_config(config).model_dump(mode="json", exclude={"models", "space"}),
            "seed": config.seed,
            "date": now(),
            "command": f"python tests/benchmarks/unirec_search.py --sets {name}"
            + (f" --models {options.models}" if options.models else ""),
            "versions": {package: version(package) for package in PACKAGES},
            "machine": machine(),
        }
        found = {model: searched(config, model) | about for model in tune_config(config).chosen}
        result = {"benchmark": "unirec_search", "set": name, "models": before | found}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")


def searched(config: ExperimentConfig, model: str) -> dict[str, Any]:
    """Return the trials of a model, its best one, and what the configuration's own setting is worth."""
    directory = search_directory(config, model)
    rows = pl.read_parquet(directory / "trials.parquet").to_dicts()
    setting = {
        key: setting_of(config.models[model], key) for key in tune_config(config).space[model]
    }
    same = (row["ndcg@10"] for row in rows if all(row[key] == setting[key] for key in setting))
    own = next(same, None)  # there is none where the setting lies outside of the space
    best = read_manifest(directory)["best"]
    return {
        "configured": own,
        "best": best,
        "gain": None if own is None else round(best["ndcg@10"] / own - 1, 4),
        "trials": rows,
    }


if __name__ == "__main__":
    main()
