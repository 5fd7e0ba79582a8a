"""What every model answers; everything downstream (evaluation, index, bundle, serving) uses only this."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from recsys.data.batches import SequenceBatch
from recsys.data.sequences import TrainingData
from recsys.models.generation import GenerationState, ReencodedState, Windows


class Model(nn.Module, ABC):
    """A ranking model over a fixed catalogue of `n_items` items (indices 1..n_items, 0 is PAD).

    Built from its configuration alone; its whole state is tensors (`state_dict`), so a bundle needs
    no pickle. A model reads at most the newest `max_length` events of a history, and the times and the
    baskets of a batch only if it says so by `reads_times` and `reads_baskets`; it then cannot do without.
    One that knows what to make of the lists before a list says by `reads_previous` how many it reads; it
    can do without. One with `reads_texts` takes items that the catalogue does not hold as sentences,
    `SequenceBatch.texts`.
    """

    max_length: int
    reads_times: bool = False
    reads_baskets: bool = False
    reads_previous: int = 0
    reads_texts: bool = False

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
    the catalogue is nearest to the training popularity. `temperature` is that of its training: the
    next item's distribution is the softmax of score / temperature over the catalogue.

    It also makes lists, item by item: `start` takes the histories, `step` one more item of every list,
    and `score_next` judges what may follow. Whoever overrides `score` overrides `score_next`.
    """

    default_query: Tensor
    temperature: float = 1.0
    is_inner_product: bool = True
    """Whether `score` is nothing but the product; if not, `beyond_product` is what it has more."""
    learns_by: str | None = None
    """Its method that training calls in every step and that can be compiled; None has none."""
    goes_on: bool = False
    """Whether its weights are those of an earlier training, which what it counts by must go on to fit."""
    chosen_by_validation: bool = True
    """Whether it learns what follows, so that ranking validation targets can choose its best epoch."""

    def __init__(self, n_items: int, width: int) -> None:
        super().__init__(n_items)
        self.width = width
        self.register_buffer("default_query", torch.zeros(width))

    @property
    def embedding_width(self) -> int:
        """Size of a list's own vector (E)."""
        return self.width

    def embed_lists(self, batch: SequenceBatch) -> Tensor:
        """Return what lists are alike by, float [B, E]; zero for an empty list.

        It is what is asked for the next item, unless the model has a vector of a list for itself.
        """
        return self.encode_sequences(batch) * (batch.last >= 0)[:, None]

    def prepare(self, data: TrainingData) -> None:
        """Count, before training begins, what of the training events the model keeps beside its weights."""
        del data

    def finish(self, data: TrainingData) -> None:
        """Count, when training is over, what of the training events the trained weights need."""
        del data

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

    def lifted(self, batch: SequenceBatch, count: int) -> Tensor | None:
        """Return the items that `beyond_product` lifts most, int64 [B, count or fewer], 0-filled.

        They join the shortlist, however small their product; None says that there are no such items.
        """
        del batch, count
        return None

    def beyond_of_bags(self, batch: SequenceBatch, bags: Tensor) -> Tensor:
        """Return what is beyond the product for items outside the catalogue, float [B, M], by their words.

        Only for models that give new items words; `bags` is sparse float [M, tokens].
        """
        raise NotImplementedError(f"{type(self).__name__} does not read words")

    def score(self, batch: SequenceBatch, items: Tensor | None = None) -> Tensor:
        """Return `encode_sequences(batch) @ encode_items(items).T` and what is beyond, float [B, C]."""
        product = self.encode_sequences(batch) @ self.encode_items(items).T
        return product if self.is_inner_product else product + self.beyond_product(batch, items)

    def start(self, batch: SequenceBatch, gap: float | None = None) -> GenerationState:
        """Return the state of B lists without items yet; its query is `encode_sequences(batch)`.

        A model that reads times sees a chosen item `gap` seconds after the event before it; by default
        the median gap of that history (0 where fewer than two times are known).
        """
        return ReencodedState(self.encode_sequences(batch), Windows.of_batch(batch, gap))

    def step(self, state: GenerationState, items: Tensor) -> GenerationState:
        """Return the state after one more item of every list, int64 [B].

        It is the state of the history with all chosen items behind it, of which the model reads the
        newest `max_length` as ever. This one encodes them anew; a model with a cheaper way has its own.
        (A model with a decoder has read the history once, and what was chosen is the decoder's memory:
        its second item is judged as the decoder learned to, given the first.)
        """
        assert isinstance(state, ReencodedState)
        windows = state.windows.append(items, self.max_length)
        return ReencodedState(self.encode_sequences(windows.batch()), windows)

    def score_next(self, state: GenerationState, items: Tensor | None = None) -> Tensor:
        """Return scores float [B, C] of what may follow: `items` [C] for all, or each its own [B, C].

        They are those of `score` for the history with the chosen items behind it. Without `items`,
        C = n_items + 1 as there.
        """
        if items is None or items.ndim == 1:
            product = state.query @ self.encode_items(items).T  # [B, C]
        else:
            vectors = self.encode_items(items.flatten()).view(*items.shape, -1)  # [B, C, D]
            product = torch.bmm(vectors, state.query[:, :, None]).squeeze(2)  # [B, C]
        if self.is_inner_product:
            return product
        assert isinstance(state, ReencodedState)
        return product + self.beyond_product(state.windows.batch(), items)
