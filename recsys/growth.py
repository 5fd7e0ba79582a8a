"""A bundle with more items: what came into the catalogue after training can be found at once.

A new item stands among the known ones. Either it is like some of them, with weights: its score for any
history is the weighted mean of theirs, by whatever model,

    score(history, new) = sum_j w_j score(history, like_j),        w_j >= 0, sum_j w_j = 1

which for an inner product is that with the mean of their vectors. Or it has a vector of its own. In a
history a model that reads texts reads its text, if that was given; any other reads the known item that
it is most like. Its index comes after all others, so every index of the bundle keeps its meaning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys.bundle import Bundle
from recsys.data.bags import Bag
from recsys.data.batches import SequenceBatch
from recsys.data.token_store import TokenStore
from recsys.data.vocabulary import DENSE_ITEM, Vocabulary
from recsys.models import EncoderModel, Model
from recsys.models.generation import GenerationState
from recsys.retrieval.index import ExactIndex, Index, most_alike
from recsys.schema import ITEM, PAD


@dataclass(frozen=True)
class NewItem:
    """An item that the bundle was not trained with.

    Attributes:
        item_id: external id.
        attributes: title and the like; columns that the catalogue has are shown in lists.
        like: known items that it is like, most alike first.
        weights: of those, positive; equal by default.
        vector: item vector of its own, instead of `like`; for models that have vectors.
        bag: with a vector, its words and their weights, for a model that scores shared words beside it.
        sentence: with a vector, its text as the one item of a store, for a model that reads texts.
        by_text: its place is where the model of the moment puts its attributes, if that reads texts
            (whoever holds the model gives the vector); `like` is for all others.
    """

    item_id: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    like: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    vector: tuple[float, ...] = ()
    bag: Bag = ()
    sentence: TokenStore | None = None
    by_text: bool = False


@dataclass(frozen=True)
class Grown:
    """A bundle with more items, and the ids of those that could not be placed in it."""

    bundle: Bundle
    placed: tuple[str, ...]
    unplaced: tuple[str, ...]


def grow(bundle: Bundle, items: Sequence[NewItem]) -> Grown:
    """Return the bundle with those of the items that it does not hold yet.

    An item cannot be placed if the bundle knows none of the items it is like, and it has no vector that
    fits the model's.
    """
    known = bundle.item_ids
    there = known.encode([item.item_id for item in items]) != PAD
    new = [item for item, old in zip(items, there, strict=True) if not old]
    mixes = [_mix(item, known) for item in new]
    width = bundle.index.width if bundle.index is not None else None
    fits = [bool(mix) or len(item.vector) == width for item, mix in zip(new, mixes, strict=True)]
    unplaced = tuple(item.item_id for item, fit in zip(new, fits, strict=True) if not fit)
    new = [item for item, fit in zip(new, fits, strict=True) if fit]
    if not new:
        return Grown(bundle, (), unplaced)
    mixes = [mix for mix, fit in zip(mixes, fits, strict=True) if fit]
    weights = _sparse([tuple(mix.items()) for mix in mixes], len(known) + 1)
    placed = tuple(item.item_id for item in new)
    return Grown(_with(bundle, new, weights), placed, unplaced)


def _mix(item: NewItem, known: Vocabulary) -> dict[int, float]:
    """Return the known items that an item is like, with weights whose sum is 1; none for a vector."""
    if item.vector:
        return {}
    shares = item.weights or (1.0,) * len(item.like)
    indices = known.encode(item.like).tolist()
    pairs = [(i, w) for i, w in zip(indices, shares, strict=True) if i != PAD and w > 0]
    total = sum(share for _, share in pairs)
    mix: dict[int, float] = {}
    for index, share in pairs:
        mix[index] = mix.get(index, 0.0) + share / total
    return mix


def _sparse(rows: Sequence[Bag], width: int) -> Tensor:
    """Return rows of (column, weight) as sparse float [len(rows), width]."""
    row = [number for number, pairs in enumerate(rows) for _ in pairs]
    column = [place for pairs in rows for place, _ in pairs]
    values = [weight for pairs in rows for _, weight in pairs]
    where = torch.tensor([row, column], dtype=torch.int64).reshape(2, -1)
    return torch.sparse_coo_tensor(
        where, torch.tensor(values), (len(rows), width), check_invariants=True
    ).coalesce()


def _with(bundle: Bundle, new: Sequence[NewItem], weights: Tensor) -> Bundle:
    """Return the bundle with all of the items."""
    n_known, index, model = len(bundle.item_ids), bundle.index, bundle.model
    stands_for = torch.cat([torch.arange(n_known + 1), _most_alike(weights)])
    grown: Model
    if index is not None and isinstance(model, EncoderModel):
        vectors = torch.sparse.mm(weights, index.vectors.contiguous())  # [M, D]
        for row, item in enumerate(new):
            if item.vector:
                vectors[row] = torch.tensor(item.vector)
                stands_for[n_known + 1 + row] = most_alike(vectors[row], index)
        grown = (
            GrownEncoder(model, vectors, stands_for)
            if model.is_inner_product
            else GrownScorer(model, vectors, stands_for, weights, [item.bag for item in new])
        )
        if model.reads_texts:
            grown.give_texts([item.sentence for item in new])
        index = _grown_index(index, vectors)
    else:
        grown = GrownModel(model, weights, stands_for)
    ids = pl.concat([bundle.item_ids.ids, pl.Series([item.item_id for item in new])])
    return replace(
        bundle,
        model=grown.eval(),
        items=_grown_table(bundle.items, new),
        item_ids=Vocabulary(ids, first_index=PAD + 1),
        index=index,
        popularity=np.concatenate([bundle.popularity, np.zeros(len(new), dtype=np.int64)]),
    )


def _most_alike(weights: Tensor) -> Tensor:
    """Return the known item of largest weight of each row, int64 [M]; 0 for an empty row."""
    best = torch.zeros(weights.shape[0], dtype=torch.int64)
    largest = torch.zeros(weights.shape[0])
    rows, columns = weights.indices().tolist()
    for row, column, share in zip(rows, columns, weights.values().tolist(), strict=True):
        if share > largest[row]:
            best[row], largest[row] = column, share
    return best


def _grown_index(index: Index, vectors: Tensor) -> Index:
    columns = torch.cat([index.columns, vectors.T], dim=1)
    if isinstance(index, ExactIndex):
        return ExactIndex(index.config, columns, recall=index.recall)
    from recsys.retrieval.faiss_index import grown_faiss

    return grown_faiss(index, columns, vectors)


def _grown_table(items: pl.DataFrame, new: Sequence[NewItem]) -> pl.DataFrame:
    """Return the catalogue's table with a row for every new item; what it does not say is null."""
    first = len(items) + 1
    texts = {
        name: pl.Series(name, [item.attributes.get(name) for item in new], dtype=pl.String)
        for name in items.columns
    }
    texts[ITEM] = pl.Series(ITEM, [item.item_id for item in new])
    texts[DENSE_ITEM] = pl.Series(DENSE_ITEM, np.arange(first, first + len(new)))
    rows = pl.DataFrame(texts).select(
        pl.lit(None, dtype).alias(name)
        if dtype.is_nested()  # a text is no list
        else pl.col(name).cast(dtype, strict=False)
        for name, dtype in items.schema.items()
    )
    return pl.concat([items, rows])


