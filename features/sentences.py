"""Item sentences: an item's attributes as tokens, the same in batches offline and one by one online.

    sentence = [name_1 value_1 ... name_k value_k],   at most `item_tokens`

in the order of the attributes; name and value are tokenised apart and are `attribute_tokens` at most
together. An empty value leaves its name alone; an item without a token of any value has no sentence (the
tokenizer reads nothing in a zero-width space, say). Source: Recformer (arXiv 2305.13731), whose public
code does the same but for the last.

Every distinct value is tokenised once, in one batch of the Rust tokenizer. What was tokenised before,
by the same tokenizer within the same limits, is taken from there: texts are told apart by a hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from features.texts import attribute_texts, frame_of_items, most_characters
from features.tokenizer import TextTokenizer
from recsys.config.text import TextConfig
from recsys.data.sequences import Int32, Int64
from recsys.data.token_parts import first_of_each, store_of_hashes, those_among
from recsys.data.token_store import KEY_TYPE, VALUE_TYPE, Bools, TokenStore, UInt64
from recsys.errors import ConfigError
from recsys.manifest import stable_hash

SEPARATOR = "\x1f"
VERSION = 2
"""Raised when the same text is to become other tokens."""


@dataclass(frozen=True)
class SentenceMaker:
    """Makes sentences of items: a tokenizer, the attributes in order, and the limits."""

    tokenizer: TextTokenizer
    attributes: tuple[str, ...]
    config: TextConfig

    def of_frame(self, items: pl.DataFrame, known: TokenStore | None = None) -> TokenStore:
        """Return the sentences of a catalogue, of which row k is item k + 1.

        Texts that `known` has are taken from it.
        """
        characters = most_characters(self.config, self.attributes)
        texts = attribute_texts(items, self.attributes, characters)
        hashes = self.hashes(texts)
        known = known if known and known.tokenizer_hash == self.tokenizer.hash else None
        new = first_of_each(hashes, None if known is None else known.hashes)
        fresh = self._tokenise(texts.filter(pl.Series(new)), hashes[new])
        silent = fresh.hashes[1:][np.diff(fresh.offsets)[1:] == 0]
        if len(silent):
            hashes = np.where(those_among(hashes, silent)[:, None], np.uint64(0), hashes)
        return store_of_hashes(hashes, [fresh] if known is None else [known, fresh])

    def of_items(self, items: Sequence[Mapping[str, object]]) -> TokenStore:
        """Return the sentences of items that come one by one, attributes by name; the k-th is item k + 1."""
        return self.of_frame(frame_of_items(items))

    def hashes(self, texts: pl.DataFrame) -> UInt64:
        """Return the hash of each item's text, limits and tokenizer, uint64 [N, 2]; (0, 0) for no text."""
        limits = [[name, self.config.limit(name)] for name in self.attributes]
        salt = stable_hash([VERSION, self.tokenizer.hash, limits, self.config.item_tokens])
        base = hashlib.blake2b(salt.encode(), digest_size=16)
        joined = texts.select(pl.concat_str(pl.all(), separator=SEPARATOR)).to_series()
        empty = SEPARATOR * (len(self.attributes) - 1)
        digests = bytearray()
        for text in joined:
            if text == empty:
                digests += bytes(16)
                continue
            one = base.copy()
            one.update(text.encode())
            digests += one.digest()
        return np.frombuffer(bytes(digests), dtype=np.uint64).reshape(-1, 2)

    def _tokenise(self, texts: pl.DataFrame, hashes: UInt64) -> TokenStore:
        """Return the sentences of texts that are all different and not empty, text k of row k - 1.

        Where there is no token of a value, the sentence has none at all.
        """
        pieces = [self._pieces(texts[name]) for name in self.attributes]
        lengths = np.stack([piece.lengths for piece in pieces], axis=1)  # [N, A]
        ends = np.minimum(lengths.cumsum(axis=1), self.config.item_tokens)
        lengths = np.diff(ends, axis=1, prepend=0)
        names = np.array([piece.name_length for piece in pieces])
        says = (lengths > names).any(axis=1)
        lengths, ends = lengths * says[:, None], ends * says[:, None]
        offsets = np.concatenate([[0, 0], ends[:, -1].cumsum()]).astype(np.int64)
        tokens = np.empty(offsets[-1], dtype=np.int32)
        types = np.empty(offsets[-1], dtype=np.uint8)
        starts = np.empty(offsets[-1], dtype=np.bool_)
        for piece, length, end in zip(pieces, lengths.T, ends.T, strict=True):
            inside = np.arange(length.sum()) - np.repeat(length.cumsum() - length, length)
            to = np.repeat(offsets[1:-1] + end - length, length) + inside
            source = np.repeat(piece.first, length) + inside
            tokens[to], starts[to] = piece.tokens[source], piece.word_starts[source]
            types[to] = np.where(inside < piece.name_length, KEY_TYPE, VALUE_TYPE)
        special = self.tokenizer.special
        return TokenStore(
            tokens=tokens,
            types=types,
            word_starts=starts,
            offsets=offsets,
            hashes=np.concatenate([np.zeros((1, 2), dtype=np.uint64), hashes]),
            rows=np.arange(len(texts) + 1, dtype=np.int32),
            pad_id=special["pad"],
            cls_id=special["cls"],
            mask_id=special["mask"],
            unknown_id=special["unk"],
            vocabulary_size=self.tokenizer.vocabulary_size,
            tokenizer_hash=self.tokenizer.hash,
        )

    def _pieces(self, values: pl.Series) -> _Pieces:
        """Tokenise every distinct value of an attribute, with the attribute's name before it."""
        name = str(values.name)
        key = self.tokenizer.name_tokens(name)
        limit = self.config.limit(name)
        if len(key) >= min(limit, self.config.item_tokens):
            raise ConfigError(
                f"attribute {name!r} has {len(key)} tokens in its name alone, but text.attribute_tokens "
                f"(or text.attribute_limits.{name}) is {limit} and text.item_tokens "
                f"{self.config.item_tokens}, so that none of its values would be read; set them higher"
            )
        distinct = values.unique(maintain_order=True)
        numbered = pl.DataFrame({name: distinct}).with_row_index("row")
        row = values.to_frame().join(numbered, on=name, how="left", maintain_order="left")
        found = self.tokenizer.rust.encode_batch(distinct.to_list(), add_special_tokens=False)
        room = max(0, limit - len(key))
        tokens = [[*key, *one.ids[:room]][:limit] for one in found]
        starts = [
            [*_begins(range(len(key))), *_begins(one.word_ids[:room])][:limit] for one in found
        ]
        lengths = np.array([len(one) for one in tokens], dtype=np.int64)
        return _Pieces(
            tokens=np.array([t for one in tokens for t in one], dtype=np.int32),
            word_starts=np.array([s for one in starts for s in one], dtype=np.bool_),
            first=(lengths.cumsum() - lengths)[row["row"].to_numpy()],
            lengths=lengths[row["row"].to_numpy()],
            name_length=len(key),
        )


@dataclass(frozen=True)
class _Pieces:
    """One attribute of N items: `tokens[first:first + lengths]` of each, the name's tokens first."""

    tokens: Int32
    word_starts: Bools
    first: Int64
    lengths: Int64
    name_length: int


def _begins(words: Sequence[int | None]) -> list[bool]:
    """Return where another word begins, by the word that each token belongs to."""
    return [i == 0 or word != words[i - 1] for i, word in enumerate(words)]
