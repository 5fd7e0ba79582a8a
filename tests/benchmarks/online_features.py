"""Time of one user's features, online: from the kept state, from a whole history, and of an update.

The bar is one millisecond for a user with 1,000 events.

    python tests/benchmarks/online_features.py
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
RESULT = Path(__file__).parent / "results" / "online_features.json"
BAR_MS = 1.0


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    load = os.getloadavg()[0]
    result = {
        "milliseconds": measure(options.events, options.rounds, options.seed),
        "bar_milliseconds": BAR_MS,
        "events": options.events,
        "rounds": options.rounds,
        "seed": options.seed,
        "command": " ".join(["python", "tests/benchmarks/online_features.py", *sys.argv[1:]]),
        "machine": {"cores": os.cpu_count(), "system": platform.platform()},
        "versions": {"python": platform.python_version(), "numpy": version("numpy")},
        "load_average_before": load,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def measure(events: int, rounds: int, seed: int) -> dict[str, dict[str, float]]:
    """Return the median and the 99th percentile of every way to a user's features."""
    from features.online import UserState, user_features

    rng = np.random.default_rng(seed)
    items = rng.integers(1, 10_000, events).tolist()
    times = 1_600_000_000 + np.cumsum(rng.integers(0, 100_000, events))
    state = UserState.of_history(items, times, keep=events)
    row = state.row()
    newest = int(times[-1])

    def of_row(row: dict[str, object]) -> object:
        return user_features(UserState.from_row(row), length=events, first_year=2020)

    def of_history() -> object:
        return user_features(UserState.of_history(items, times, events), events, 2020)

    def update() -> object:
        return state.after(1, newest + 60, keep=events).row()

    def late() -> object:
        return state.after(1, newest - 60, keep=events).row()

    ways: dict[str, Callable[[], object]] = {
        "features_of_stored_row": lambda: of_row(row),
        "features_of_whole_history": of_history,
        "update_by_one_event": update,
        "update_by_a_late_event": late,
    }
    return {name: percentiles(way, rounds) for name, way in ways.items()}


def percentiles(call: Callable[[], object], rounds: int) -> dict[str, float]:
    """Return p50 and p99 of the call's time, in milliseconds."""
    for _ in range(50):
        call()
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return {f"p{p}": round(float(np.percentile(taken, p)) * 1e3, 4) for p in (50, 99)}


if __name__ == "__main__":
    main()
