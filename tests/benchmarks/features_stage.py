"""Time and memory of the features stage on a generated log, without and with neighbours, on a local Ray.

Memory is measured as in `prepare.py`. The bars are for 20 million events: at most 120 s without
neighbours, at most ten minutes for the neighbours (pairs within the last 50 items), at most 6 GiB.

    python tests/benchmarks/features_stage.py --rows 20000000
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prepare import ROOT, SETTLE, Steps, describe, generate, sample, tree_memory

RESULT = Path(__file__).parent / "results" / "features_stage.json"
BARS = {"features_seconds": 120, "neighbours_seconds": 600, "peak_gib": 6}


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--sparse-ids", action="store_true", help="63-bit ids instead of 1..n")
    parser.add_argument("--without-neighbours", action="store_true")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        events = Path(folder) / "events.parquet"
        generate(options, events)
        result = measure(options, events, Path(folder))
    command = " ".join(["python", "tests/benchmarks/features_stage.py", *sys.argv[1:]])
    result |= describe(options) | {"command": command, "load_average_before": load}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def measure(options: argparse.Namespace, events: Path, folder: Path) -> dict[str, Any]:
    """Prepare the log, then run both parts of the stage and return their times and memory."""
    from pipelines.features import build_features
    from pipelines.neighbours import build_neighbours
    from pipelines.prepare import prepare
    from pipelines.ray_session import ray_session
    from recsys.config import parse_config

    config = parse_config(
        {
            "name": "benchmark",
            "output": str(folder / "out"),
            "seed": options.seed,
            "data": {"events": [str(events)]},
            "models": {"pop": {"kind": "pop"}},
            "features": {"neighbours": "off" if options.without_neighbours else "on"},
            "ray": {"workers": options.workers},
        }
    )
    parts: dict[str, Callable[..., Path]] = {"features": build_features}
    if not options.without_neighbours:
        parts["neighbours"] = build_neighbours
    found: dict[str, Any] = {}
    with ray_session(config.ray):
        time.sleep(SETTLE)
        idle = tree_memory(os.getpid(), set())
        prepared = prepare(config)
        for name, part in parts.items():
            found[name] = watched(lambda part=part: part(config), idle)
    rows = json.loads((prepared / "manifest.json").read_text())["rows"]
    statistics = config.workspace / "features" / "statistics"
    return {
        "rows": rows,
        "statistics": sorted(path.name for path in statistics.iterdir()),
        "idle_ray_mb": round(idle / 1e6, 1),
        "parts": found,
        "bars": BARS,
    }


def watched(call: Callable[[], object], idle: int) -> dict[str, Any]:
    """Return the time, the times of the steps and the peak memory of a call."""
    steps = Steps()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    sampler = context.Process(target=sample, args=(os.getpid(), theirs))
    sampler.start()
    ours.recv()  # it is running
    began = time.perf_counter()
    call()
    seconds = time.perf_counter() - began
    ours.send("stop")
    peak = max(ours.recv())
    sampler.join()
    steps.close_log()
    return {
        "seconds": round(seconds, 2),
        "step_seconds": {title: round(took, 2) for title, took in steps.seconds.items()},
        "peak_gib": round(peak / (1 << 30), 3),
        "peak_over_idle_mb": round((peak - idle) / 1e6, 1),
    }


if __name__ == "__main__":
    main()
