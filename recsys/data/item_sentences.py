"""Histories as sentences: the tokens of their items, newest item first, CLS in front.

Source: Recformer (arXiv 2305.13731) and its public code. A history keeps its newest items, and its
sentence is cut hard, inside an item if need be, so that CLS and tokens are `max_tokens` at most. An item
is encoded as a history of itself alone.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.data.sequences import Int64
from recsys.data.token_store import TokenStore

PADDING_TYPE = 3


@dataclass(frozen=True)
class SentenceBatch:
    """B sentences, filled up at the right to the longest, L.

    Attributes:
        ids: int64 [B, L]; CLS, then tokens; `pad_id` is padding.
        item_positions: int64 [B, L]; 0 for CLS, k in the k-th newest item; padding has that of the last
            item that fits (`max_items`), which a mask makes harmless.
        types: int64 [B, L]; 0 for CLS, 1 in an attribute's name, 2 in its value, 3 for padding.
        word_starts: bool [B, L]; whether a word begins here; also at CLS.
        lengths: int64 [B]; CLS and tokens of each sentence, 1 for one without any.
    """

    ids: Tensor
    item_positions: Tensor
    types: Tensor
    word_starts: Tensor
    lengths: Tensor

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def real(self) -> Tensor:
        """Which places hold CLS or a token, bool [B, L]."""
        places = torch.arange(self.ids.shape[1], device=self.ids.device)
        return places < self.lengths[:, None]

    def select(self, rows: Tensor) -> SentenceBatch:
        """Return these sentences, int64 [B'], cut to the longest of them."""
        longest = int(self.lengths[rows].max()) if len(rows) else 0
        values = {f.name: getattr(self, f.name)[rows] for f in fields(self)}
        return SentenceBatch(**{n: v if v.ndim == 1 else v[:, :longest] for n, v in values.items()})

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> SentenceBatch:
        """Return the batch on another device."""
        return replace(
            self,
            **{
                f.name: getattr(self, f.name).to(device, non_blocking=non_blocking)
                for f in fields(self)
            },
        )


def history_sentences(
    store: TokenStore,
    items: npt.NDArray[np.integer],
    begin: Int64,
    end: Int64,
    *,
    max_items: int,
    max_tokens: int,
    item_tokens: int | None = None,
) -> SentenceBatch:
    """Return the sentences of histories `items[begin:end]`, oldest item first in each.

    Args:
        store: the tokens of the catalogue.
        items: integers [E], dense item indices; an item without text takes a position and no tokens.
        begin, end: int64 [B]; where each history lies in `items`; an empty one is CLS alone.
        max_items: newest items of a history that are read.
        max_tokens: longest sentence, CLS included.
        item_tokens: of every item so many tokens are read, its first ones; None for all.
    """
    kept = np.minimum(end - begin, max_items)  # [B]
    history = np.repeat(np.arange(len(kept)), kept)  # [M], items that are read
    age = np.arange(len(history)) - np.repeat(np.cumsum(kept) - kept, kept)  # 0 for the newest
    first, length = store.spans(items[end[history] - 1 - age])  # [M]
    length = length if item_tokens is None else length.clip(max=item_tokens)
    upto = np.cumsum(length)
    before = np.append(0, upto)[np.cumsum(kept) - kept]  # tokens of the histories before, [B]
    at = upto - length - before[history]  # where the item begins in its sentence, CLS aside, [M]
    length = np.clip(max_tokens - 1 - at, 0, length)
    lengths = 1 + np.bincount(history, length, minlength=len(kept)).astype(np.int64)
    return _gather(store, history, age, first, at, length, lengths, max_items)


def item_sentences(
    store: TokenStore,
    items: npt.NDArray[np.integer],
    *,
    max_items: int,
    max_tokens: int,
    item_tokens: int | None = None,
) -> SentenceBatch:
    """Return the sentences of single items, integers [B]; the same as histories of one item each."""
    begin = np.arange(len(items), dtype=np.int64)
    return history_sentences(
        store,
        items,
        begin,
        begin + 1,
        max_items=max_items,
        max_tokens=max_tokens,
        item_tokens=item_tokens,
    )


def _gather(
    store: TokenStore,
    history: Int64,
    age: Int64,
    first: Int64,
    at: Int64,
    length: Int64,
    lengths: Int64,
    max_items: int,
) -> SentenceBatch:
    """Copy the stretches `first:first + length` of the store to `1 + at` of their sentences."""
    shape = (len(lengths), int(lengths.max(initial=1)))
    piece = np.repeat(np.arange(len(length)), length)  # [T]
    inside = np.arange(len(piece)) - np.repeat(np.cumsum(length) - length, length)
    source = first[piece] + inside
    place = history[piece] * shape[1] + 1 + at[piece] + inside

    def filled(padding: int, cls: int, values: npt.NDArray[np.generic]) -> Tensor:
        out = np.full(shape, padding, dtype=np.int64)
        out[:, 0] = cls
        out.reshape(-1)[place] = values
        return torch.from_numpy(out)  # [B, L]

    return SentenceBatch(
        ids=filled(store.pad_id, store.cls_id, store.tokens[source]),
        item_positions=filled(max_items, 0, age[piece] + 1),
        types=filled(PADDING_TYPE, 0, store.types[source]),
        word_starts=filled(0, 1, store.word_starts[source]).bool(),
        lengths=torch.from_numpy(lengths),
    )
