"""Exact top-k, in blocks: the best items by inner product, in bounded memory.

Order is always: score descending, equal scores by smaller item index.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
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

Float32 = npt.NDArray[np.float32]
CHUNK = 64
"""Columns that share one maximum in the first pass of `topk_rows`."""
TILE = 5120
"""Columns of one product where scores are laid out in tiles."""
QUERIES = 128
"""Queries a block: all items are read anew for each, but the scores of more leave the processor's cache."""


def topk_rows(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return `(columns int64 [B, k], scores float32 [B, k])` of each row's k best, ties by column.

    A score of -inf is no result: where fewer than k are left, columns are -1 and scores -inf. The
    caller makes sure that no score is NaN.

    Wide rows take two passes. Columns are cut into chunks of 64, and only the k chunks with the
    greatest maxima are looked into. They hold the k best columns: each of them has an element at
    least as good as any outside, and among equal maxima the earlier chunk is taken, whose columns
    are the smaller ones. In them, only what comes up to the k-th greatest maximum is sorted.
    """
    _check_length(k)
    scores = scores.detach().float()
    width = scores.shape[1]
    if k * CHUNK * 2 < width:
        n_chunks = width // CHUNK
        body = scores[:, : n_chunks * CHUNK].view(len(scores), n_chunks, CHUNK)
        tail = scores[:, n_chunks * CHUNK :]  # [B, < 64], a chunk of its own if it is there
        maxima = body.amax(2)
        if tail.shape[1]:
            maxima = torch.cat([maxima, tail.amax(1, keepdim=True)], dim=1)
            tail = torch.nn.functional.pad(tail, (0, CHUNK - tail.shape[1]), value=-torch.inf)
        rows = torch.arange(len(scores), device=scores.device)[:, None]

        def look_into(chunks: Tensor) -> Tensor:
            inside = body[rows, chunks.clamp(max=n_chunks - 1)]  # [B, k, 64]
            if tail.shape[1]:
                inside[chunks == n_chunks] = tail[rows.expand_as(chunks)[chunks == n_chunks]]
            return inside

        return best_of_chunks(maxima, look_into, k)
    columns = _largest(scores, min(k, width))
    best, order = scores.gather(1, columns).sort(dim=1, descending=True, stable=True)
    columns = columns.gather(1, order).masked_fill_(best == -torch.inf, -1)
    missing = (0, k - columns.shape[1])
    pad = torch.nn.functional.pad
    return pad(columns, missing, value=-1), pad(best, missing, value=-torch.inf)


def _check_length(k: int) -> None:
    if k < 1:
        raise DataError(f"a list of {k} items was asked for; it must hold at least 1")


def best_of_chunks(
    maxima: Tensor, look_into: Callable[[Tensor], Tensor], k: int
) -> tuple[Tensor, Tensor]:
    """Return what `topk_rows` does, from the maxima [B, n_chunks] of chunks of columns.

    `look_into` returns the scores [B, k, 64] of the chunks int64 [B, k], ascending.
    """
    chunks = _largest(maxima, k)  # [B, k]
    limit = maxima.gather(1, chunks).amin(1)  # [B] the k-th greatest maximum
    inside = look_into(chunks).flatten(1)  # [B, k * 64]
    if maxima.device.type != "cpu":
        places = _largest(inside, k)
        best, order = inside.gather(1, places).sort(dim=1, descending=True, stable=True)
        places = places.gather(1, order)
    else:
        found = _best_from(limit.numpy(), inside.numpy(), k)
        places, best = torch.from_numpy(found[0]), torch.from_numpy(found[1])
    columns = chunks.gather(1, places // CHUNK) * CHUNK + places % CHUNK
    return columns.masked_fill_(best == -torch.inf, -1), best


def _best_from(limit: Float32, values: Float32, k: int) -> tuple[Int64, Float32]:
    """Return the places and values of each row's k best, best first, ties by place.

    At least k values of every row come up to its limit, most of them hardly more.
    """
    rows, width = values.shape
    flat = np.flatnonzero(values >= limit[:, None])
    row = flat // width
    number = np.bincount(row, minlength=rows)
    some = np.full((rows, int(number.max(initial=0))), -np.inf, dtype=np.float32)
    places = np.zeros(some.shape, dtype=np.int64)
    at = np.arange(len(flat)) - np.repeat(np.cumsum(number) - number, number)
    some[row, at], places[row, at] = values.ravel()[flat], flat % width
    order = np.argsort(-some, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(places, order, axis=1), np.take_along_axis(some, order, axis=1)


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
    _check_length(k)
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
    size = min(step, len(queries)) * tiles_width(slab)
    buffers = [queries.new_empty(size) for _ in range(workers)]

    def search(part: slice) -> tuple[Tensor, Tensor]:
        buffer = buffers.pop()
        pairs = _closed_pairs(exclusion, histories[part], columns, len(table) - 1)
        blocked = exclusion.blocked if columns is None else exclusion.blocked[:0]
        found = _search_slabs(queries[part], table, k, (*pairs, blocked), slab, buffer)
        buffers.append(buffer)
        return found

    return _join(list(map_blocks(search, blocks, workers)), columns, k, queries.device)


ClosedColumns = tuple[Int64, Int64, Int64]
"""Rows and columns of what is closed to single queries, and columns closed to all."""


def _search_slabs(
    queries: Tensor, table: Tensor, k: int, closed: ClosedColumns, slab: int, buffer: Tensor
) -> tuple[Tensor, Tensor]:
    """Score one block of queries slab by slab of items, keeping the k best columns."""
    found: tuple[Tensor, Tensor] | None = None
    for low in range(0, len(table), slab):
        items = table[low : low + slab]
        here = _in_slab(closed, low, len(items))
        if queries.device.type == "cpu" and k * CHUNK * 2 < len(items):
            best = best_of_tiles(queries, items, k, here, buffer)
        else:
            scores = buffer[: len(queries) * len(items)].view(len(queries), len(items))
            rows, columns, blocked = (torch.from_numpy(x).to(scores.device) for x in here)
            multiply(queries, items, scores)
            scores[rows, columns] = -torch.inf
            scores[:, blocked] = -torch.inf
            best = topk_rows(scores, k)
        found = _merge(found, best, low, k)
    if found is None:
        raise DataError("the item table is empty; it needs at least the row of PAD")
    return found


def best_of_tiles(
    queries: Tensor,
    items: Tensor,
    k: int,
    closed: ClosedColumns,
    buffer: Tensor,
    look: Callable[[Tensor], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the k best columns of `queries` [B, D] over `items` [N, D] on the CPU, as `topk_rows` does.

    Scores lie in tiles [N / S, B, S], each one product: written side by side and not into rows as long as
    the catalogue, they take 15 % less time.

    Args:
        queries: float [B, D].
        items: float [N, D].
        k: length of the lists.
        closed: what is left out; PAD is not by itself.
        buffer: of at least B times `tiles_width(N)` numbers.
        look: called with the scores [B, <= S] of each tile, nothing closed yet, while they are in the
            core's cache.
    """
    number, width, n_tiles = len(queries), len(items), tiles_width(len(items)) // TILE
    scores = buffer[: n_tiles * number * TILE].view(n_tiles, number, TILE)
    for tile in range(n_tiles):
        part = items[tile * TILE : (tile + 1) * TILE]
        product = torch.mm(queries, part.T, out=scores[tile, :, : len(part)])
        if look is not None:
            look(product)
    scores[-1, :, width - (n_tiles - 1) * TILE :] = -torch.inf
    rows, columns, blocked = map(torch.from_numpy, closed)
    scores[columns // TILE, rows, columns % TILE] = -torch.inf
    scores[blocked // TILE, :, blocked % TILE] = -torch.inf
    if k * CHUNK * 2 >= width:  # a long list of a short catalogue
        return topk_rows(scores.transpose(0, 1).reshape(number, -1)[:, :width], k)
    chunked = scores.view(n_tiles, number, TILE // CHUNK, CHUNK)
    maxima = chunked.amax(3).transpose(0, 1).reshape(number, -1)  # [B, N / 64]
    every, each = torch.arange(number)[:, None], TILE // CHUNK
    return best_of_chunks(maxima, lambda some: chunked[some // each, every, some % each], k)


def tiles_width(width: int) -> int:
    """Return the columns of whole tiles that hold so many."""
    return -(-width // TILE) * TILE


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


def _in_slab(closed: ClosedColumns, low: int, width: int) -> ClosedColumns:
    """Return what is closed among the columns `low : low + width`, counted from there; so is PAD."""
    rows, columns, blocked = closed
    here = (columns >= low) & (columns < low + width)
    inside = blocked[(blocked >= low) & (blocked < low + width)] - low
    if low == 0:
        inside = np.append(inside, PAD)
    return rows[here], columns[here] - low, inside


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
