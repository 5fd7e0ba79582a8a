"""Diverse Beam Search: against `transformers` 4.56.2, by catalogue size, and of a single request.

1. The same SASRec decoder, 16 histories, 4 groups x 2 beams, 10 steps, 10,000 items, exact log Z:
   `transformers` in an environment of its own, ours here, in turn. The lists must be equal. Bar: 5x, by
   the wall's seconds and by those of the processor, which a busy machine changes less.
2. One request over 10^4, 10^5 and 10^6 items, with a shortlist and estimated log Z: seconds and memory of
   a step outside the index's own search must not grow with the catalogue.
3. One request over 100,000 items of 64 dimensions: 4 groups x 2 beams x 10 steps, 500 candidates, by
   a history that leaves the window room and one that fills it, so that it slides at every step.

    python tests/benchmarks/beam.py
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).parents[2]
RESULT = Path(__file__).parent / "results" / "beam.json"
GOLDEN = ROOT / "tests" / "decoding" / "golden"
PEER = Path(__file__).parent / "peers" / "beam_of_transformers.py"
BAR = 5.0
CASE = {"histories": 16, "length": 20, "steps": 10, "groups": 4, "beams": 2, "diversity": 0.5}


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5, help="searches a turn")
    parser.add_argument("--sizes", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--environment", type=Path)
    parser.add_argument("--memory-of", type=int, help="used by the script itself")
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(GOLDEN)]
    torch.set_num_threads(1)
    if options.memory_of is not None:
        print(by_catalogue(options.memory_of)["peak_mb"])
        return
    from environments import machine, now

    result = {
        "benchmark": "beam",
        "date": now(),
        "command": "python tests/benchmarks/beam.py",
        "threads": 1,
        "against_transformers": against_transformers(options),
        "by_catalogue": [
            {name: v for name, v in by_catalogue(size).items() if name != "peak_mb"}
            | {"peak_mb_outside_the_index": memory_of(size)}
            for size in options.sizes
        ],
        "single_request": [single_request(length) for length in (30, 50)],
        "machine": machine() | {"load": round(os.getloadavg()[0], 1)},
        "torch": torch.__version__,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def decoder(n_items: int, length: int = 50) -> Any:
    """Return a SASRec with random weights whose next-item distribution is as peaked as a fitted one's."""
    from recsys.config import SASRecConfig
    from recsys.models.sasrec import SASRec

    torch.manual_seed(0)
    model = SASRec(SASRecConfig(width=64, heads=2, blocks=2, max_length=length), n_items).eval()
    with torch.no_grad():
        model.item_table.weight[1:].normal_(std=0.5)
    return model


def against_transformers(options: argparse.Namespace) -> dict[str, Any]:
    """Time both in turn, and compare what they find."""
    from make_golden import environment, prepared

    from recsys.config import IndexConfig
    from recsys.decoding import Catalogue, SearchSettings, search
    from recsys.retrieval.index import build_index

    model = decoder(10_000)
    rng = np.random.default_rng(0)
    histories = rng.integers(1, 10_001, size=(CASE["histories"], CASE["length"])).tolist()
    # A penalty takes places from at most the 6 items of three earlier groups: among the 8 best candidates
    # of a list are then always its 2 best, and no others can be chosen.
    settings = SearchSettings(
        groups=4, beams=2, diversity=0.5, scope="step", sets=False, distinct=False, repeats=True,
        log_z="exact", candidates=8,
    )  # fmt: skip
    with torch.inference_mode():
        index = build_index(IndexConfig(), model.encode_items())
    catalogue = Catalogue(model, index)
    python = prepared(options.environment or environment())
    ours: dict[str, list[float]] = {"seconds": [], "processor": []}
    theirs: dict[str, list[float]] = {"seconds": [], "processor": []}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        weights = Path(folder) / "weights.pt"
        torch.save(model.state_dict(), weights)
        for _ in range(options.turns):
            peer = ask_peer(python, weights, histories, options.rounds)
            for clock, times in theirs.items():
                times += peer[clock]
            found = search(catalogue, batch_of(histories, 50), CASE["steps"], settings)
            for _ in range(options.rounds):
                began, used = time.perf_counter(), time.process_time()
                found = search(catalogue, batch_of(histories, 50), CASE["steps"], settings)
                ours["seconds"].append(time.perf_counter() - began)
                ours["processor"].append(time.process_time() - used)
    equal = compare(found, peer)
    ratios = {
        clock: round(statistics.median(theirs[clock]) / statistics.median(ours[clock]), 2)
        for clock in ours
    }
    return {
        **CASE,
        "items": 10_000,
        "ours_seconds": summary(ours["seconds"]),
        "transformers_seconds": summary(theirs["seconds"]),
        "times_faster": ratios["seconds"],
        "ours_processor_seconds": summary(ours["processor"]),
        "transformers_processor_seconds": summary(theirs["processor"]),
        "times_faster_by_processor": ratios["processor"],
        "bar": BAR,
        "met": min(ratios.values()) >= BAR,
        **equal,
        "peer": peer["version"],
    }


