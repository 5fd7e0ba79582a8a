"""Histories as tokens: CLS, then the sentences of the items, newest item first, cut to a length.

    ids             CLS  item 1 (newest) ...  item 2 ...      padding
    item positions  0    1  1  1  1           2  2  2         max_items
    types           0    1 (key), 2 (value)                   3

An item is encoded as a history of that one item. Source: Li et al. 2023 (arXiv 2305.13731).

Shapes: B sequences, K items of a history, L tokens, N items, T tokens of all items.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

PADDING_TYPE = 3


@dataclass(frozen=True)
class TokenBatch:
    """B sequences of tokens, padded at the right.

    Attributes:
        ids: int64 [B, L].
        item_positions: int64 [B, L]; 0 for CLS, k for the k-th newest item.
        types: int64 [B, L]; 0 CLS, 1 key, 2 value, 3 padding.
        lengths: int64 [B]; real tokens, CLS among them.
        word_starts: bool [B, L]; whether a word begins here (CLS and padding are words); only where asked.
    """

    ids: Tensor
    item_positions: Tensor
    types: Tensor
    lengths: Tensor
    word_starts: Tensor | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def real(self) -> Tensor:
        """Which places hold a token, bool [B, L]."""
        places = torch.arange(self.ids.shape[1], device=self.ids.device)
        return places < self.lengths[:, None]

    def select(self, rows: Tensor) -> TokenBatch:
        """Return these sequences, int64 [B'], cut to the longest of them."""
        longest = int(self.lengths[rows].max()) if len(rows) else 0
        parts = {
            f.name: value[rows] if value.ndim == 1 else value[rows, :longest]
            for f in fields(self)
            if (value := getattr(self, f.name)) is not None
        }
        return TokenBatch(**parts)


@dataclass(frozen=True)
class ItemTokens:
    """The sentences of a catalogue as flat tensors; row 0 (PAD) is empty.

    Attributes:
        tokens: int32 [T].
        types: uint8 [T]; 1 key, 2 value.
        offsets: int64 [N + 2]; item i owns `offsets[i]:offsets[i + 1]`.
        cls_id, pad_id: ids that frame a sequence.
        word_starts: bool [T], where words begin; None where nobody masks words.
    """

    tokens: Tensor
    types: Tensor
    offsets: Tensor
    cls_id: int
    pad_id: int
    word_starts: Tensor | None = None

    @property
    def n_items(self) -> int:
        """Items of the catalogue, PAD not counted."""
        return len(self.offsets) - 2

    def sequences(self, items: Tensor, max_tokens: int, max_items: int) -> TokenBatch:
        """Return histories as tokens.

        Args:
            items: int64 [B, K], newest first; PAD fills up and may stand anywhere, it has no tokens.
            max_tokens: a sequence is cut to so many, CLS included, also amid an item.
            max_items: and to its newest so many items.
        """
        items = items[:, :max_items]
        if items.shape[1] == 0:
            items = items.new_zeros(len(items), 1)
        counts = self.offsets[items + 1] - self.offsets[items]  # [B, K]
        ends = counts.cumsum(1)
        lengths = 1 + ends[:, -1].clamp(max=max_tokens - 1)  # [B]
        length = int(lengths.max()) if len(lengths) else 1
        # The place of a token among those of the items; the first column is CLS.
        places = torch.arange(length, device=items.device).expand(len(items), -1) - 1  # [B, L]
        which = torch.searchsorted(ends, places.clamp(min=0).contiguous(), right=True)
        which = which.clamp(max=items.shape[1] - 1)
        first = self.offsets[items] - (ends - counts)
        inside = (places >= 0) & (places < lengths[:, None] - 1)
        source = torch.where(inside, first.gather(1, which) + places, 0)  # [B, L]
        is_cls = places < 0

        def put(values: Tensor, cls: int, padding: int) -> Tensor:
            found = values[source].long() if len(values) else source
            return torch.where(inside, found, torch.where(is_cls, cls, padding))

        starts = self.word_starts
        return TokenBatch(
            ids=put(self.tokens, self.cls_id, self.pad_id),
            item_positions=torch.where(inside, which + 1, torch.where(is_cls, 0, max_items)),
            types=put(self.types, 0, PADDING_TYPE),
            lengths=lengths,
            word_starts=None if starts is None else put(starts, 1, 1).bool(),
        )

    def joined(self, more: ItemTokens) -> ItemTokens:
        """Return this catalogue with the items of another one behind its own: n_items + 1, ..."""
        both = self.word_starts is not None and more.word_starts is not None
        return ItemTokens(
            tokens=torch.cat([self.tokens, more.tokens]),
            types=torch.cat([self.types, more.types]),
            offsets=torch.cat([self.offsets, more.offsets[2:] + self.offsets[-1]]),
            cls_id=self.cls_id,
            pad_id=self.pad_id,
            word_starts=torch.cat([self.word_starts, more.word_starts]) if both else None,  # type: ignore[list-item]
        )
