"""Exact top-k with exclusion against the bare matrix product, on this machine.

1,000 queries, 100,000 items of 64 dimensions, the 100 best of each without 20 seen items. The bare
product writes all scores into memory that is there already: the least that full scoring can take. Both
are timed in turn, so that a busy machine is busy for both. The bar is twice the bare product.

    python tests/benchmarks/topk.py
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
from typing import Any

import numpy as np
import psutil
import torch

ROOT = Path(__file__).parents[2]
RESULT = Path(__file__).parent / "results" / "topk.json"
BAR = 2.0


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--seen", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    torch.set_num_threads(options.threads)
    result = measure(options) | describe(options)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Time the bare product, ours, and torch.topk of the product, in turn."""
    from recsys.retrieval import Exclusion, Histories, exact_topk

    generator = torch.Generator().manual_seed(options.seed)
    table = torch.randn(options.items + 1, options.width, generator=generator)
    queries = torch.randn(options.users, options.width, generator=generator)
    seen = torch.randint(1, options.items + 1, (options.users, options.seen), generator=generator)
    histories, exclusion = Histories.from_lists(seen.tolist()), Exclusion()
    scores = torch.empty(options.users, options.items + 1)

    def product() -> None:
        torch.mm(queries, table.T, out=scores)

    def ours() -> None:
        exact_topk(queries, table, options.k, exclusion, histories)

    def torch_topk() -> None:
        product()
        exclusion.mask_(scores, histories)
        scores.topk(options.k, dim=1)

    ways = {"product": product, "ours": ours, "torch_topk": torch_topk}
    seconds = {name: np.empty(options.rounds) for name in ways}
    for round_ in range(-2, options.rounds):  # two rounds to warm up
        for name, way in ways.items():
            took = clock(way)
            if round_ >= 0:
                seconds[name][round_] = took
    torch_topk()
    expected = scores.topk(options.k, dim=1).indices
    agree = float(
        (exact_topk(queries, table, options.k, exclusion, histories)[0] == expected).mean(
            dtype=torch.float64
        )
    )
    ratios = seconds["ours"] / seconds["product"]
    return {
        "milliseconds": {
            name: {"best": ms(took.min()), "median": ms(np.median(took))}
            for name, took in seconds.items()
        },
        "ratio_of_best": round(float(seconds["ours"].min() / seconds["product"].min()), 3),
        "ratio_median": round(float(np.median(ratios)), 3),
        "bar": BAR,
        "places_equal_to_torch_topk": agree,
    }


def clock(way: Callable[[], None]) -> float:
    """Return the seconds one call takes."""
    began = time.perf_counter()
    way()
    return time.perf_counter() - began


def ms(seconds: float) -> float:
    """Return milliseconds."""
    return round(float(seconds) * 1e3, 1)


def describe(options: argparse.Namespace) -> dict[str, Any]:
    """Return where, when and how the figures were taken."""
    given = {k: v for k, v in vars(options).items() if k != "output"}
    return {
        "command": "python tests/benchmarks/topk.py "
        + " ".join(f"--{name} {value}" for name, value in given.items()),
        "seed": options.seed,
        "machine": {
            "cores": os.cpu_count(),
            "processor": platform.processor() or platform.machine(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "system": platform.platform(),
        },
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in ("torch", "numpy")},
        },
        "load_average_at_end": os.getloadavg()[0],
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


if __name__ == "__main__":
    main()
