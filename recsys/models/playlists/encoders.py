"""Encoders of lists: a memory of every place, and one vector of the whole.

Shapes: B lists, L places (0-filled behind a list's end), D song width, H hidden.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from recsys.models.layers import PreNormBlock


class ListEncoder(nn.Module, ABC):
    """Reads song vectors [B, L, D] of which each list has `lengths` [B]; behind its end nothing counts."""

    @abstractmethod
    def forward(self, songs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return `(memory [B, L, H], list vectors [B, H])`; an empty list has the vector zero."""


class RecurrentEncoder(ListEncoder):
    """A GRU or LSTM; its state after the last song, and read from the end its state after the first.

        base-seq2seq    z = forward state at the last song                            [B, H]
        bi-seq2seq      z = [that ; backward state at the first song], half of H each

    Of several layers the top one counts. Packed sequences make the backward direction begin at a list's
    own end, whatever padding follows.
    """

    def __init__(
        self,
        cell: Literal["gru", "lstm"],
        width: int,
        hidden: int,
        layers: int,
        dropout: float,
        *,
        bidirectional: bool,
    ) -> None:
        super().__init__()
        self.bidirectional = bidirectional
        self.each_way = hidden // 2 if bidirectional else hidden
        kind = nn.GRU if cell == "gru" else nn.LSTM
        self.rnn = kind(
            width,
            self.each_way,
            layers,
            batch_first=True,
            bidirectional=bidirectional,
            dropout=dropout if layers > 1 else 0.0,
        )

    def forward(self, songs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """See `ListEncoder.forward`."""
        rows, length = songs.shape[:2]
        size = self.each_way * (2 if self.bidirectional else 1)
        if rows == 0 or length == 0:
            return songs.new_zeros(rows, length, size), songs.new_zeros(rows, size)
        # An empty list is read as one song of zeros and dropped: packing knows no empty ones.
        packed = pack_padded_sequence(
            songs, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False
        )
        memory, _ = pad_packed_sequence(
            self.rnn(packed)[0], batch_first=True, total_length=length
        )  # [B, L, H]
        newest = (lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, self.each_way)
        z = memory[:, :, : self.each_way].gather(1, newest)[:, 0]
        if self.bidirectional:
            z = torch.cat([z, memory[:, 0, self.each_way :]], 1)  # [B, H]
        return memory, z * (lengths > 0)[:, None]


class TransformerEncoder(ListEncoder):
    """Places that see one another both ways; the list is the mean of what they become."""

    def __init__(
        self, width: int, hidden: int, layers: int, heads: int, longest: int, dropout: float
    ) -> None:
        super().__init__()
        self.enter = nn.Linear(width, hidden)
        self.positions = nn.Embedding(longest, hidden)
        self.blocks = nn.ModuleList(
            PreNormBlock(hidden, heads, 2 * hidden, dropout) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(hidden)
        nn.init.normal_(self.positions.weight, std=0.02)

    def forward(self, songs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """See `ListEncoder.forward`."""
        places = torch.arange(songs.shape[1], device=songs.device)
        inside = places < lengths[:, None]  # [B, L]
        x = self.enter(songs) + self.positions(places)  # [B, L, H]
        # Padding sees padding, so that no softmax is over nothing.
        mask = (inside[:, :, None] == inside[:, None, :])[:, None]  # [B, 1, L, L]
        for block in self.blocks:
            x = block(x, mask)
        memory = self.norm(x) * inside[:, :, None]
        return memory, memory.sum(1) / lengths.clamp(min=1)[:, None]
