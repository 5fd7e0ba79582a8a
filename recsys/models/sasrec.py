"""SASRec: causal self-attention over the event sequence with a tied item table.

Source: Kang and McAuley 2018 (arXiv 1808.09781), by today's recipe: every place predicts what comes
after it (shifted targets), pre-norm or LiGR blocks instead of post-norm, any loss of `recsys.losses`
instead of one-negative BCE. Differences from the paper: sequences are packed several to a row; places
are counted from the oldest kept event; baskets may be sets (events of one basket share a place and
see one another, so that no order is invented among them); tables and linear maps alike are drawn with
standard deviation 0.02 and item vectors are not multiplied by sqrt(D); attention weights and the
inner layer of the feed-forward have no dropout.

Shapes: R rows, L places, D width, H heads, V items.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.config import SASRecConfig
from recsys.data.batches import SequenceBatch
from recsys.models.contract import EncoderModel
from recsys.models.generation import GenerationState, Windows
from recsys.models.item_table import TextItemTable, item_table
from recsys.models.key_cache import CachedState, shared_mask
from recsys.models.layers import LiGRBlock, PreNormBlock, causal_segment_mask, draw_weights
from recsys.models.order import mean_of_newest_basket, newest_places, order_of
from recsys.models.unit_rows import unit_rows


class SASRec(EncoderModel):
    """A causal transformer over item vectors; the same table embeds the history and is scored."""

    learns_by = "hidden"

    def __init__(self, config: SASRecConfig, n_items: int) -> None:
        super().__init__(n_items, config.width)
        self.max_length = config.max_length
        self.normalise = config.normalise
        self.temperature = config.training.loss.temperature
        self.reads_baskets = config.baskets == "set"
        self.item_table = item_table(config.text, n_items, config.width)
        self.position_table = (
            nn.Embedding(config.max_length, config.width) if config.positions == "learned" else None
        )
        block = LiGRBlock if config.block == "ligr" else PreNormBlock
        inner = round(config.ffn * config.width)
        self.blocks = nn.ModuleList(
            block(config.width, config.heads, inner, config.dropout) for _ in range(config.blocks)
        )
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)
        draw_weights(self)

    def hidden(self, batch: SequenceBatch) -> Tensor:
        """Return a query vector for every place, float [R, L, D]."""
        x, mask = self._embedded(batch)
        for block in self.blocks:
            x = block(x, mask)
        return self._finish(x)

    def _embedded(self, batch: SequenceBatch) -> tuple[Tensor, Tensor]:
        """Return what the first block reads, float [R, L, D], and the attention mask."""
        x = self.item_table(batch.items)  # [R, L, D]
        positions, mask = order_of(batch, self.reads_baskets)
        if self.position_table is not None:
            x = x + self.position_table(positions)
        return self.dropout(x), mask

    def _newest(self, batch: SequenceBatch) -> Tensor:
        """Return `hidden` at the newest place of each sequence, float [B, D].

        In the last block only these places ask and are finished: that is most of its work. A row of S
        sequences has S of them; where others have fewer, their rows are filled up with place 0.
        """
        x, mask = self._embedded(batch)
        *earlier, block = self._stack()
        for other in earlier:
            x = other(x, mask)
        row, slot, places = newest_places(batch)  # [B], [B], [R, S]
        every = torch.arange(len(x), device=x.device)[:, None]
        normed = block.norm1(x)
        attended = block.attention.ask(
            normed, normed[every, places], mask[every, 0, places]
        )  # [R, S, D]
        newest = self._finish(block.finish(x[every, places], attended))
        return newest[row, slot]

    def encode_sequences(self, batch: SequenceBatch) -> Tensor:
        """Return one vector per sequence, float [B, D]; an empty one gets `default_query`.

        With baskets as sets it is the mean over the places of the newest basket: which of them comes
        last is an accident.
        """
        if batch.items.numel() == 0:
            return self.default_query.expand(len(batch), -1)
        if not self.reads_baskets:
            return torch.where(batch.last[:, None] < 0, self.default_query, self._newest(batch))
        if batch.baskets is None:
            return super().encode_sequences(batch)  # which says that they are missing
        queries = mean_of_newest_basket(self.hidden(batch), batch)  # [B, D]
        queries = F.normalize(queries, dim=-1) if self.normalise else queries
        return torch.where(batch.last[:, None] < 0, self.default_query, queries)

    def encode_items(self, items: Tensor | None = None) -> Tensor:
        """Return rows of the item table, float [C, D]."""
        table = self.item_table.weight if items is None else self.item_table(items)
        return unit_rows(table) if self.normalise else table

    def encode_texts(self, vectors: Tensor) -> Tensor:
        """Return item vectors float [M, D] of new items by their text vectors [M, W]."""
        assert isinstance(self.item_table, TextItemTable)
        made = self.item_table.of_texts(vectors)
        return F.normalize(made, dim=-1) if self.normalise else made

    def start(self, batch: SequenceBatch, gap: float | None = None) -> GenerationState:
        """See `EncoderModel.start`. Keys and values of the histories are computed once, for all lists.

        Baskets as sets have no cache: whatever joins a basket changes its earlier places.
        """
        if self.reads_baskets:
            return super().start(batch, gap)
        windows = Windows.of_batch(batch)
        return self._begin(windows.items, windows.lengths)

    def step(self, state: GenerationState, items: Tensor) -> GenerationState:
        """See `EncoderModel.step`; only the new places are computed, while the window does not slide.

        Where it does, every place moves: the history's remaining part is computed once for all lists
        of a history, then the chosen items of each list.
        """
        if not isinstance(state, CachedState):
            return super().step(state, items)
        chosen = torch.cat([state.chosen, items[:, None]], dim=1)  # [B, S]
        if state.history.shape[1] + chosen.shape[1] <= self.max_length:
            return self._extend(state, chosen, items[:, None])
        chosen = chosen[:, -self.max_length :]
        room = self.max_length - chosen.shape[1]
        kept = Windows(state.history, state.lengths).newest(room)
        begun = self._begin(kept.items, kept.lengths, queried=False)
        return self._extend(begun.spread(state), chosen, chosen)

    def _begin(self, items: Tensor, lengths: Tensor, queried: bool = True) -> CachedState:
        """Encode histories int64 [N, L], filled up at the right, and keep their keys and values.

        Where nobody wants their own query, the last block's output is left out.
        """
        rows, length = items.shape
        places = torch.arange(length, device=items.device)
        inside = places < lengths[:, None]  # [N, L]
        x, past = self._embed(items, places), []
        mask = causal_segment_mask(inside.long())
        query = self.default_query.expand(rows, -1)
        for block in self._stack():
            q, k, v = block.attention.project(block.norm1(x))
            past += [k, v]
            if len(past) < 2 * len(self.blocks):
                x = block.finish(x, block.attention.attend(q, k, v, mask))
            elif length and queried:  # of the last block only the newest place is wanted
                at = torch.arange(rows, device=items.device), (lengths - 1).clamp(min=0)
                q, mask = (y.transpose(1, 2)[at][:, :, None] for y in (q, mask))  # [N, H, 1, ...]
                x = block.finish(x[at][:, None], block.attention.attend(q, k, v, mask))
                query = torch.where(lengths[:, None] > 0, self._finish(x[:, 0]), query)  # [N, D]
        return CachedState.of_histories(query, items, lengths, past)

    def _extend(self, state: CachedState, chosen: Tensor, new: Tensor) -> CachedState:
        """Compute the newest places `new` int64 [B, T] of the lists, whose items are `chosen` [B, S]."""
        done = chosen.shape[1] - new.shape[1]
        places = torch.arange(done, chosen.shape[1], device=new.device)
        x = self._embed(new, state.lengths.repeat_interleave(state.lists)[:, None] + places)
        mask, own = shared_mask(state, new.shape[1]), []
        for i, block in enumerate(self._stack()):
            q, k, v = block.attention.project(block.norm1(x))  # [B, H, T, D / H]
            keys, values = state.grown(2 * i, k), state.grown(2 * i + 1, v)
            own += [keys, values]
            if i + 1 == len(self.blocks):  # of the last block only the newest place is wanted
                mask, q, x = mask[:, :, q.shape[2] - 1 :: q.shape[2]], q[:, :, -1:], x[:, -1:]
            attended = block.attention.attend(
                state.by_history(q),
                state.joined(2 * i, keys),
                state.joined(2 * i + 1, values),
                mask,
            )  # [N, lists * T, D]
            x = block.finish(x, attended.reshape(x.shape))
        return state.extended(self._finish(x[:, -1]), chosen, own)

    def _stack(self) -> Iterator[LiGRBlock | PreNormBlock]:
        for block in self.blocks:
            assert isinstance(block, LiGRBlock | PreNormBlock)
            yield block

    def _embed(self, items: Tensor, places: Tensor) -> Tensor:
        x: Tensor = self.item_table(items)
        return x if self.position_table is None else x + self.position_table(places)

    def _finish(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return F.normalize(x, dim=-1) if self.normalise else x