def ask_peer(
    python: Path, weights: Path, histories: list[list[int]], rounds: int
) -> dict[str, Any]:
    """Run the search of `transformers` in its environment."""
    asked = json.dumps({**CASE, "weights": str(weights), "histories": histories, "rounds": rounds})
    paths = os.pathsep.join([str(ROOT), str(GOLDEN)])
    settings = {**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(python), str(PEER)],
        input=asked,
        capture_output=True,
        text=True,
        check=True,
        env=settings,
    )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def compare(found: Any, peer: dict[str, Any]) -> dict[str, Any]:
    """Return whether both found the same lists, and how far their scores are apart."""
    same, apart = 0, 0.0
    for row, (items, scores) in enumerate(zip(peer["items"], peer["scores"], strict=True)):
        ours = sorted(zip(found.items[row].tolist(), found.score[row].tolist(), strict=True))
        theirs = sorted(zip(items, scores, strict=True))
        same += [one for one, _ in ours] == [one for one, _ in theirs]
        apart = max(apart, *(abs(a - b) for (_, a), (_, b) in zip(ours, theirs, strict=True)))
    return {"requests_with_equal_lists": same, "greatest_difference_of_scores": round(apart, 7)}


def batch_of(histories: list[list[int]], length: int) -> Any:
    """Pack histories."""
    from recsys.data.batches import batch_from_lists

    return batch_from_lists(histories, None, length)


def by_catalogue(n_items: int) -> dict[str, Any]:
    """Time a request's steps outside the index's search, and their memory."""
    from recsys.config import IndexConfig
    from recsys.decoding import SearchSettings, search
    from recsys.retrieval.index import build_index

    model = decoder(n_items)
    with torch.inference_mode():
        index = build_index(IndexConfig(kind="exact"), model.encode_items())
        catalogue, watch = Watched.of(model, index)
        rows: dict[str, list[float]] = {"outside": [], "inside": [], "memory": []}
        settings = SearchSettings(groups=4, beams=2, candidates=500, refresh=1, log_z="estimate")
        for turn in range(6):
            watch.begin()
            began = time.perf_counter()
            search(catalogue, batch_of([list(range(1, 31))], 50), 10, settings)
            total = time.perf_counter() - began
            if turn:
                rows["outside"].append((total - watch.seconds) / 10)
                rows["inside"].append(watch.seconds / 10)
                rows["memory"].append(watch.end())
    return {
        "items": n_items,
        "ms_a_step_outside_the_index": round(1e3 * statistics.median(rows["outside"]), 2),
        "ms_a_step_of_the_index": round(1e3 * statistics.median(rows["inside"]), 2),
        "peak_mb": round(statistics.median(rows["memory"]), 1),
    }


def memory_of(n_items: int) -> float:
    """Return the peak of memory outside the index in a process that gives freed arrays back at once."""
    memory = {"MALLOC_MMAP_THRESHOLD_": "16384", "MALLOC_TRIM_THRESHOLD_": "0"}
    command = [sys.executable, __file__, "--memory-of", str(n_items)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, **memory}
    )
    return float(done.stdout.splitlines()[-1])


class Watched:
    """An index whose searches are timed, and left out of the peak of memory."""

    def __init__(self, index: Any) -> None:
        self.search_of, self.seconds, self.start, self.peak = index.search, 0.0, 0.0, 0.0

    @classmethod
    def of(cls, model: Any, index: Any) -> tuple[Any, Watched]:
        """Return a catalogue with such an index, and the watch."""
        from recsys.decoding import Catalogue

        watch = cls(index)
        index.search = watch.search
        return Catalogue(model, index), watch

    def begin(self) -> None:
        """Start from nothing."""
        self.seconds, self.peak, self.start = 0.0, 0.0, resident()
        reset_peak()

    def end(self) -> float:
        """Return the greatest growth of memory outside the index, in MB."""
        return max(self.peak, resident("VmHWM") - self.start)

    def search(self, *arguments: Any) -> Any:
        """Search, timed."""
        self.peak = max(self.peak, resident("VmHWM") - self.start)
        began = time.perf_counter()
        found = self.search_of(*arguments)
        self.seconds += time.perf_counter() - began
        reset_peak()
        return found


def resident(name: str = "VmRSS") -> float:
    """Return resident memory, or its peak since the last reset, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith(f"{name}:")]
    return float(line.split()[1]) / 1024


def reset_peak() -> None:
    """Let the peak of memory begin at what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def single_request(length: int) -> dict[str, Any]:
    """Time the request of the endpoint: 100,000 items, 4 groups x 2 beams x 10 steps, 500 candidates."""
    from recsys.config import IndexConfig
    from recsys.decoding import Rules, SearchSettings, search
    from recsys.decoding.shortlist import Catalogue
    from recsys.retrieval.index import build_index

    model, rng = decoder(100_000), np.random.default_rng(1)
    settings = SearchSettings(groups=4, beams=2, candidates=500)
    wall, cpu = [], []
    with torch.inference_mode():
        catalogue = Catalogue(model, build_index(IndexConfig(), model.encode_items()))
        for turn in range(55):
            history = rng.integers(1, 100_001, size=length)
            rules = [Rules(forbidden=np.unique(history))]
            began, used = time.perf_counter(), time.thread_time()
            search(catalogue, batch_of([history.tolist()], 50), 10, settings, rules)
            if turn >= 5:
                wall.append(time.perf_counter() - began)
                cpu.append(time.thread_time() - used)
    return {
        "items": 100_000,
        "history": length,
        "window": 50,
        "refresh": settings.refresh,
        "wall_seconds": summary(wall),
        "cpu_seconds": summary(cpu),
    }


def summary(seconds: list[float]) -> dict[str, float]:
    """Return the middle and both ends, in seconds."""
    ordered = sorted(seconds)
    middle = statistics.median(ordered)
    return {"p50": round(middle, 4), "min": round(ordered[0], 4), "max": round(ordered[-1], 4)}


if __name__ == "__main__":
    main()
