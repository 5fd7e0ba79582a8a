"""What Recformer costs: items encoded a second, after a small change, memory of both, and GradCache.

Encoding: the small model of configs/recformer_pretrain.yaml, drawn weights (they cost what learned ones
do), sentences of made-up tokens in the lengths that Amazon's have (7 to 18). Re-encoding: one item in a
hundred has another text. Memory: each size in a process of its own that reads the tokens memory-mapped
and writes the vectors out; what counts is how much its peak grows over 10,000 items.

Training memory: one step of the contrastive loss, in a process of its own, on pairs of 256 tokens.

    python tests/benchmarks/recformer.py
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environments import machine, now

from recsys.config import load_pretrain_config
from recsys.config.text_encoder import TextEncoderConfig
from recsys.data.item_sentences import SentenceBatch
from recsys.data.token_store import TokenStore
from recsys.losses.contrastive import in_batch_contrast
from recsys.models.recformer.encoder import TextEncoder
from recsys.models.recformer.text_vectors import encoded_blocks, kept_text_vectors

ROOT = Path(__file__).parents[2]
RESULT = Path(__file__).parent / "results" / "recformer.json"
SPEED_BAR, SHARE_BAR, MEMORY_BAR = 1000, 0.03, 6.0
WORDS, SHORTEST, LONGEST = 12_000, 7, 18


def small_encoder() -> TextEncoder:
    """Return the small model with drawn weights."""
    torch.manual_seed(0)
    config = load_pretrain_config(ROOT / "configs" / "recformer_pretrain.yaml").encoder
    return TextEncoder(config, WORDS).eval()


def made_up(items: int, seed: int = 0) -> TokenStore:
    """Return sentences of random tokens, every one different."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(SHORTEST, LONGEST + 1, items)
    offsets = np.concatenate([[0, 0], np.cumsum(lengths)]).astype(np.int64)
    numbers = np.arange(items + 1, dtype=np.uint64)
    return TokenStore(
        tokens=rng.integers(4, WORDS, offsets[-1], dtype=np.int32),
        types=np.full(offsets[-1], 2, dtype=np.uint8),
        word_starts=np.ones(offsets[-1], dtype=np.bool_),
        offsets=offsets,
        hashes=np.stack([numbers, numbers * np.uint64(seed + 1)], axis=1),
        rows=np.arange(items + 1, dtype=np.int32),
        pad_id=0,
        cls_id=1,
        mask_id=2,
        unknown_id=3,
        vocabulary_size=WORDS,
        tokenizer_hash="00",
    )


def measure_encoding(items: int) -> dict[str, Any]:
    """Return how long a catalogue takes, and again after one item in a hundred has changed."""
    encoder, store = small_encoder(), made_up(items)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vectors.safetensors"
        whole, _ = timed(lambda: kept_text_vectors(encoder, store, file))
        changed = store.hashes.copy()
        some = np.random.default_rng(1).choice(items, items // 100, replace=False) + 1
        changed[some, 1] += np.uint64(7)
        other = TokenStore(**{**vars(store), "hashes": changed})
        again, (_, encoded) = timed(lambda: kept_text_vectors(encoder, other, file))
    return {
        "items": items,
        **{f"whole_{name}": value for name, value in whole.items()},
        **{f"again_{name}": value for name, value in again.items()},
        "items_per_second": round(items / whole["cpu_seconds"]),
        "encoded_again": encoded,
        "again_share": round(again["cpu_seconds"] / whole["cpu_seconds"], 4),
    }


def timed(work: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Return seconds of the clock and of the processor, and what the work gave."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    seconds = {
        "seconds": round(time.perf_counter() - wall, 3),
        "cpu_seconds": round(time.process_time() - cpu, 3),
    }
    return seconds, found


def memory_of(items: int) -> dict[str, Any]:
    """Return the peak memory of a process that encodes so many items."""
    with tempfile.TemporaryDirectory() as folder:
        made_up(items).save(Path(folder))
        found: dict[str, Any] = in_a_process("encode", folder)
    return {"items": items, **found}


def encode_to_file(folder: Path) -> dict[str, Any]:
    """Encode memory-mapped sentences and write the vectors out; return this process's peak memory."""
    encoder, store = small_encoder(), TokenStore.load(folder)
    before = peak_mb()
    blocks = encoded_blocks(encoder, store, np.arange(store.n_texts))
    with (folder / "vectors.bin").open("wb") as out:
        for texts, vectors in blocks:
            texts.tofile(out)
            vectors.numpy().tofile(out)
    return {"before_mb": before, "peak_mb": peak_mb()}


def contrast_step(batch: int, length: int, cached: bool) -> dict[str, Any]:
    """Make one training step on a batch of pairs; return peak memory and time."""
    config = small_encoder().config.model_copy(update={"max_tokens": length, "dropout": 0.1})
    encoder = TextEncoder(TextEncoderConfig(**config.model_dump()), WORDS)
    before = peak_mb()

    def step() -> float:
        parts = []
        for seed in (1, 2):
            rng = torch.Generator().manual_seed(seed)
            ids = torch.randint(4, WORDS, (batch, length), generator=rng)
            ones = torch.ones_like(ids)
            lengths = torch.full((batch,), length)
            sentences = SentenceBatch(ids, ones, ones, ones.bool(), lengths)
            parts.append(encoder.encode(sentences, cached=cached))
        loss = in_batch_contrast(*parts, torch.arange(batch), 0.05)
        loss.backward()
        return float(loss.detach())

    seconds, loss = timed(step)
    return {
        "batch": batch,
        "length": length,
        "cached": cached,
        "loss": round(loss, 5),
        "before_mb": before,
        "peak_mb": peak_mb(),
        **seconds,
    }


def peak_mb() -> int:
    """Return the peak resident memory of this process so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def in_a_process(*arguments: str) -> Any:
    """Run one part in a process of its own, whose peak memory is its own."""
    command = [sys.executable, str(Path(__file__)), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="*", help="one part alone (for the processes)")
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--sizes", default="10000,100000,1000000", help="of the memory's part")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--whole", action="store_true", help="also a step without GradCache")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    match options.part:
        case ["encode", folder]:
            print(json.dumps(encode_to_file(Path(folder))))
            return
        case ["step", batch, length, cached]:
            print(json.dumps(contrast_step(int(batch), int(length), cached == "True")))
            return
    given = {n: v for n, v in vars(options).items() if n not in ("part", "output")}
    result: dict[str, Any] = {"benchmark": "recformer", "date": now(), "options": given}
    result["encoding"] = measure_encoding(options.items)
    result["memory"] = [memory_of(int(size)) for size in options.sizes.split(",")]
    steps = [True, False] if options.whole else [True]
    sizes = str(options.batch), str(options.length)
    result["training"] = [in_a_process("step", *sizes, str(cached)) for cached in steps]
    result["bars"] = {
        "items_per_second": [result["encoding"]["items_per_second"], SPEED_BAR],
        "again_share": [result["encoding"]["again_share"], SHARE_BAR],
        "training_gib": [round(result["training"][0]["peak_mb"] / 1024, 2), MEMORY_BAR],
    }
    result |= {
        "versions": {package: version(package) for package in ("torch", "numpy")},
        "machine": machine(),
        "load_average_at_end": os.getloadavg()[0],
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
