"""UniRec: two time-aware branches, a global term, and rare items made of their neighbours.

Source: UniRec (CIKM 2024, arXiv 2406.18470) and its public code. One branch reads the calendar of every
event, one the gap since the event before; an item's score is the sum of both branches' products and of
a likeness to the whole history:

    score(i) = m_i.(z_C[:D] + z_V[:D]) + w glob(i)

Differences: sequences are packed several to a row, so places count from the oldest kept event, gaps are
those inside a sequence and the first is 0; attention mixes the two scores of a pair, not those of two
samples; the noise on scores is drawn in training only; the global term needs no user and no target
(`global_term.py`). The published logit has a product with the time of the target, too. It is the same
for all candidates, so it changes neither a ranking nor the softmax or BPR loss, and is left out.

Beside the published `block: mixture` there are SASRec's blocks, on the sum of item, position and time
vectors; with `fusion: sum` one encoder reads both times. What helps where hours are too coarse or rare
items have too few events are further switches: gaps on a logarithmic scale, attention that knows how
long ago an event was, how regular the gaps were, item biases, rare items read (and scored) as made of
their neighbours, neighbours that score (`neighbour_votes.py`).

Shapes: R rows, L places, D width, V items, K neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.config import UniRecConfig
from recsys.data.batches import SequenceBatch
from recsys.data.sequences import TrainingData
from recsys.errors import DataError
from recsys.models.contract import EncoderModel
from recsys.models.enhancement import ItemEnhancer
from recsys.models.global_term import history_part, newest_distinct, own_part
from recsys.models.item_table import TextItemTable, item_table
from recsys.models.layers import LiGRBlock, PreNormBlock, zero_padding
from recsys.models.mixture_attention import MixtureEncoder
from recsys.models.neighbour_votes import NeighbourVotes
from recsys.models.order import mean_of_newest_basket, order_of
from recsys.models.time_encoding import (
    CalendarEncoding,
    GapEncoding,
    TimeBias,
    UniformityEncoding,
)
from recsys.models.unit_rows import unit_rows


class UniRec(EncoderModel):
    """Encodes a history by up to two branches; each is trained to predict the next item by itself."""

    neighbours: Tensor  # int64 [V + 1, K]
    is_rare: Tensor  # bool [V + 1]
    injected: Tensor  # float []
    learns_by = "branches"

    def __init__(self, config: UniRecConfig, n_items: int) -> None:
        super().__init__(n_items, config.width + config.item_bias)
        self.config = config
        self.max_length = config.max_length
        self.temperature = config.training.loss.temperature
        self.reads_baskets = config.baskets == "set"
        self.votes: NeighbourVotes | None = None
        if config.votes is not None:
            sets = self.reads_baskets
            self.votes = NeighbourVotes(config.votes, n_items, baskets_as_sets=sets)
        timed = (config.calendar, config.interval, config.time_bias, config.uniformity)
        self.reads_times = any(timed) or (self.votes is not None and self.votes.reads_times)
        self.is_inner_product = not config.global_term and self.votes is None
        width = config.width
        self.item_table = item_table(config.text, n_items, width)
        self.item_bias = nn.Embedding(n_items + 1, 1) if config.item_bias else None
        self.position_table = nn.Embedding(config.max_length, width)
        self.calendar = (
            CalendarEncoding(config.calendar_features, width) if config.calendar else None
        )
        reference = config.mode == "reference"
        self.gaps = (
            GapEncoding(config.gaps, width, reference=reference) if config.interval else None
        )
        self.uniformity = UniformityEncoding(width) if config.uniformity else None
        self.time_bias = TimeBias(config.heads) if config.time_bias else None
        self.dropout = nn.Dropout(config.dropout)
        both = config.calendar and config.interval and config.fusion == "branches"
        own = both and config.separate_interval
        passes = 1 if own or not both else 2
        self.encoders = nn.ModuleList(_encoder(config, passes) for _ in range(1 + own))
        self.enhancer = ItemEnhancer(width) if config.inject_tail != "off" else None
        if self.enhancer is not None:
            kept = torch.zeros(n_items + 1, config.kept_neighbours, dtype=torch.int64)
            self.register_buffer("neighbours", kept)
            self.register_buffer("is_rare", torch.zeros(n_items + 1, dtype=torch.bool))
            self.register_buffer("injected", torch.zeros(()))
        self.init_weights()

    def init_weights(self) -> None:
        """Draw tables as Glorot does for a mixture, and from N(0, 0.02^2) for SASRec's blocks.

        Linear maps draw their own; the PAD vector and biases of items are zero.
        """
        tables = [m for m in self.item_table.modules() if isinstance(m, nn.Embedding)]
        tables.append(self.position_table)
        tables += [part.table for part in (self.gaps, self.uniformity) if part is not None]
        for table in tables:
            if self.config.block == "mixture":
                nn.init.xavier_uniform_(table.weight)
            else:
                nn.init.normal_(table.weight, std=0.02)
        zero_padding(self.item_table)
        if self.item_bias is not None:
            nn.init.zeros_(self.item_bias.weight)

    def branches(self, batch: SequenceBatch) -> list[Tensor]:
        """Return the encoding of every place by each branch, float [R, L, 2 D], or [R, L, D] with
        SASRec's blocks; the calendar's comes first.
        """
        items = self._read(batch.items)  # [R, L, D]
        positions, mask = order_of(batch, self.reads_baskets)
        places = self.position_table(positions)  # [R, L, D]
        calendar, gaps = self._times(batch)
        if self.time_bias is not None:
            mask = self.time_bias(_known_times(batch), mask)  # float [R, H, L, L]
        if self.config.block == "mixture":
            real = (batch.segments > 0).to(items.dtype)[..., None]  # [R, L, 1]
            return self._mixtures(items, places, calendar, gaps, mask, real)
        found = [time for time in (calendar, gaps) if time is not None]
        if self.config.fusion == "sum" or not found:
            found = [torch.stack(found).sum(0) if found else torch.zeros_like(items)]
        streams = [self.dropout(items + places + time) for time in found]  # each [R, L, D]
        return [self._encoder(i)(x, mask) for i, x in enumerate(streams)]

    def _mixtures(
        self,
        items: Tensor,
        places: Tensor,
        calendar: Tensor | None,
        gaps: Tensor | None,
        mask: Tensor,
        real: Tensor,
    ) -> list[Tensor]:
        """Return the published branches' encodings, each float [R, L, 2 D]."""
        scale = self.config.width**0.5
        shared = calendar if self.config.interval_context == "calendar" else None
        found: list[Tensor] = []
        for time in (calendar, gaps):
            if time is None:
                continue
            stream = torch.cat([scale * items + places, scale * time + places], dim=-1)
            context = time if shared is None else shared
            which = 0 if len(self.encoders) > 1 else len(found)
            encoder = self._encoder(len(found))
            found.append(encoder(self.dropout(stream), context, mask, real, which))
        return found

    def _encoder(self, branch: int) -> nn.Module:
        return self.encoders[min(branch, len(self.encoders) - 1)]

    def _times(self, batch: SequenceBatch) -> tuple[Tensor | None, Tensor | None]:
        """Return the calendar's and the gaps' vectors [R, L, D], None for a part that is off.

        How regular the gaps were is added to both, or stands for the gaps where both are off.
        """
        baskets = batch.baskets if self.reads_baskets else None
        calendar = gaps = None
        if self.calendar is not None:
            calendar = self.dropout(self.calendar(_known_times(batch)))
        if self.gaps is not None:
            gaps = self.gaps(_known_times(batch), batch.segments, baskets)
        if self.uniformity is None:
            return calendar, gaps
        regular = self.uniformity(_known_times(batch), batch.segments, baskets)
        if calendar is None and gaps is None:
            return None, regular
        return _sum(calendar, regular), _sum(gaps, regular)

    def queries_of(self, branch: Tensor) -> Tensor:
        """Return a branch's query vectors float [..., width] of its encodings; times do not rank."""
        query = branch[..., : self.config.width]
        query = F.normalize(query, dim=-1) if self.config.normalise else query
        return query if self.item_bias is None else F.pad(query, (0, 1), value=1.0)

    def hidden(self, batch: SequenceBatch) -> Tensor:
        """Return the sum of the branches' query vectors for every place, float [R, L, width]."""
        return torch.stack([self.queries_of(branch) for branch in self.branches(batch)]).sum(0)

    def encode_sequences(self, batch: SequenceBatch) -> Tensor:
        """Return one vector per sequence, float [B, width]; an empty one gets `default_query`.

        It has the history's part of the global term. With baskets as sets the branches' part is the
        mean over the places of the newest basket.
        """
        if batch.items.numel() == 0 or not (self.reads_baskets or self.config.global_term):
            return super().encode_sequences(batch)
        if self.reads_baskets:
            queries = mean_of_newest_basket(self.hidden(batch), batch)  # [B, width]
        else:
            queries = super().encode_sequences(batch)  # [B, width]
        if self.config.global_term:
            table = self._vectors()
            events, distinct = self.global_items(batch)
            whole = self.config.global_weight * history_part(events, distinct, table)  # [B, D]
            queries = queries + F.pad(whole, (0, self.width - whole.shape[1]))
        return torch.where(batch.last[:, None] < 0, self.default_query, queries)

    def encode_items(self, items: Tensor | None = None) -> Tensor:
        """Return item vectors, float [C, width]: their rows, made of neighbours if `inject_tail: both`."""
        vectors = self._vectors(items)
        if self.item_bias is None:
            return vectors
        bias = self.item_bias.weight if items is None else self.item_bias(items)  # [C, 1]
        return torch.cat([vectors, bias], dim=1)

    def encode_texts(self, vectors: Tensor) -> Tensor:
        """Return item vectors float [M, width] of new items by their text vectors [M, W]; no bias."""
        assert isinstance(self.item_table, TextItemTable)
        made = self.item_table.of_texts(vectors)
        made = F.normalize(made, dim=-1) if self.config.normalise else made
        return F.pad(made, (0, self.width - made.shape[1]))

    def prepare(self, data: TrainingData) -> None:
        """Count the votes, and let years count from the first training event's to the last one's."""
        if self.votes is not None:
            self.votes.fit(data)
        times = data.store.timestamps
        if self.calendar is None or times is None:
            return
        begin, end = data.store.offsets[:-1], data.train_end
        trained = end > begin
        if trained.any():
            first, last = times[begin[trained]].min(), times[end[trained] - 1].max()
            self.calendar.set_years(int(first), int(last), keep_first=self.goes_on)

    def beyond_product(self, batch: SequenceBatch, items: Tensor | None = None) -> Tensor:
        """Return what is no product, float [B, C]: the neighbours' votes, and of the global term
        w m_i.g(m_i) / (n + 1).
        """
        more = torch.zeros((), device=batch.last.device)
        if self.votes is not None:
            # The product is `temperature` times a logit, and so is what is added to it.
            more = self.temperature * self.votes.bonus(batch, items)  # [B, C]
        if not self.config.global_term:
            return more
        table = self._vectors()
        if items is None:
            items = torch.arange(self.n_items + 1, device=table.device)
        events, distinct = self.global_items(batch)
        own = self.config.global_weight * own_part(items, events, distinct, table)
        return more + own * (batch.last >= 0)[:, None]

    def lifted(self, batch: SequenceBatch, count: int) -> Tensor | None:
        """See `EncoderModel.lifted`: the items of most votes."""
        return None if self.votes is None else self.votes.candidates(batch, count)

    def global_items(self, batch: SequenceBatch) -> tuple[Tensor, Tensor]:
        """Return `(events [B, H], newest distinct items [B, J])` that the global term reads."""
        return newest_distinct(batch, self.max_length, self.config.global_items)

    def _vectors(self, items: Tensor | None = None) -> Tensor:
        """Return the vectors that are scored, without the bias, float [C, D]."""
        table = self.item_table.weight if items is None else self.item_table(items)
        if self.config.inject_tail == "both":
            rows = torch.arange(len(table), device=table.device) if items is None else items
            table = self._made_of_neighbours(rows, table)
        return unit_rows(table) if self.config.normalise else table

    def _read(self, items: Tensor) -> Tensor:
        """Return the vectors that the encoder reads, float [R, L, D]."""
        vectors: Tensor = self.item_table(items)
        return vectors if self.enhancer is None else self._made_of_neighbours(items, vectors)

    def _made_of_neighbours(self, items: Tensor, vectors: Tensor) -> Tensor:
        """Replace rare items' vectors by (1 - b) m + b G, where b is `injected`.

        Args:
            items: int64 [...].
            vectors: theirs, float [..., D].
        """
        assert self.enhancer is not None
        # Most of what is read is frequent, and what is rare repeats: each rare item is made once. On a
        # GPU the host waits for their number; what is saved is [..., K, D] of everything.
        places = self.is_rare[items].flatten().nonzero()[:, 0]  # [P]
        rare, which = torch.unique(items.flatten()[places], return_inverse=True)  # [R], [P]
        own = self.item_table(rare)  # [R, D]
        near = self.item_table(self.neighbours[rare])  # [R, K, D]
        change = self.injected * (self.enhancer(own, near) - own)
        out = vectors.reshape(-1, vectors.shape[-1]).index_add(0, places, change[which])
        return out.view_as(vectors)


class SumEncoder(nn.Module):
    """SASRec's blocks and their norm, on vectors that have the time in them."""

    def __init__(self, config: UniRecConfig) -> None:
        super().__init__()
        block = LiGRBlock if config.block == "ligr" else PreNormBlock
        inner = round(config.ffn * config.width)
        self.blocks = nn.ModuleList(
            block(config.width, config.heads, inner, config.dropout) for _ in range(config.blocks)
        )
        self.norm = nn.LayerNorm(config.width)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return float [R, L, D]."""
        for block in self.blocks:
            x = block(x, mask)
        out: Tensor = self.norm(x)
        return out


def _encoder(config: UniRecConfig, passes: int) -> nn.Module:
    if config.block != "mixture":
        return SumEncoder(config)
    return MixtureEncoder(
        config.width,
        config.blocks,
        config.heads,
        config.ffn,
        config.attention_noise,
        config.dropout,
        passes,
    )


def _sum(vectors: Tensor | None, more: Tensor) -> Tensor | None:
    return None if vectors is None else vectors + more


def _known_times(batch: SequenceBatch) -> Tensor:
    if batch.times is None:
        raise DataError(
            "this model reads times, and the batch has none; give the history's times, or use data "
            "with a clock"
        )
    return batch.times
