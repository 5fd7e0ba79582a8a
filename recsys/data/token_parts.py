"""A token store put together from others by what its items' texts are (their hashes)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.data.sequences import Int64
from recsys.data.token_store import Bools, TokenStore, UInt64


def store_of_hashes(
    hashes: UInt64, sources: Sequence[TokenStore], directory: Path | None = None
) -> TokenStore:
    """Return the store of items whose texts have these hashes, uint64 [N, 2], found in the sources.

    The texts are in the order in which the items first have them, so the result does not depend on
    where they were found. With a `directory` it is written there, source by source, and memory-mapped.
    A hash of (0, 0) is no text; every other one must be in a source.
    """
    items = _frame(hashes)
    wanted = items.filter(pl.col("a") != 0).unique(maintain_order=True)
    wanted = wanted.with_columns(pl.int_range(1, pl.len() + 1, dtype=pl.Int32).alias("row"))
    rows = items.join(wanted, on=["a", "b"], how="left", maintain_order="left")["row"].fill_null(0)
    there = pl.concat(
        _frame(source.hashes).with_columns(
            pl.lit(i).alias("source"), pl.int_range(pl.len(), dtype=pl.Int64).alias("text")
        )
        for i, source in enumerate(sources)
    ).unique(["a", "b"], keep="first", maintain_order=True)
    found = wanted.join(there, on=["a", "b"], how="left", maintain_order="left")
    assert found["source"].null_count() == 0, "a text is in none of the sources"
    source, text = found["source"].to_numpy(), found["text"].to_numpy()

    lengths = np.zeros(len(text) + 1, dtype=np.int64)
    for i, one in enumerate(sources):
        lengths[1:][source == i] = np.diff(one.offsets)[text[source == i]]
    offsets = np.append(0, lengths.cumsum()).astype(np.int64)
    arrays: dict[str, Any] = {
        name: _allocate(directory, name, getattr(sources[0], name).dtype, int(offsets[-1]))
        for name in ("tokens", "types", "word_starts")
    }
    for i, one in enumerate(sources):
        mine = np.flatnonzero(source == i)
        to, come_from = _places(offsets[1:][mine], one.offsets[text[mine]], lengths[1:][mine])
        for name, array in arrays.items():
            array[to] = getattr(one, name)[come_from]
    store = replace(
        sources[0],
        offsets=offsets,
        hashes=np.concatenate([np.zeros((1, 2), dtype=np.uint64), _hashes(wanted)]),
        rows=np.append(np.int32(0), rows.to_numpy()).astype(np.int32),
        **arrays,
    )
    if directory is None:
        return store
    store.save(directory, there=tuple(arrays))
    return TokenStore.load(directory)


def first_of_each(hashes: UInt64, known: UInt64 | None) -> Bools:
    """Return which items are the first with their text, bool [N], no text and `known` ones aside."""
    frame = _frame(hashes)
    first = frame.select(pl.struct("a", "b").is_first_distinct() & (pl.col("a") != 0)).to_series()
    found: Bools = first.to_numpy()
    return found if known is None else found & ~those_among(hashes, known)


def those_among(hashes: UInt64, others: UInt64) -> Bools:
    """Return which hashes, uint64 [N, 2], are among others, bool [N]."""
    there = _frame(others).unique().with_columns(pl.lit(True).alias("there"))
    found = _frame(hashes).join(there, on=["a", "b"], how="left", maintain_order="left")["there"]
    return found.fill_null(False).to_numpy()


def _places(to: Int64, come_from: Int64, lengths: Int64) -> tuple[Int64, Int64]:
    """Return the places of stretches, one after another."""
    inside = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)
    return np.repeat(to, lengths) + inside, np.repeat(come_from, lengths) + inside


def _allocate(
    directory: Path | None, name: str, dtype: npt.DTypeLike, size: int
) -> npt.NDArray[Any]:
    if directory is None or size == 0:
        return np.empty(size, dtype=dtype)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.npy"
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(size,))


def _frame(hashes: UInt64) -> pl.DataFrame:
    return pl.DataFrame(
        {"a": np.ascontiguousarray(hashes[:, 0]), "b": np.ascontiguousarray(hashes[:, 1])}
    )


def _hashes(frame: pl.DataFrame) -> UInt64:
    return np.stack([frame["a"].to_numpy(), frame["b"].to_numpy()], axis=1).astype(np.uint64)


def merged(parts: Sequence[Path], directory: Path) -> TokenStore:
    """Write the stores of slices of a catalogue as one, memory-mapped; equal texts once."""
    sources = [TokenStore.load(part) for part in parts]
    hashes = np.concatenate([source.item_hashes()[1:] for source in sources])
    return store_of_hashes(hashes, sources, directory)


def shared_texts(store: TokenStore, other: TokenStore) -> Bools:
    """Return which texts of a store the other has too, bool [R - 1], the empty text aside."""
    return those_among(store.hashes[1:], other.hashes[1:])