class GrownEncoder(EncoderModel):
    """A learned model that knows more items: their vectors are given, and it reads them as others.

    Args:
        inner: the model of the bundle.
        vectors: float [M, D] of the new items.
        stands_for: int64 [n_items + M + 1], as which item each one is read; 0 for none, -k for the k-th
            of its texts.
    """

    def __init__(self, inner: EncoderModel, vectors: Tensor, stands_for: Tensor) -> None:
        super().__init__(inner.n_items + len(vectors), inner.width)
        self.inner, self.max_length = inner, inner.max_length
        self.reads_times, self.reads_baskets = inner.reads_times, inner.reads_baskets
        self.reads_previous = inner.reads_previous
        self.reads_texts = inner.reads_texts
        self._texts: TokenStore | None = None
        self.register_buffer("vectors", vectors)
        self.register_buffer("stands_for", stands_for)
        self.default_query, self.temperature = inner.default_query, inner.temperature
        self.is_inner_product = inner.is_inner_product

    def give_texts(self, sentences: Sequence[TokenStore | None]) -> None:
        """Let a model that reads texts read these new items, in their order, by what they say."""
        own = [(row, one) for row, one in enumerate(sentences, self.inner.n_items + 1) if one]
        if not own:
            return
        first, *others = [one for _, one in own]
        self._texts = first.extended(*others)
        rows = torch.tensor([row for row, _ in own])
        self.get_buffer("stands_for")[rows] = -1 - torch.arange(len(own))

    def hidden(self, batch: SequenceBatch) -> Tensor:
        """See `EncoderModel.hidden`."""
        return self.inner.hidden(self._read(batch))

    def encode_sequences(self, batch: SequenceBatch) -> Tensor:
        """Return what the inner model makes of the histories, float [B, D]."""
        return self.inner.encode_sequences(self._read(batch))

    @property
    def embedding_width(self) -> int:
        """See `EncoderModel.embedding_width`."""
        return self.inner.embedding_width

    def embed_lists(self, batch: SequenceBatch) -> Tensor:
        """See `EncoderModel.embed_lists`."""
        return self.inner.embed_lists(self._read(batch))

    def encode_items(self, items: Tensor | None = None) -> Tensor:
        """See `EncoderModel.encode_items`."""
        if items is None:
            return torch.cat([self.inner.encode_items(), self.get_buffer("vectors")])
        old = items <= self.inner.n_items
        known = self.inner.encode_items(torch.where(old, items, PAD))
        new = self.get_buffer("vectors")[torch.where(old, 0, items - self.inner.n_items - 1)]
        return torch.where(old[:, None], known, new)

    def lifted(self, batch: SequenceBatch, count: int) -> Tensor | None:
        """See `EncoderModel.lifted`; of known items."""
        return self.inner.lifted(self._read(batch), count)

    def start(self, batch: SequenceBatch, gap: float | None = None) -> GenerationState:
        """See `EncoderModel.start`."""
        return self.inner.start(self._read(batch), gap)

    def step(self, state: GenerationState, items: Tensor) -> GenerationState:
        """See `EncoderModel.step`."""
        return self.inner.step(state, self.get_buffer("stands_for")[items])

    def _read(self, batch: SequenceBatch) -> SequenceBatch:
        return _read_as(batch, self.get_buffer("stands_for"), self._texts)


