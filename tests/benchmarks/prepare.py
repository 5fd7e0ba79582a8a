"""Time and memory of prepare + split + sequences on a generated log, on a local Ray.

Memory is the proportional set size (shared pages counted once) summed over this process and everything
it started, sampled ten times a second by a process of its own; the idle Ray, before the first task, is
taken off. The bar is for 20 million events, 480 MB as int64 columns: at most 60 s and 3 x 480 MB.

    python tests/benchmarks/prepare.py --rows 20000000
"""

from __future__ import annotations

import argparse
import datetime
import json
import logging
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
RESULT = Path(__file__).parent / "results" / "prepare.json"
INTERVAL = 0.1
SETTLE = 5.0
"""Seconds of quiet after which Ray counts as idle."""
BYTES_PER_EVENT = 24


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--sparse-ids", action="store_true", help="63-bit ids instead of 1..n")
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
    result |= describe(options) | {"load_average_before": load}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def generate(options: argparse.Namespace, events: Path) -> None:
    """Write the log in another process, so that its memory is not counted."""
    command = [sys.executable, str(Path(__file__).with_name("generator.py")), str(events)]
    for name in ("rows", "users", "items", "seed"):
        command += [f"--{name}", str(getattr(options, name))]
    subprocess.run(command + ["--sparse-ids"] * options.sparse_ids, check=True)


def measure(options: argparse.Namespace, events: Path, folder: Path) -> dict[str, Any]:
    """Run both stages on a fresh Ray and return times and memory."""
    from pipelines.features import build_features
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
            "ray": {"workers": options.workers},
        }
    )
    steps = Steps()
    began = time.perf_counter()
    with ray_session(config.ray):
        started = time.perf_counter()
        time.sleep(SETTLE)
        idle = tree_memory(os.getpid(), set())
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        sampler = multiprocessing.get_context("spawn").Process(
            target=sample, args=(os.getpid(), theirs)
        )
        sampler.start()
        ours.recv()  # it is running
        first = time.perf_counter()
        prepared = prepare(config)
        second = time.perf_counter()
        features = build_features(config)
        third = time.perf_counter()
        ours.send("stop")
        samples = ours.recv()
        sampler.join()
    rows = json.loads((prepared / "manifest.json").read_text())["rows"]
    columns_mb = options.rows * BYTES_PER_EVENT / 1e6
    over_idle = (max(samples) - idle) / 1e6
    return {
        "rows": rows,
        "sequence_bytes": sum(path.stat().st_size for path in (features / "sequences").iterdir()),
        "seconds": {
            "ray_start": round(started - began, 2),
            "prepare": round(second - first, 2),
            "features": round(third - second, 2),
            "total": round(third - first, 2),
            "total_with_ray_start": round(third - first + started - began, 2),
        },
        "step_seconds": {title: round(seconds, 2) for title, seconds in steps.seconds.items()},
        "memory": {
            "columns_mb": columns_mb,
            "idle_ray_mb": round(idle / 1e6, 1),
            "peak_mb": round(max(samples) / 1e6, 1),
            "peak_over_idle_mb": round(over_idle, 1),
            "peak_over_idle_per_columns": round(over_idle / columns_mb, 3),
            "samples": len(samples),
        },
    }


class Steps(logging.Handler):
    """Sums up, by title, the times of the maps over partitions from what Ray's session logs."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.seconds: dict[str, float] = {}
        logger = logging.getLogger("pipelines.ray_session")
        logger.addHandler(self)
        logger.setLevel(logging.DEBUG)

    def emit(self, record: logging.LogRecord) -> None:
        """Add the time of one map."""
        if isinstance(record.args, tuple) and len(record.args) == 4:
            title, _, _, seconds = record.args
            self.seconds[str(title)] = self.seconds.get(str(title), 0.0) + float(str(seconds))

    def close_log(self) -> None:
        """Listen no more."""
        logging.getLogger("pipelines.ray_session").removeHandler(self)


def sample(pid: int, connection: Connection) -> None:
    """Sample the memory of a process tree until told to stop; then send the samples, in bytes."""
    connection.send("running")
    samples = []
    while not connection.poll():
        began = time.perf_counter()
        samples.append(tree_memory(pid, {os.getpid()}))
        time.sleep(max(0.0, INTERVAL - (time.perf_counter() - began)))
    connection.send(samples)


def tree_memory(pid: int, without: set[int]) -> int:
    """Return the summed proportional set size of a process and all below it, in bytes."""
    root = psutil.Process(pid)
    total = 0
    for process in [root, *root.children(recursive=True)]:
        if process.pid in without:
            continue
        try:
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended between being listed and being read
        total += sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
    return total


def describe(options: argparse.Namespace) -> dict[str, Any]:
    """Return where, when and how the figures were taken."""
    packages = ("polars", "numpy", "pyarrow", "ray")
    return {
        "command": " ".join(["python", "tests/benchmarks/prepare.py", *sys.argv[1:]]),
        "workers": options.workers,
        "seed": options.seed,
        "sparse_ids": options.sparse_ids,
        "machine": {
            "cores": os.cpu_count(),
            "processor": platform.processor() or platform.machine(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "system": platform.platform(),
        },
        "versions": {"python": platform.python_version(), **{p: version(p) for p in packages}},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


if __name__ == "__main__":
    main()
