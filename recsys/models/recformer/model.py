"""Recformer: items are sentences of their attributes, histories are sequences of these sentences.

    score(i) = cos(user encoder(history), item encoder(item i)) [+ lexical(i)]

Source: Li et al. 2023 (arXiv 2305.13731). Both encoders begin as the same one. Training changes the user
encoder, against item vectors that stand still for an epoch; the item encoder is what made them. It is kept
(the published code loses it), because only by it does a new item get a vector in the space of the others.

The state is tensors alone: the encoders, the vectors of all items, and their sentences as tokens, so
that a loaded model encodes histories without the data it is from. A catalogue's sentences are set by
`set_sentences`, which also sizes the table of words. Differences from the paper: see `encoder.py`; a
history is never empty here (nobody's has `default_query`); shared words may score beside the encoders
(`lexical.py`).

Shapes: B sequences, N items, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from recsys.config import RecformerConfig
from recsys.data.bags import Bag
from recsys.data.batches import SequenceBatch, batch_from_lists
from recsys.data.sequences import TrainingData
from recsys.data.token_store import TokenStore
from recsys.errors import ArtifactError, DataError
from recsys.models.recformer.encoder import TextEncoder
from recsys.models.recformer.lexical import LexicalTerm
from recsys.models.recformer.ranker import SentenceRanker, item_vectors

SENTENCES: Final = "sentences."
"""Before the names of a token store's parts in the state."""


