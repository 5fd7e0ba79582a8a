"""Sequence-to-sequence embeddings of playlists, which also continue them.

Papreja, Venkateswara and Panchanathan 2019 (arXiv 1907.01098): a list is read by a recurrent encoder,
whose state is its vector z, and written by a decoder from z (and, with attention, from the encoder's
places). What differs, or was not published: cells and sizes are ours; the output table is the input
table, so that the decoder's query is an inner product with song vectors and one index of them serves
all; the decoder can also be learned to write the rest of a list that was cut, from the vector of its
first part; a transformer may take the recurrent cells' place; and attention can be left out, because
a decoder that sees every place of the list has little need of z.

The vector z is `embed`'s answer. As a next-item model it reads a history, begins to write with its
newest song, and the first query is asked for what follows. Lists are written by the decoder: the
history is read once, and what was chosen is the decoder's own memory. So the second song of a list is
judged given the first as the decoder learned it, which is not the same as if the history had been
read anew with it.

Shapes: B lists, L places, T steps, D song width, H hidden, V songs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recsys.config.playlists import Seq2SeqConfig
from recsys.data.batches import SequenceBatch
from recsys.models.contract import EncoderModel
from recsys.models.generation import GenerationState, Windows
from recsys.models.playlists.contract import compact
from recsys.models.playlists.decoders import (
    Cache,
    DecoderCore,
    Reader,
    RecurrentCore,
    TransformerCore,
)
from recsys.models.playlists.encoders import ListEncoder, RecurrentEncoder, TransformerEncoder
from recsys.models.prefixes import prefixes, real_places, spread
from recsys.schema import PAD


@dataclass(frozen=True)
class WritingState(GenerationState):
    """Where B lists stand that a decoder writes.

    Attributes:
        memory: float [B, L, H] of the history's places.
        lengths: int64 [B].
        z: float [B, H], the history's vector.
        cache: what the decoder remembers.
    """

    memory: Tensor
    lengths: Tensor
    z: Tensor
    cache: Cache

    def select(self, rows: Tensor) -> WritingState:
        """See `GenerationState.select`."""
        return WritingState(
            self.query[rows],
            self.memory[rows],
            self.lengths[rows],
            self.z[rows],
            tuple(part[rows] for part in self.cache),
        )


class Seq2Seq(EncoderModel):
    """An encoder, a decoder, and one table of songs for what is read and what is written."""

    def __init__(self, config: Seq2SeqConfig, n_items: int) -> None:
        super().__init__(n_items, config.width)
        self.max_length = config.max_length
        self._hidden = config.hidden
        self.temperature = config.training.loss.temperature
        self.task = config.task
        self.chosen_by_validation = config.task != "reconstruct"
        self.item_table = nn.Embedding(n_items + 1, config.width, padding_idx=PAD)
        self.begin = nn.Parameter(torch.zeros(config.width))
        """What a list that is written from nothing begins with."""
        self.end = nn.Parameter(torch.zeros(config.width))
        """As an item of the output: the list is over."""
        self.dropout = nn.Dropout(config.dropout)
        self.encoder = _encoder(config)
        self.core = _core(config)
        self.reader = Reader(config.hidden, config.width, attention=config.attention)
        for vector in (self.item_table.weight, self.begin, self.end):
            nn.init.normal_(vector, std=config.width**-0.5)
        with torch.no_grad():
            self.item_table.weight[PAD].zero_()
        self.item_table.weight.requires_grad_(config.learn_songs)

    @property
    def embedding_width(self) -> int:
        """Size of a list's vector (H)."""
        return self._hidden

    def embed_lists(self, batch: SequenceBatch) -> Tensor:
        """Return the vectors of a batch's lists, float [B, H]."""
        windows = Windows.of_batch(batch)
        return self.read(windows.items, windows.lengths)[1]

    def embed(self, items: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the vectors of lists, float [B, H]; see `Embedder`."""
        return self.read(*compact(items, mask, self.max_length))[1]

    def read(self, items: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return `(memory [B, L, H], z [B, H])` of lists int64 [B, L], 0 behind their ends."""
        memory, z = self.encoder(self.dropout(self.item_table(items)), lengths)
        return memory, z

    def write(self, items: Tensor, lengths: Tensor, inputs: Tensor) -> Tensor:
        """Return the queries of every step, float [B, T, D], the songs before it being given.

        Args:
            items: int64 [B, L], the lists that are read; 0 behind their ends.
            lengths: int64 [B].
            inputs: int64 [B, T], what was written before each step; 0 is the beginning.
        """
        memory, z = self.read(items, lengths)
        states, _ = self.core(self.dropout(self._inputs(inputs)), self.core.begin(z))
        queries: Tensor = self.reader(states, memory, lengths, z)
        return queries

    def outputs(self) -> Tensor:
        """Return the vectors of all that can be written, float [V + 2, D]: songs 0..V, then the end."""
        return torch.cat([self.item_table.weight, self.end[None]])

    def encode_items(self, items: Tensor | None = None) -> Tensor:
        """Return rows of the song table, float [C, D]."""
        return self.item_table.weight if items is None else self.item_table(items)

    def encode_sequences(self, batch: SequenceBatch) -> Tensor:
        """Return the query of what follows each history, float [B, D]."""
        return self.start(batch).query

    def hidden(self, batch: SequenceBatch) -> Tensor:
        """Return the query after every place, float [R, L, D]; every place's history is read anew."""
        places = real_places(batch)
        items, mask = prefixes(batch, places)
        queries = self._begun(items, mask.sum(1)).query  # [T, D]
        return spread(queries, places, batch)

    def start(self, batch: SequenceBatch, gap: float | None = None) -> WritingState:
        """See `EncoderModel.start`. An empty history's query is `default_query`; what is written then
        begins as a list from nothing does.
        """
        windows = Windows.of_batch(batch)
        return self._begun(windows.items, windows.lengths)

    def step(self, state: GenerationState, items: Tensor) -> WritingState:
        """Return the state after the decoder wrote one more song of every list, int64 [B]."""
        assert isinstance(state, WritingState)
        songs = self.item_table(items)[:, None]  # [B, 1, D]
        states, cache = self.core(songs, state.cache)
        query = self.reader(states, state.memory, state.lengths, state.z)[:, 0]  # [B, D]
        return WritingState(query, state.memory, state.lengths, state.z, cache)

    def _begun(self, items: Tensor, lengths: Tensor) -> WritingState:
        """Return the state of lists that are to go on after histories int64 [B, L]."""
        memory, z = self.read(items, lengths)
        states, cache = self.core(self._inputs(newest(items, lengths)[:, None]), self.core.begin(z))
        query = self.reader(states, memory, lengths, z)[:, 0]  # [B, D]
        query = torch.where(lengths[:, None] > 0, query, self.default_query)
        return WritingState(query, memory, lengths, z, cache)

    def _inputs(self, items: Tensor) -> Tensor:
        """Return the vectors of what was written, float [B, T, D]; 0 is the beginning."""
        return torch.where((items == PAD)[:, :, None], self.begin, self.item_table(items))


def newest(items: Tensor, lengths: Tensor) -> Tensor:
    """Return the last item of every list int64 [B, L], int64 [B]; 0 of an empty one."""
    if items.shape[1] == 0:
        return torch.zeros_like(lengths)
    return items.gather(1, (lengths - 1).clamp(min=0)[:, None])[:, 0]


def _encoder(config: Seq2SeqConfig) -> ListEncoder:
    match config.cell:
        case "transformer":
            return TransformerEncoder(
                config.width,
                config.hidden,
                config.layers,
                config.heads,
                config.max_length,
                config.dropout,
            )
        case "gru" | "lstm":
            return RecurrentEncoder(
                config.cell,
                config.width,
                config.hidden,
                config.layers,
                config.dropout,
                bidirectional=config.bidirectional,
            )


def _core(config: Seq2SeqConfig) -> DecoderCore:
    sizes = (config.width, config.hidden, config.layers)
    match config.cell:
        case "transformer":
            return TransformerCore(*sizes, config.heads, config.max_length + 1, config.dropout)
        case "gru" | "lstm":
            return RecurrentCore(config.cell, *sizes, config.dropout)
