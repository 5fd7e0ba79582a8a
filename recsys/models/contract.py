"""What every model answers; everything downstream (evaluation, index, bundle, serving) uses only this."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from recsys.data.batches import SequenceBatch
from recsys.data.sequences import TrainingData


class Model(nn.Module, ABC):
    """A ranking model over a fixed catalogue of `n_items` items (indices 1..n_items, 0 is PAD).

    Built from its configuration alone; its whole state is tensors (`state_dict`), so a bundle needs
    no pickle. A model reads at most the newest `max_length` events of a history, and the baskets of a
    batch only if it says so by `reads_baskets`; it then cannot do without them.
    """

    max_length: int
    reads_baskets: bool = False

    def __init__(self, n_items: int) -> None:
        super().__init__()
        self.n_items = n_items

    @abstractmethod
    def score(self, batch: SequenceBatch, items: Tensor | None = None) -> Tensor:
        """Return scores float [B, C] of the candidates `items` (int64 [C]), higher is better.

        Without `items`, C = n_items + 1 and column i is item i; column 0 (PAD) carries no meaning.
        """


class CountingModel(Model):
    """A model fitted by counting, in one pass; its buffers take their shapes from the data."""

    @abstractmethod
    def fit(self, data: TrainingData) -> None:
        """Count the training events."""

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: object, **kwargs: object
    ) -> None:
        for name in list(self._buffers):
            if prefix + name in state_dict:
                self._buffers[name] = torch.empty_like(state_dict[prefix + name])
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class EncoderModel(Model):
    """A learned model whose score is the inner product of a sequence vector and an item vector.

    A model may add to it what is no inner product (`is_inner_product` is then False). It is shortlisted
    by the product, and the shortlist scored again.

    `default_query` [D] stands for an empty history; training sets it to the vector whose softmax over
    the catalogue is nearest to the training popularity.
    """

    default_query: Tensor
    is_inner_product: bool = True
    """Whether `score` is nothing but the product; if not, `beyond_product` is what it has more."""

    def __init__(self, n_items: int, width: int) -> None:
        super().__init__(n_items)
        self.width = width
        self.register_buffer("default_query", torch.zeros(width))

    @abstractmethod
    def hidden(self, batch: SequenceBatch) -> Tensor:
        """Return a vector for every place of the batch, float [R, L, D], causal inside a sequence."""

    @abstractmethod
    def encode_items(self, items: Tensor | None = None) -> Tensor:
        """Return item vectors float [C, D]; without `items` all rows 0..n_items, PAD included."""

    def encode_sequences(self, batch: SequenceBatch) -> Tensor:
        """Return one vector per sequence, float [B, D]; an empty one gets `default_query`."""
        if batch.items.numel() == 0:
            return self.default_query.expand(len(batch), -1)
        newest = self.hidden(batch).flatten(0, 1)[batch.last.clamp(min=0)]  # [B, D]
        return torch.where(batch.last[:, None] < 0, self.default_query, newest)

    def beyond_product(self, batch: SequenceBatch, items: Tensor | None = None) -> Tensor:
        """Return what `score` has beyond the product, float [B, C], for items [C], or [B, C] row by row.

        Without `items` for all rows 0..n_items; 0 for an empty history.
        """
        raise NotImplementedError(f"the score of {type(self).__name__} is an inner product")

    def score(self, batch: SequenceBatch, items: Tensor | None = None) -> Tensor:
        """Return `encode_sequences(batch) @ encode_items(items).T` and what is beyond, float [B, C]."""
        product = self.encode_sequences(batch) @ self.encode_items(items).T
        return product if self.is_inner_product else product + self.beyond_product(batch, items)