class Recformer(SentenceRanker):
    """Encodes histories and items by what is written about them."""

    item_vectors: Tensor  # float [N + 1, D], unit length

    def __init__(self, config: RecformerConfig, n_items: int) -> None:
        super().__init__(TextEncoder(config.encoder, vocabulary=1), n_items, None)
        self.config = config
        self.temperature = config.temperature
        self.item_encoder = TextEncoder(config.encoder, vocabulary=1).requires_grad_(False)
        self.register_buffer("item_vectors", torch.zeros(n_items + 1, self.width))
        self.lexical: LexicalTerm | None = None
        if config.lexical is not None:
            self.lexical = LexicalTerm(config.lexical)
            self.max_length = max(self.max_length, config.lexical.history)
        self.is_inner_product = self.lexical is None

    def set_sentences(self, sentences: TokenStore) -> None:
        """Give the model its catalogue; the encoders' word tables are drawn anew if they do not fit."""
        super().set_sentences(sentences)
        self.item_encoder.resize(sentences.vocabulary_size)
        self.item_encoder.requires_grad_(False)
        if self.lexical is not None:
            self.lexical.set_sentences(sentences)

    def prepare(self, data: TrainingData) -> None:
        """Count how rare the words of the training items are; see `EncoderModel.prepare`."""
        if self.lexical is not None:
            self.lexical.count(data.item_counts() > 0)

    def refresh_items(self, kept: Path | None = None) -> int:
        """Make the user encoder of this moment the item encoder, encode all items, return how many texts.

        Args:
            kept: a file of vectors, see `kept_text_vectors`: what it has of the same weights is taken
                from it, and it is brought up to date.
        """
        self.item_encoder.load_state_dict(self.encoder.state_dict())
        found, encoded = item_vectors(self.item_encoder, self.sentences, kept)
        self.item_vectors.copy_(found)
        return encoded

    def vectors_of(self, sentences: TokenStore) -> Tensor:
        """Return the vectors of items given as sentences, float [M + 1, D]; row 0 (PAD) is zero.

        New items are ranked with those of the catalogue by them, without any training.

        Raises:
            ArtifactError: the sentences are of another tokenizer.
        """
        self._check_tokenizer(sentences)
        return item_vectors(self.item_encoder, sentences)[0]

    def encode_items(self, items: Tensor | None = None) -> Tensor:
        """Return item vectors, float [C, D]."""
        return self.item_vectors.clone() if items is None else self.item_vectors[items]

    def beyond_product(self, batch: SequenceBatch, items: Tensor | None = None) -> Tensor:
        """Return the lexical term, float [B, C]; see `EncoderModel.beyond_product`."""
        if self.lexical is None:
            return super().beyond_product(batch, items)
        return self.lexical.bonus(batch, items)

    def lifted(self, batch: SequenceBatch, count: int) -> Tensor | None:
        """See `EncoderModel.lifted`: the items that share most words with the history."""
        return None if self.lexical is None else self.lexical.candidates(batch, count)

    def bags_of(self, sentences: TokenStore) -> list[Bag]:
        """Return the words of new items, by which they are ranked as the catalogue's items are.

        Without a lexical term they are none.

        Raises:
            ArtifactError: the sentences are of another tokenizer.
        """
        self._check_tokenizer(sentences)
        if self.lexical is None:
            return [()] * sentences.n_items
        return self.lexical.bags_of(sentences)

    def beyond_of_bags(self, batch: SequenceBatch, bags: Tensor) -> Tensor:
        """Return the lexical term of new items with these words, float [B, M].

        Args:
            batch: the histories.
            bags: sparse float [M, T], see `bags_of`; T may end with the last token that any of them has.
        """
        assert self.lexical is not None
        queries = self.lexical.queries(batch)[
            :, : bags.shape[1]
        ]  # tokens behind them weigh nothing
        term: Tensor = torch.sparse.mm(bags, queries.T).T  # [B, M]
        return term

    def encode_histories(
        self, histories: Sequence[Sequence[int]], more: TokenStore | None = None
    ) -> Tensor:
        """Return one vector per history of items and texts, oldest first, float [B, D].

        Args:
            histories: item indices; -k is the k-th item of `more`.
            more: items that are not in the catalogue, as sentences.
        """
        items = [item for history in histories for item in history]
        lowest = 0 if more is None else -more.n_items
        if items and (0 in items or not lowest <= min(items) <= max(items) <= self.n_items):
            others = f"-1 to {lowest} for the {-lowest} more" if lowest else "no more were given"
            raise DataError(
                f"histories have items {min(items)} to {max(items)}; allowed are 1 to {self.n_items} "
                f"for the catalogue, and {others}"
            )
        batch = batch_from_lists([list(history) for history in histories], None, self.max_length)
        return self.encode_sequences(replace(batch.to(self.default_query.device), texts=more))

    def _check_tokenizer(self, sentences: TokenStore) -> None:
        own = self.sentences.tokenizer_hash
        if sentences.tokenizer_hash != own:
            raise ArtifactError(
                f"the sentences are of tokenizer {sentences.tokenizer_hash[:8]}, the model's weights "
                f"of tokenizer {own[:8]}; tokenise them by the model's own"
            )

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self._sentences is not None:
            for name, value in _as_tensors(self._sentences).items():
                destination[prefix + SENTENCES + name] = value

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        start = prefix + SENTENCES
        found = {
            name.removeprefix(start): state_dict.pop(name)
            for name in list(state_dict)
            if name.startswith(start)
        }
        if found:
            self.set_sentences(_from_tensors(found))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _as_tensors(sentences: TokenStore) -> dict[str, Tensor]:
    """Return a token store's parts as tensors: arrays as they are, the hash of the tokenizer as bytes."""
    found = {}
    for name, value in asdict(sentences).items():
        if isinstance(value, np.ndarray):
            signed = value.view(np.int64) if value.dtype == np.uint64 else value
            found[name] = torch.from_numpy(np.array(signed))
        elif isinstance(value, str):
            found[name] = torch.tensor(list(value.encode()), dtype=torch.uint8)
        else:
            found[name] = torch.tensor(value)
    return found


def _from_tensors(parts: dict[str, Tensor]) -> TokenStore:
    """Return the token store that `_as_tensors` was given."""
    values: dict[str, Any] = {}
    for name, tensor in parts.items():
        array = tensor.cpu().numpy()
        if name == "tokenizer_hash":
            values[name] = bytes(array.tolist()).decode()
        elif name == "hashes":
            values[name] = array.view(np.uint64)
        else:
            values[name] = array if array.ndim else int(array)
    return TokenStore(**values)
