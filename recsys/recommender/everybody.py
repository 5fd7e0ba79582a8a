"""Lists of all users of a bundle, block by block: the same as asking one by one, without the asking.

Nothing is translated for each user: histories are views into the bundle's arrays, and what was found
becomes columns at once. Memory is bounded by a block, whatever the number of users.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys.bundle import Bundle
from recsys.data.batches import pack_histories
from recsys.data.sequences import Int64, SequenceStore
from recsys.errors import DataError
from recsys.models import EncoderModel
from recsys.recommender.requests import EMPTY_HISTORY
from recsys.retrieval import Exclusion, Histories, topk_rows
from recsys.retrieval.index import ExactIndex
from recsys.retrieval.rescore import search_rescored
from recsys.retrieval.topk import exact_topk

BLOCK = 1024
"""Users of one search and one table."""
TOGETHER = 128
"""Users of one model call: what it computes on the way then stays in the core's cache."""


@dataclass(frozen=True)
class _Users:
    """The parts of a bundle that all of its users need."""

    ids: pl.Series
    recent: SequenceStore
    seen: SequenceStore


def lists_of_everybody(
    bundle: Bundle, k: int, first: int = 0, last: int | None = None, block: int = BLOCK
) -> Iterator[pl.DataFrame]:
    """Yield the lists of users `first:last` of a bundle, in its order, `block` users at a time.

    A table has the columns `user_id, rank` (from 1)`, item_id, score, fallback, model_version`, one row
    an item, best first. What was seen is treated as the model was evaluated.

    Raises:
        DataError: k is below 1, or the bundle holds no users.
    """
    if k < 1:
        raise DataError(f"k is {k}; a list has at least 1 item")
    if bundle.user_ids is None or bundle.recent is None or bundle.seen is None:
        raise DataError(f"bundle {bundle.path} holds no users; publish with some recent_events")
    users = _Users(bundle.user_ids.ids, bundle.recent, bundle.seen)
    names = pl.concat([pl.Series([""]), bundle.item_ids.ids])
    table = None
    if isinstance(bundle.index, ExactIndex):
        table = bundle.index.vectors.contiguous()  # rows of their own, which blocks of items read
    end = len(users.ids) if last is None else min(last, len(users.ids))
    for at in range(first, end, block):
        rows = np.arange(at, min(at + block, end), dtype=np.int64)
        with torch.inference_mode():
            found = _found(bundle, users, rows, k, table)
        yield _frame(bundle, users, rows, names, *found)


def _found(
    bundle: Bundle, users: _Users, rows: Int64, k: int, table: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return `(items int64 [B, k], scores [B, k])` of some users, -1 where there is no item."""
    recent, seen, model = users.recent, users.seen, bundle.model
    start, end = recent.offsets[rows], recent.offsets[rows + 1]
    rule = Exclusion.from_setting(bundle.exclude)
    histories = Histories(seen.items, seen.offsets[rows], seen.offsets[rows + 1])
    k = min(k, model.n_items)
    if bundle.index is None or not isinstance(model, EncoderModel):
        batch = pack_histories(recent, start, end, model.max_length)
        return topk_rows(rule.mask_(model.score(batch).float().clone(), histories), k)
    queries = encode_histories(model, recent, start, end)
    if not model.is_inner_product:
        batch = pack_histories(recent, start, end, model.max_length)
        return search_rescored(bundle.index, model, batch, queries, k, rule, histories)
    if table is not None:
        return exact_topk(queries, table, k, rule, histories)
    return bundle.index.search(queries, k, rule, histories)


def encode_histories(
    model: EncoderModel, recent: SequenceStore, start: Int64, end: Int64
) -> Tensor:
    """Return the vectors of the histories `start:end` of a store, float32 [B, D], a part at a time."""
    parts = []
    for at in range(0, len(start), TOGETHER):
        some = slice(at, at + TOGETHER)
        batch = pack_histories(recent, start[some], end[some], model.max_length)
        parts.append(model.encode_sequences(batch).float())
    return torch.cat(parts)


def _frame(
    bundle: Bundle, users: _Users, rows: Int64, names: pl.Series, items: Tensor, scores: Tensor
) -> pl.DataFrame:
    """Return the lists as a table."""
    there = (items >= 0).numpy()
    row, place = np.nonzero(there)
    lengths = users.recent.offsets[rows + 1] - users.recent.offsets[rows]
    empty = pl.Series(lengths[row] == 0)
    return pl.DataFrame(
        {
            "user_id": users.ids.gather(rows[row]),
            "rank": (place + 1).astype(np.int32),
            "item_id": names.gather(items.numpy()[there]),
            "score": scores.numpy()[there],
        }
    ).with_columns(
        fallback=pl.when(empty).then(pl.lit(EMPTY_HISTORY)),
        model_version=pl.lit(f"{bundle.name}@{bundle.version}"),
    )
