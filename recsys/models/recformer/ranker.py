"""Histories and items by what is written about them: the vectors of one text encoder, compared.

    score(i) = cos(encoder(history), encoder(item i))

Shapes: B sequences, N items, D width, R rows, L places.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.data.batches import SequenceBatch
from recsys.data.item_sentences import SentenceBatch, history_sentences
from recsys.data.sequences import Int64
from recsys.data.token_store import TokenStore
from recsys.errors import ArtifactError
from recsys.models.contract import EncoderModel
from recsys.models.recformer.encoder import TextEncoder
from recsys.models.recformer.text_vectors import kept_text_vectors, text_vectors
from recsys.schema import PAD


class SentenceRanker(EncoderModel):
    """Ranks a catalogue by an encoder as it is: what pre-training trains, and is validated by.

    The sentences are no part of its state. A history may hold items that the catalogue does not, as
    sentences.

    Args:
        encoder: of histories and items alike.
        n_items: of the catalogue.
        sentences: the catalogue's; None if they come later.
    """

    reads_texts = True

    def __init__(self, encoder: TextEncoder, n_items: int, sentences: TokenStore | None) -> None:
        super().__init__(n_items, encoder.config.width)
        self.encoder = encoder
        self.max_length = encoder.config.max_items
        self._sentences: TokenStore | None = None
        if sentences is not None:
            self.set_sentences(sentences)

    @property
    def sentences(self) -> TokenStore:
        """The tokens of the catalogue."""
        if self._sentences is None:
            raise ArtifactError(
                "the model has no item sentences yet; load its weights, or give it the catalogue's tokens"
            )
        return self._sentences

    def set_sentences(self, sentences: TokenStore) -> None:
        """Give the model its catalogue; the encoder's word table is drawn anew if it does not fit."""
        if sentences.n_items != self.n_items:
            raise ArtifactError(
                f"the model is of {self.n_items} items, but the sentences are of {sentences.n_items}; "
                "use those of the same prepared data"
            )
        self._sentences = sentences
        self.encoder.resize(sentences.vocabulary_size)

    def encode_items(self, items: Tensor | None = None) -> Tensor:
        """Return item vectors of unit length, float [C, D], that of PAD zero; without gradients."""
        vectors, _ = item_vectors(self.encoder, self.sentences)
        return vectors if items is None else vectors[items]

    def encode_sequences(self, batch: SequenceBatch) -> Tensor:
        """Return one vector per sequence, float [B, D]; an empty one gets `default_query`."""
        last = batch.last.cpu().numpy()
        some = np.flatnonzero(last >= 0)
        queries = self.default_query.expand(len(batch), -1).clone()  # [B, D]
        if len(some):
            rows = torch.from_numpy(some).to(queries.device)
            vectors = self._encode(self.histories(batch, last[some]))
            queries = queries.index_copy(0, rows, vectors.to(queries.dtype))
        return queries

    def hidden(self, batch: SequenceBatch) -> Tensor:
        """Return a query vector for every place, float [R, L, D].

        The encoder sees a history from both sides, so every place is the encoding of a history of its
        own, and this costs as much. Training asks for one place of a history only.
        """
        places = np.flatnonzero(batch.segments.flatten().cpu().numpy())
        out = self.default_query.new_zeros(batch.items.numel(), self.width)
        if len(places):
            rows = torch.from_numpy(places).to(out.device)
            vectors = self._encode(self.histories(batch, places))
            out = out.index_copy(0, rows, vectors.to(out.dtype))
        return out.view(*batch.items.shape, self.width)

    def histories(self, batch: SequenceBatch, places: Int64) -> SentenceBatch:
        """Return the sentences of the histories that end at flat places of a batch, int64 [P]."""
        items = batch.items.flatten().cpu().numpy()
        begin = places - batch.positions.flatten().cpu().numpy()[places]
        sentences = self.sentences
        if batch.texts is not None:
            sentences, items = with_texts(sentences, items, batch.texts)
        return history_sentences(sentences, items, begin, places + 1, **self.encoder.config.limits)

    def _encode(self, sentences: SentenceBatch) -> Tensor:
        vectors = self.encoder.encode(sentences.to(self.default_query.device))
        return F.normalize(vectors.float(), dim=-1)


def with_texts(sentences: TokenStore, items: Int64, texts: TokenStore) -> tuple[TokenStore, Int64]:
    """Return the sentences of these items alone, and the items as indices of them.

    Args:
        sentences: of the catalogue.
        items: int64 [P]; an item of the catalogue, PAD, or -k for the k-th of `texts`.
        texts: other items.

    Raises:
        ArtifactError: `texts` is of another tokenizer.
    """
    catalogue, known = sentences.only(np.maximum(items, PAD))
    others, own = texts.only(np.maximum(-items, PAD))
    return catalogue.extended(others), np.where(items < 0, catalogue.n_items + own, known)


def item_vectors(
    encoder: TextEncoder, sentences: TokenStore, kept: Path | None = None
) -> tuple[Tensor, int]:
    """Return the unit vectors of a store's items, float32 [N + 1, D], and how many texts were encoded.

    Row 0 (PAD) is zero. With a file of `kept` vectors only texts that it has not are encoded.
    """
    if kept is None:
        vectors, encoded = text_vectors(encoder, sentences), sentences.n_texts  # [R, D]
    else:
        array, encoded = kept_text_vectors(encoder, sentences, kept)
        vectors = torch.from_numpy(array).to(encoder.words.weight.device)
    rows = torch.from_numpy(np.array(sentences.rows, dtype=np.int64)).to(vectors.device)
    found = vectors[rows]  # [N + 1, D]
    found[0] = 0.0
    return found, encoded
