"""Work in blocks: bounded memory, and one thread a block instead of many threads an operation.

A block of rows is scored, masked and searched by operations of a few milliseconds. Splitting each of
them over the cores leaves all cores waiting for the slowest, again and again; giving every core its
own block does not, and lets NumPy's single-threaded parts run side by side as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

Block = TypeVar("Block")
Result = TypeVar("Result")

BLOCK_ROWS = 256
BLOCK_SCORES = 1 << 25
"""Scores a block holds at most: 128 MiB of float32."""
TILE_SCORES = 1 << 18
"""Scores computed by one product on the CPU: 1 MiB, so that they stay in the core's cache."""


def block_rows(width: int, rows: int = BLOCK_ROWS) -> int:
    """Return how many rows of `width` scores to hold at once, at most `rows`."""
    return max(1, min(rows, BLOCK_SCORES // max(width, 1)))


def multiply(queries: Tensor, table: Tensor, out: Tensor) -> Tensor:
    """Write `queries @ table.T` [B, N] into `out` and return it.

    On the CPU the product is cut into tiles of items: at 256 x 50,000 x 64 on one core that takes 60 %
    of the time of one product.
    """
    if out.device.type != "cpu" or len(queries) < 2:
        return torch.mm(queries, table.T, out=out)
    tile = max(256, TILE_SCORES // len(queries))
    for low in range(0, len(table), tile):
        high = min(low + tile, len(table))
        torch.mm(queries, table[low:high].T, out=out[:, low:high])
    return out


def block_workers(n_blocks: int, device: torch.device) -> int:
    """Return how many threads to share the blocks among: torch's own number on the CPU, else one."""
    return min(n_blocks, torch.get_num_threads()) if device.type == "cpu" else 1


def map_blocks(
    work: Callable[[Block], Result], blocks: Sequence[Block], workers: int
) -> Iterator[Result]:
    """Yield `work(block)` for every block, in order, on `workers` threads without gradients.

    With several workers each runs torch on one thread. The first error stops the rest.
    """
    # Both modes belong to a thread; what the caller made in inference mode can only be written in it.
    inference = torch.is_inference_mode_enabled()

    def run(block: Block) -> Result:
        with torch.inference_mode(inference), torch.no_grad():
            return work(block)

    if workers <= 1:
        yield from map(run, blocks)
        return
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield from pool.map(run, blocks)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # what threads started later begin with