class GrownScorer(GrownEncoder):
    """The same for a model whose score is more than a product: what is beyond it is a mean, too.

    As both parts are means of known items' with the same weights, so is the score. An item that has a
    vector of its own has the product with that, and beyond it what its own words make, or else what the
    item has that it is read as.
    """

    def __init__(
        self,
        inner: EncoderModel,
        vectors: Tensor,
        stands_for: Tensor,
        weights: Tensor,
        bags: Sequence[Bag],
    ) -> None:
        super().__init__(inner, vectors, stands_for)
        worded = [row for row, bag in enumerate(bags) if bag]
        tokens = 1 + max((token for bag in bags for token, _ in bag), default=-1)
        self.bags = _sparse([bags[row] for row in worded], tokens)  # [W, tokens]
        self.register_buffer("worded", torch.tensor(worded, dtype=torch.int64))
        dense = weights.to_dense()  # [M, n_items + 1]
        bare = dense.sum(1) == 0
        dense[bare, stands_for[inner.n_items + 1 :][bare]] = 1
        like = dense.any(0).nonzero()[:, 0]  # int64 [J]
        self.register_buffer("like", like)
        self.register_buffer("shares", dense[:, like].T.contiguous())  # [J, M]

    def beyond_product(self, batch: SequenceBatch, items: Tensor | None = None) -> Tensor:
        """See `EncoderModel.beyond_product`."""
        batch, n = self._read(batch), self.inner.n_items
        of_like = self.inner.beyond_product(batch, self.get_buffer("like"))  # [B, J]
        new = of_like @ self.get_buffer("shares")  # [B, M]
        worded = self.get_buffer("worded")
        if len(worded):
            words = self.inner.beyond_of_bags(batch, self.bags.to(new.device))  # [B, W]
            new = new.index_copy(1, worded, words.to(new.dtype))
        if items is None:
            return torch.cat([self.inner.beyond_product(batch), new], dim=1)
        old = items <= n
        known = self.inner.beyond_product(batch, torch.where(old, items, PAD))  # [B, C]
        where = torch.where(old, 0, items - n - 1).expand(len(known), -1)
        return torch.where(old, known, new.gather(1, where))

    def lifted(self, batch: SequenceBatch, count: int) -> Tensor | None:
        """See `EncoderModel.lifted`; new items of words of their own compete with known ones."""
        known, worded = super().lifted(batch, count), self.get_buffer("worded")
        if known is None or not len(worded):
            return known
        new = (self.inner.n_items + 1 + worded).expand(len(known), -1)
        both = torch.cat([known, new], dim=1)
        best = self.beyond_product(batch, both).topk(min(count, both.shape[1]), dim=1)
        return torch.where(best.values > 0, both.gather(1, best.indices), PAD)


class GrownModel(Model):
    """Any other model that knows more items: their scores are weighted means of known items' scores.

    Args:
        inner: the model of the bundle.
        weights: sparse float [M, n_items + 1].
        stands_for: int64 [n_items + M + 1], as which item each one is read.
    """

    def __init__(self, inner: Model, weights: Tensor, stands_for: Tensor) -> None:
        super().__init__(inner.n_items + len(weights))
        self.inner, self.max_length = inner, inner.max_length
        self.reads_times, self.reads_baskets = inner.reads_times, inner.reads_baskets
        self.reads_previous = inner.reads_previous
        self.weights = weights
        self.register_buffer("stands_for", stands_for)

    def score(self, batch: SequenceBatch, items: Tensor | None = None) -> Tensor:
        """See `Model.score`."""
        batch = _read_as(batch, self.get_buffer("stands_for"))
        known = self.inner.score(batch).float()  # [B, n_items + 1]
        new = torch.sparse.mm(self.weights.to(known.device), known.T).T  # [B, M]
        scores = torch.cat([known, new], dim=1)
        return scores if items is None else scores[:, items]


def _read_as(
    batch: SequenceBatch, stands_for: Tensor, texts: TokenStore | None = None
) -> SequenceBatch:
    """Return the batch with every item as the known one that it is read as, in the lists before, too.

    What stands for an item may be one of `texts`, which come before the batch's own.
    """
    previous = None if batch.previous is None else stands_for[batch.previous]
    before = 0 if texts is None else texts.n_items
    items = torch.where(batch.items < 0, batch.items - before, stands_for[batch.items.clamp(min=0)])
    if texts is not None and batch.texts is not None:
        texts = texts.extended(batch.texts)
    return replace(batch, items=items, previous=previous, texts=texts or batch.texts)
