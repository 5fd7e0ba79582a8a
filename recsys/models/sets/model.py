"""Any encoder of sets as a next-item model: a history without its order asks for what follows.

The encoder's vector of the history's items, each as often as it was had, is the query; items are
scored by its inner product with the same table that the encoder reads. A mean of item vectors that
is learned this way is word2vec's continuous bag of words; smooth inverse frequency is then made of
its table when training is over: it weighs and corrects the vectors of lists (`embed`), not the query,
which was learned as a plain mean.

With `votes`, neighbours of the newest items score, too (`neighbour_votes.py`): pairs of items as they are,
which a vector of few numbers cannot hold.

Shapes: B sequences, R rows, L places, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recsys.config.playlists import SetModelConfig
from recsys.data.batches import SequenceBatch
from recsys.data.sequences import TrainingData
from recsys.models.contract import EncoderModel
from recsys.models.generation import Windows
from recsys.models.neighbour_votes import NeighbourVotes
from recsys.models.playlists.contract import compact
from recsys.models.prefixes import prefixes, real_places, spread
from recsys.models.sets import build_set_encoder
from recsys.models.sets.contract import masked_mean
from recsys.models.sets.mean import SIF


class SetModel(EncoderModel):
    """A set encoder and its item table."""

    def __init__(self, config: SetModelConfig, n_items: int) -> None:
        super().__init__(n_items, config.encoder.width)
        self.max_length = config.max_length
        self.prefixes = config.prefixes
        self.temperature = config.training.loss.temperature
        self.encoder = build_set_encoder(config.encoder, n_items)
        self.votes = None if config.votes is None else NeighbourVotes(config.votes, n_items)
        self.reads_times = self.votes is not None and self.votes.reads_times
        self.is_inner_product = self.votes is None
        self.item_table.weight.requires_grad_(config.learn_songs)
        self.scale = None if config.learn_songs else nn.Parameter(torch.ones(()))
        """Of queries: vectors that are given have lengths of their own, which say nothing of certainty."""

    @property
    def item_table(self) -> nn.Embedding:
        """The table that is read and scored."""
        return self.encoder.item_table

    def embed_lists(self, batch: SequenceBatch) -> Tensor:
        """Return the vectors of a batch's lists, float [B, D]."""
        windows = Windows.of_batch(batch)
        vectors: Tensor = self.encoder(windows.items, _inside(windows.items, windows.lengths))
        return vectors

    def embed(self, items: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the vectors of lists, float [B, D]; see `Embedder`."""
        kept, lengths = compact(items, mask, self.max_length)
        vectors: Tensor = self.encoder(kept, _inside(kept, lengths))
        return vectors

    def queries(self, items: Tensor, mask: Tensor) -> Tensor:
        """Return what histories int64 [T, n] ask for, float [T, D]; zero for an empty one."""
        if isinstance(self.encoder, SIF):
            vectors = masked_mean(self.item_table(items), mask)
        else:
            vectors = self.encoder(items, mask)
        return vectors if self.scale is None else vectors * self.scale

    def prefix_queries(self, batch: SequenceBatch, places: Tensor) -> Tensor:
        """Return the queries of histories that end at flat places int64 [T] of a batch, float [T, D]."""
        return self.queries(*prefixes(batch, places))

    def hidden(self, batch: SequenceBatch) -> Tensor:
        """Return the query after every place, float [R, L, D]; every place has a set of its own."""
        places = real_places(batch)
        return spread(self.prefix_queries(batch, places), places, batch)

    def encode_sequences(self, batch: SequenceBatch) -> Tensor:
        """Return one query per sequence, float [B, D]; an empty one gets `default_query`."""
        windows = Windows.of_batch(batch)
        found = self.queries(windows.items, _inside(windows.items, windows.lengths))
        return torch.where(windows.lengths[:, None] > 0, found, self.default_query)

    def encode_items(self, items: Tensor | None = None) -> Tensor:
        """Return rows of the item table, float [C, D]."""
        return self.item_table.weight if items is None else self.item_table(items)

    def beyond_product(self, batch: SequenceBatch, items: Tensor | None = None) -> Tensor:
        """Return the neighbours' votes, float [B, C]; see `EncoderModel.beyond_product`."""
        assert self.votes is not None
        # The product is `temperature` times a logit, and so is what is added to it.
        return self.temperature * self.votes.bonus(batch, items)

    def lifted(self, batch: SequenceBatch, count: int) -> Tensor | None:
        """See `EncoderModel.lifted`: the items of most votes."""
        return None if self.votes is None else self.votes.candidates(batch, count)

    def prepare(self, data: TrainingData) -> None:
        """Count the votes."""
        if self.votes is not None:
            self.votes.fit(data)

    def finish(self, data: TrainingData) -> None:
        """Count what smooth inverse frequency needs; see `EncoderModel.finish`."""
        if isinstance(self.encoder, SIF):
            self.encoder.fit(data)


def _inside(items: Tensor, lengths: Tensor) -> Tensor:
    return torch.arange(items.shape[1], device=items.device) < lengths[:, None]
