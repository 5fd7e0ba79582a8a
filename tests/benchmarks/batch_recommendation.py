"""Users per second of `recsys recommend --users all`, against the bare matrix product.

The product is that of the users' vectors with the vectors of all items, block by block into one buffer,
and nothing else: no histories encoded, nothing excluded, chosen or written. It bounds what any exact
method can do. Sides take turns; the best round of each counts, since another process can only slow one
down. Everything is measured from the loaded bundle to the closed file; memory is the peak of the process.
Beside the wall's seconds stand those of the processor, all threads together, which a busy machine changes
less; the bar must be met by both.
Encoding the histories, which is the model's own work and no part of the product, is also timed alone: the
second share is that of the seconds of product and encoding together.

    python tests/benchmarks/batch_recommendation.py
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from served import circumstances, make_bundle

from pipelines.recommend import Part, write_part
from recsys.bundle import Bundle, load_bundle
from recsys.models import EncoderModel
from recsys.recommender.everybody import BLOCK, encode_histories

RESULT = Path(__file__).parent / "results" / "batch_recommendation.json"


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        result = measure(options, Path(name))
    chosen = {k: getattr(options, k) for k in ("items", "users", "width", "k", "threads")}
    result = {**circumstances("batch_recommendation", options.seed, chosen), **result}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return users per second of both sides, their ratio, and how memory grows with the users."""
    path = make_bundle(folder, options.items, options.width, options.seed, options.users)
    bundle = load_bundle(path)
    seconds: dict[str, list[Seconds]] = {"product": [], "encoding": [], "loading": [], "ours": []}
    memory = dict[str, float]()
    for _ in range(options.rounds):
        seconds["product"].append(timed(lambda: product(bundle, options.users)))
        seconds["encoding"].append(timed(lambda: encode(bundle, options.users)))
        for share in (4, 1):  # a quarter of the users, then all
            part = Part(0, options.users // share, folder / "out.parquet")
            with peak_memory() as peak:
                took = timed(lambda part=part: write_part(part, path, options.k))
            memory[f"{part.last} users"] = round(peak.value, 1)
        loading = timed(lambda: load_bundle(path))
        seconds["ours"].append((took[0] - loading[0], took[1] - loading[1]))
        seconds["loading"].append(loading)
    quarter, whole = memory.values()
    figures = {
        name: shares({side: min(s[at] for s in all_) for side, all_ in seconds.items()}, options)
        for at, name in enumerate(("wall", "processor"))
    }
    return {
        **figures,
        "added_memory_mb": memory,
        "bars": {
            "at least 60 % of the product": all(
                found["share_of_the_product"] >= 0.6 for found in figures.values()
            ),
            "memory flat": whole <= quarter + 64,
        },
    }


Seconds = tuple[float, float]
"""On the wall, and of the processor."""


def shares(best: dict[str, float], options: argparse.Namespace) -> dict[str, float]:
    """Return users per second of each side, and what share of the possible ours are."""
    users, ours = options.users, best["ours"]
    return {
        "users_per_second": round(users / ours, 1),
        "product_users_per_second": round(users / best["product"], 1),
        "encoding_users_per_second": round(users / best["encoding"], 1),
        "share_of_the_product": round(best["product"] / ours, 3),
        "share_of_product_and_encoding": round((best["product"] + best["encoding"]) / ours, 3),
    }


def timed(work: Callable[[], object]) -> Seconds:
    """Return the seconds that something takes."""
    began, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - used


def product(bundle: Bundle, users: int) -> None:
    """Multiply alone."""
    assert bundle.index is not None
    columns = bundle.index.columns
    queries = torch.randn(BLOCK, len(columns))
    buffer = torch.empty(64, columns.shape[1])
    with torch.inference_mode():
        for at in range(0, users, 64):
            place = at % BLOCK
            torch.mm(queries[place : place + 64], columns, out=buffer)


def encode(bundle: Bundle, users: int) -> None:
    """Encode the histories alone."""
    recent, model = bundle.recent, bundle.model
    assert recent is not None and isinstance(model, EncoderModel)
    with torch.inference_mode():
        for at in range(0, users, BLOCK):
            rows = slice(at, min(at + BLOCK, users))
            start, end = recent.offsets[:-1][rows], recent.offsets[1:][rows]
            encode_histories(model, recent, start, end)


class peak_memory:
    """Measures the most memory that a block adds to the process, in megabytes."""

    def __enter__(self) -> peak_memory:
        self._process, self._end = psutil.Process(), threading.Event()
        self._before = self._most = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._end.wait(0.02):
            self._most = max(self._most, self._process.memory_info().rss)

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()
        self.value = (self._most - self._before) / 2**20


if __name__ == "__main__":
    main()
