"""Users per second of `recsys recommend --users all`, against the bare matrix product.

The product is that of the users' vectors with the vectors of all items, block by block into one buffer,
and nothing else: no histories encoded, nothing excluded, chosen or written. It bounds what any exact
method can do. Sides take turns; the best round of each counts, since another process can only slow one
down. Everything is measured from the loaded bundle to the closed file; memory is the peak of the process.
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
from pathlib import Path
from typing import Any

import psutil
import torch
from served import circumstances, make_bundle

from pipelines.recommend import Part, write_part
from recsys.bundle import Bundle, load_bundle
from recsys.data.batches import pack_histories
from recsys.models import EncoderModel
from recsys.recommender.everybody import BLOCK

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
    ours, bare, encoded, memory = [], [], [], dict[str, float]()
    for _ in range(options.rounds):
        bare.append(options.users / product_seconds(bundle, options.users))
        encoded.append(options.users / encoding_seconds(bundle, options.users))
        for share in (4, 1):  # a quarter of the users, then all
            users = options.users // share
            with peak_memory() as peak:
                began = time.perf_counter()
                write_part(Part(0, users, folder / "out.parquet"), path, options.k)
                took = time.perf_counter() - began
            memory[f"{users} users"] = round(peak.value, 1)
        ours.append(options.users / (took - load_seconds(path)))
    quarter, whole = memory.values()
    both = 1 / (1 / max(bare) + 1 / max(encoded))
    return {
        "users_per_second": round(max(ours), 1),
        "product_users_per_second": round(max(bare), 1),
        "encoding_users_per_second": round(max(encoded), 1),
        "share_of_the_product": round(max(ours) / max(bare), 3),
        "share_of_product_and_encoding": round(max(ours) / both, 3),
        "added_memory_mb": memory,
        "bars": {
            "at least 60 % of the product": max(ours) >= 0.6 * max(bare),
            "memory flat": whole <= quarter + 64,
        },
    }


def product_seconds(bundle: Bundle, users: int) -> float:
    """Return the seconds of the product alone."""
    assert bundle.index is not None
    columns = bundle.index.columns
    queries = torch.randn(BLOCK, len(columns))
    buffer = torch.empty(64, columns.shape[1])
    with torch.inference_mode():
        torch.mm(queries[:64], columns, out=buffer)
        began = time.perf_counter()
        for at in range(0, users, 64):
            place = at % BLOCK
            torch.mm(queries[place : place + 64], columns, out=buffer)
        return time.perf_counter() - began


def encoding_seconds(bundle: Bundle, users: int) -> float:
    """Return the seconds of encoding the histories alone."""
    recent, model = bundle.recent, bundle.model
    assert recent is not None and isinstance(model, EncoderModel)
    began = time.perf_counter()
    with torch.inference_mode():
        for at in range(0, users, BLOCK):
            rows = slice(at, min(at + BLOCK, users))
            start, end = recent.offsets[:-1][rows], recent.offsets[1:][rows]
            model.encode_sequences(pack_histories(recent, start, end, model.max_length))
    return time.perf_counter() - began


def load_seconds(path: Path) -> float:
    """Return the seconds that loading the bundle takes."""
    began = time.perf_counter()
    load_bundle(path)
    return time.perf_counter() - began


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
