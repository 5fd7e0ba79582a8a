"""What daily updates gain over a stale model and lose to training anew (`recsys rolling`), by kind of update.

Days, model and data are those of the configuration. Seconds of training are those of the wall; on a machine
that did something else besides, compare the numbers of epochs and histories instead.

    RECSYS_DATA_DIR=... python tests/benchmarks/rolling.py --config 30music_rolling
"""

from __future__ import annotations

import argparse
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

from environments import machine, now
from rich.console import Console

from pipelines.environment import set_environment
from pipelines.rolling import RESULT, Histories, RollingSettings
from pipelines.runs import is_learned
from pipelines.stages import run_rolling
from recsys.config import load_config

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results" / "rolling"
UPDATES: tuple[tuple[int, Histories, float], ...] = (
    (2, "all", 0.2),
    (2, "all", 0.1),
    (2, "grown", 0.2),
    (2, "grown", 1.0),
    (1, "all", 1.0),
)
"""Epochs, histories, and the share of the model's learning rate."""
PACKAGES = ("recsys", "torch", "numpy", "polars", "pytorch-lightning")


def main() -> None:
    """Run every kind of update and store one file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="30music_rolling", help="a name in configs/")
    parser.add_argument("--work", type=Path, default=Path("out"), help="where the runs are kept")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("settings", nargs="*", help="key=value, as on the command line of recsys")
    options = parser.parse_args()
    set_environment()
    more = [f"output={options.work}", "tracking.enabled=false", *options.settings]
    config = load_config(ROOT / "configs" / f"{options.config}.yaml", more)
    runs = []
    name = next(name for name in config.models if is_learned(config, name))
    for epochs, histories, share in UPDATES:
        lr = share * config.models[name].training.lr
        settings = RollingSettings(model=name, epochs=epochs, histories=histories, lr=lr)
        directory = run_rolling(config, settings, Console(width=140))
        runs.append(json.loads((directory / RESULT).read_text(encoding="utf-8")))
    result = {
        "benchmark": "rolling",
        "date": now(),
        "command": f"python tests/benchmarks/rolling.py --config {options.config}",
        "updates": [shortened(run) for run in runs],
        **{name: runs[0][name] for name in ("model", "model_config", "split", "seed", "items")},
        "epochs_of_retraining": runs[0]["epochs_of_retraining"],
        "machine": machine() | {"load": round(os.getloadavg()[0], 1)},
        "versions": {package: version(package) for package in PACKAGES},
    }
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / f"{options.config}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(path)


def shortened(run: dict[str, Any]) -> dict[str, Any]:
    """Return what differs between kinds of update, figures to four places."""
    kept = ("settings", "seconds", "days", "rows", "differences")
    return rounded({name: run[name] for name in kept})


def rounded(value: Any) -> Any:
    """Round all numbers inside a value."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
