"""Decoders of lists: from a list's vector and the songs written so far to what the next song is like.

    s_t = core(song written last, s_{t-1}),        from a state made of the list's vector z
    c_t = sum_j a_j m_j,   a = softmax_j(s_t . W m_j)            with attention, over the memory's real
                                                                 places (Luong et al. 2015, general)
    c_t = z                                                      without: all that is known passes z
    q_t = W_o tanh(W_c [c_t ; s_t])                              the query; a song's logit is q_t . song

Shapes: B lists, T steps, L places of the memory, D song width, H hidden.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from recsys.models.layers import PreNormBlock, causal_segment_mask

Cache = tuple[Tensor, ...]
"""What a core remembers between steps; every tensor has the lists first."""


class DecoderCore(nn.Module, ABC):
    """The part of a decoder that has a memory of what it has written."""

    @abstractmethod
    def begin(self, z: Tensor) -> Cache:
        """Return the memory before the first step, of list vectors [B, H]."""

    @abstractmethod
    def forward(self, songs: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """Return `(states [B, T, H], memory after them)` of T more songs [B, T, D]."""


class RecurrentCore(DecoderCore):
    """A GRU or LSTM whose first state is a linear map of the list's vector."""

    def __init__(
        self, cell: Literal["gru", "lstm"], width: int, hidden: int, layers: int, dropout: float
    ) -> None:
        super().__init__()
        self.layers, self.parts = layers, 1 if cell == "gru" else 2
        self.bridge = nn.Linear(hidden, self.parts * layers * hidden)
        kind = nn.GRU if cell == "gru" else nn.LSTM
        self.rnn = kind(
            width, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0
        )

    def begin(self, z: Tensor) -> Cache:
        """See `DecoderCore.begin`."""
        first = torch.tanh(self.bridge(z))
        return tuple(
            part.view(len(z), self.layers, z.shape[1]) for part in first.chunk(self.parts, 1)
        )

    def forward(self, songs: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """See `DecoderCore.forward`."""
        state = tuple(part.transpose(0, 1).contiguous() for part in cache)  # [layers, B, H]
        states, after = self.rnn(songs, state if self.parts == 2 else state[0])
        after = after if self.parts == 2 else (after,)
        return states, tuple(part.transpose(0, 1) for part in after)


class TransformerCore(DecoderCore):
    """Causal self-attention over what was written, with the list's vector added to every input.

    Its memory is the inputs themselves, which are read again at every step.
    """

    def __init__(
        self, width: int, hidden: int, layers: int, heads: int, longest: int, dropout: float
    ) -> None:
        super().__init__()
        self.longest = longest
        self.enter = nn.Linear(width, hidden)
        self.bridge = nn.Linear(hidden, hidden)
        self.positions = nn.Embedding(longest, hidden)
        self.blocks = nn.ModuleList(
            PreNormBlock(hidden, heads, 2 * hidden, dropout) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(hidden)
        nn.init.normal_(self.positions.weight, std=0.02)

    def begin(self, z: Tensor) -> Cache:
        """See `DecoderCore.begin`."""
        bridged: Tensor = self.bridge(z)
        return bridged, bridged.new_zeros(len(z), 0, self.enter.in_features)

    def forward(self, songs: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """See `DecoderCore.forward`; a place beyond the last known one counts as that."""
        bridged, before = cache
        written = torch.cat([before, songs], 1)  # [B, S, D]
        places = torch.arange(written.shape[1], device=songs.device).clamp(max=self.longest - 1)
        x = self.enter(written) + self.positions(places) + bridged[:, None]  # [B, S, H]
        mask = causal_segment_mask(torch.ones(written.shape[:2], device=songs.device))
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)[:, before.shape[1] :], (bridged, written)


class Reader(nn.Module):
    """Makes the query of a state: what it reads of the list, joined with it, in song width."""

    def __init__(self, hidden: int, width: int, *, attention: bool) -> None:
        super().__init__()
        self.keys = nn.Linear(hidden, hidden, bias=False) if attention else None
        self.join = nn.Linear(2 * hidden, hidden)
        self.out = nn.Linear(hidden, width, bias=False)

    def forward(self, states: Tensor, memory: Tensor, lengths: Tensor, z: Tensor) -> Tensor:
        """Return queries [B, T, D] of states [B, T, H] over a memory [B, L, H] and vectors z [B, H]."""
        read = (
            z[:, None].expand_as(states)
            if self.keys is None
            else self._attend(states, memory, lengths)
        )
        query: Tensor = self.out(torch.tanh(self.join(torch.cat([read, states], 2))))
        return query

    def _attend(self, states: Tensor, memory: Tensor, lengths: Tensor) -> Tensor:
        """Return what each state reads, [B, T, H]; of an empty list zero."""
        assert self.keys is not None
        if memory.shape[1] == 0:
            return torch.zeros_like(states)
        scores = torch.bmm(states, self.keys(memory).transpose(1, 2))  # [B, T, L]
        places = torch.arange(memory.shape[1], device=memory.device)
        empty = (lengths == 0)[:, None]
        seen = (places < lengths[:, None]) | empty  # no softmax is over nothing
        weights = scores.masked_fill(~seen[:, None], -torch.inf).softmax(2)
        return torch.bmm(weights, memory) * ~empty[:, None]
