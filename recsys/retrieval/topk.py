"""Exact top-k, in blocks: the best items by inner product, in bounded memory.

Order is always: score descending, equal scores by smaller item index.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from recsys.data.sequences import Int64
from recsys.errors import DataError
from recsys.retrieval.blocks import (
    BLOCK_SCORES,
    block_rows,
    block_workers,
    map_blocks,
    multiply,
)
from recsys.retrieval.exclusion import Exclusion, Histories, check_history_items
from recsys.schema import PAD

CHUNK = 32
"""Columns that share one maximum in the first pass of `topk_rows`."""
QUERIES = 64
"""Queries a block: the scores of more take longer to be given their fresh memory than they save."""


def topk_rows(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return `(columns int64 [B, k], scores float32 [B, k])` of each row's k best, ties by column.

    A score of -inf is no result: where fewer than k are left, columns are -1 and scores -inf. The
    caller makes sure that no score is NaN.

    Wide rows take two passes. Columns are cut into chunks of 32, and only the k chunks with the
    greatest maxima are looked into. They hold the k best columns: each of them has an element at
    least as good as any outside, and among equal maxima the earlier chunk is taken, whose columns
    are the smaller ones.
    """
    if k < 1:
        raise DataError(f"a list of {k} items was asked for; it must hold at least 1")
    scores = scores.detach().float()
    width = scores.shape[1]
    if k * CHUNK * 2 >= width:
        columns = _largest(scores, min(k, width))
    else:
        columns = _largest_of_chunks(scores, k)
    best, order = scores.gather(1, columns).sort(dim=1, descending=True, stable=True)
    columns = columns.gather(1, order).masked_fill_(best == -torch.inf, -1)
    missing = (0, k - columns.shape[1])
    pad = torch.nn.functional.pad
    return pad(columns, missing, value=-1), pad(best, missing, value=-torch.inf)


