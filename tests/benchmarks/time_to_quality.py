"""Seconds of training that configs/beauty.yaml's SASRec needs for given test figures, on this machine.

Amazon Beauty, leave-one-out in the file's order, full ranking, seen items excluded. The levels are the
bar, and what RecTools 0.19's SASRec had after 20 epochs (sampled softmax with 256 negatives, width 64,
length 50, batch 128). What those 20 epochs take is scaled from its epoch in results/training.json, where
`training.py` has left it: to train them would take hours. Ranking counts on neither side. Levels are
looked up on the test figures of every validated epoch; the epoch that is kept is chosen on validation.

    RECSYS_DATA_DIR=... python tests/benchmarks/time_to_quality.py
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from environments import machine, measured_environment, now
from training import RESULT as SPEED
from training import run_side, write_events

RESULT = Path(__file__).parent / "results" / "time_to_quality.json"
PEER_EPOCHS = 20
LEVELS = {
    "rectools_after_20_epochs": {"test_hr@10": 0.0873, "test_ndcg@10": 0.0507},
    "bar": {"test_hr@10": 0.090, "test_ndcg@10": 0.052},
}


def main() -> None:
    """Train, look the levels up and store."""
    named = os.environ.get("RECSYS_DATA_DIR")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, default=Path(named) if named else None)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--wait", choices=("passive", "active"), default="passive")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    if options.data_dir is None:
        parser.error("--data-dir or RECSYS_DATA_DIR must name the folder of the data sets")
    load = os.getloadavg()[0]
    settings = json.dumps({"threads": options.threads, "seed": options.seed})
    environment = measured_environment(options.threads, options.wait)
    with tempfile.TemporaryDirectory() as folder:
        events = Path(folder) / "events.npz"
        write_events(options.data_dir, events, held_out=0)
        python = Path(sys.executable)
        measured = run_side(python, "ours_to_quality.py", events, settings, environment)
    result = {
        "benchmark": "time_to_quality",
        "date": now(),
        "command": "python tests/benchmarks/time_to_quality.py "
        f"--threads {options.threads} --wait {options.wait} --seed {options.seed}",
        "seed": options.seed,
        "levels": LEVELS,
        "training_seconds_until": {
            name: seconds_until(measured["curve"], level) for name, level in LEVELS.items()
        },
        "rectools_seconds_of_20_epochs_scaled": peer_seconds(),
        **measured,
        "machine": machine()
        | {"load_before": round(load, 2), "load_after": round(os.getloadavg()[0], 2)},
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def seconds_until(curve: list[dict[str, float]], level: dict[str, float]) -> float | None:
    """Return the training seconds at the first point that reaches all of a level, None if none does."""
    reached = (
        point["training_seconds"]
        for point in curve
        if all(point[name] >= value for name, value in level.items())
    )
    return next(reached, None)


def peer_seconds() -> float | None:
    """Return the seconds of RecTools' 20 epochs, None where its speed was not measured here."""
    if not SPEED.is_file():
        return None
    speed: dict[str, Any] = json.loads(SPEED.read_text())
    sides = speed["losses"].get("sampled_softmax", {}).get("sides", {})
    if "rectools" not in sides:
        return None
    return round(PEER_EPOCHS * float(sides["rectools"]["epoch_seconds_scaled"]), 1)


if __name__ == "__main__":
    main()