def _largest_of_chunks(scores: Tensor, k: int) -> Tensor:
    n_chunks = scores.shape[1] // CHUNK
    body = scores[:, : n_chunks * CHUNK].view(len(scores), n_chunks, CHUNK)
    chunks = _largest(body.amax(2), k)  # [B, k]
    rows = torch.arange(len(scores), device=scores.device)[:, None]
    tail = scores[:, n_chunks * CHUNK :]  # always looked into: [B, < 32]
    inside = torch.cat([body[rows, chunks].flatten(1), tail], dim=1)  # [B, k * 32 + tail]
    place = _largest(inside, k)
    chunk = torch.nn.functional.pad(chunks, (0, 1), value=n_chunks).gather(1, place // CHUNK)
    return chunk * CHUNK + place % CHUNK


def _largest(scores: Tensor, k: int) -> Tensor:
    """Return the columns of each row's k largest scores, ascending; ties prefer smaller columns.

    On the CPU NumPy's vectorised partition finds the k-th score, ten times faster than torch.topk.
    """
    if scores.device.type != "cpu":
        return _largest_by_key(scores, k)
    values = scores.numpy()
    rows, width = values.shape
    if k == width:
        return torch.arange(k).expand(rows, k)
    limit = np.partition(values, width - k, axis=1)[:, width - k, None]
    keep = values >= limit
    if np.count_nonzero(keep) > rows * k:  # more scores equal the k-th than there is room for
        above = values > limit
        equal = keep & ~above
        room = k - np.count_nonzero(above, axis=1)[:, None]
        keep = above | (equal & (np.cumsum(equal, axis=1, dtype=np.int32) <= room))
    return torch.from_numpy(np.flatnonzero(keep).reshape(rows, k) % width)


def _largest_by_key(scores: Tensor, k: int) -> Tensor:
    """Do the same on a GPU: score and column are packed into one integer, so all keys differ."""
    width = scores.shape[1]
    bits = (scores + 0.0).view(torch.int32)  # + 0.0 turns -0.0 into 0.0, which it equals
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # integers in the order of the floats
    backward = torch.arange(width - 1, -1, -1, device=scores.device)
    keys = (ordered.to(torch.int64) << 32) | backward
    best = keys.topk(k, dim=1).values
    return (width - 1 - (best & 0xFFFFFFFF)).sort(dim=1).values


@torch.no_grad()
def exact_topk(
    queries: Tensor,
    table: Tensor,
    k: int,
    exclusion: Exclusion | None = None,
    histories: Histories | None = None,
    *,
    user_block: int | None = None,
    item_block: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return `(items int64 [B, k], scores float32 [B, k])`, the k best permitted of each query.

    Lists are full whenever k items are permitted; otherwise the rest is -1 with score -inf. Several
    blocks of queries are shared among as many threads as torch may use.

    Args:
        queries: float [B, D].
        table: float [n_items + 1, D]; row 0 is PAD and never returned.
        k: length of the lists.
        exclusion: what is forbidden; only PAD by default.
        histories: B histories, needed when `exclusion.seen`.
        user_block: queries a block; by default up to 64, fewer for large catalogues.
        item_block: items a block; by default two million, so that a block takes at most 128 MiB.

    Raises:
        DataError: queries or table hold NaN or infinities, or histories are missing or too few.
    """
    exclusion = exclusion or Exclusion(seen=False)
    histories = _check_inputs(queries, table, exclusion, histories)
    columns = exclusion.candidates(len(table) - 1)
    if columns is not None:  # a short catalogue of its own; `columns` translates back
        columns = np.concatenate([[PAD], columns])
        table = table[torch.from_numpy(columns).to(table.device)]
    slab = min(item_block or BLOCK_SCORES // 16, len(table))
    step = user_block or block_rows(slab, QUERIES)
    blocks = [slice(at, at + step) for at in range(0, len(queries), step)]
    workers = block_workers(len(blocks), queries.device)
    buffers = [queries.new_empty(min(step, len(queries)), slab) for _ in range(workers)]

    def search(part: slice) -> tuple[Tensor, Tensor]:
        buffer = buffers.pop()
        pairs = _closed_pairs(exclusion, histories[part], columns, len(table) - 1)
        blocked = exclusion.blocked if columns is None else exclusion.blocked[:0]
        found = _search_slabs(queries[part], table, k, pairs, blocked, buffer)
        buffers.append(buffer)
        return found

    return _join(list(map_blocks(search, blocks, workers)), columns, k, queries.device)


def _search_slabs(
    queries: Tensor,
    table: Tensor,
    k: int,
    pairs: tuple[Int64, Int64],
    blocked: Int64,
    buffer: Tensor,
) -> tuple[Tensor, Tensor]:
    """Score one block of queries slab by slab of `buffer`'s width, keeping the k best columns."""
    found: tuple[Tensor, Tensor] | None = None
    slab = buffer.shape[1]
    for low in range(0, len(table), slab):
        items = table[low : low + slab]
        scores = multiply(queries, items, buffer[: len(queries), : len(items)])
        _close(scores, low, pairs, blocked)
        found = _merge(found, topk_rows(scores, k), low, k)
    if found is None:
        raise DataError("the item table is empty; it needs at least the row of PAD")
    return found


def check_finite(vectors: Tensor, name: str) -> None:
    """Raise `DataError` if a matrix [N, D] holds NaN or infinities, naming the first such row."""
    if bool(torch.isfinite(vectors.sum())):  # a sum that is finite had nothing else in it
        return
    rows = torch.isfinite(vectors).all(dim=1)
    if not bool(rows.all()):
        first = int((~rows).nonzero()[0, 0])
        raise DataError(
            f"{name}: {int((~rows).sum())} of {len(rows)} rows hold NaN or infinity, the first is "
            f"row {first}; the model that made them has diverged"
        )


def _check_inputs(
    queries: Tensor, table: Tensor, exclusion: Exclusion, histories: Histories | None
) -> Histories:
    check_finite(queries, "queries")
    check_finite(table[1:], "item vectors (row 0 is item 1)")
    if histories is None:
        if exclusion.seen:
            raise DataError("exact_topk: excluding seen items needs the histories")
        none = np.zeros(len(queries), dtype=np.int64)
        return Histories(none[:0], none, none)
    if len(histories) != len(queries):
        raise DataError(f"exact_topk: {len(queries)} queries, but {len(histories)} histories")
    return histories


def _closed_pairs(
    exclusion: Exclusion, histories: Histories, columns: Int64 | None, last: int
) -> tuple[Int64, Int64]:
    """Return `(row, column)` of the seen items, in the numbering of the scored table."""
    rows, seen = exclusion.seen_pairs(histories)
    if columns is None:
        check_history_items(seen, last)
        return rows, seen
    place = np.searchsorted(columns, seen).clip(max=last)
    known = columns[place] == seen
    return rows[known], place[known]


def _close(scores: Tensor, low: int, pairs: tuple[Int64, Int64], blocked: Int64) -> None:
    """Set forbidden scores of the columns `low : low + width` to -inf."""
    rows, columns = pairs
    here = (columns >= low) & (columns < low + scores.shape[1])
    row, column = torch.from_numpy(rows[here]), torch.from_numpy(columns[here] - low)
    scores[row.to(scores.device), column.to(scores.device)] = -torch.inf
    inside = blocked[(blocked >= low) & (blocked < low + scores.shape[1])] - low
    if len(inside):
        scores[:, torch.from_numpy(inside).to(scores.device)] = -torch.inf
    if low == 0:
        scores[:, PAD] = -torch.inf


def _merge(
    found: tuple[Tensor, Tensor] | None, new: tuple[Tensor, Tensor], low: int, k: int
) -> tuple[Tensor, Tensor]:
    """Merge the lists of the next columns into those of the columns before them."""
    columns, scores = new
    columns = torch.where(columns < 0, -1, columns + low)
    if found is None:
        return columns, scores
    both = torch.cat([found[1], scores], dim=1)  # [B, 2k]; on ties earlier columns come first
    place, best = topk_rows(both, k)
    items = torch.cat([found[0], columns], dim=1).gather(1, place.clamp(min=0))
    return torch.where(place < 0, -1, items), best


def _join(
    parts: list[tuple[Tensor, Tensor]], columns: Int64 | None, k: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    if not parts:
        empty = torch.empty(0, k, device=device)
        return empty.long(), empty
    items = torch.cat([part[0] for part in parts])
    if columns is not None:
        names = torch.from_numpy(columns).to(device)
        items = torch.where(items < 0, -1, names[items.clamp(min=0)])
    return items, torch.cat([part[1] for part in parts])
