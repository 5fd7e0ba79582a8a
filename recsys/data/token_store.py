"""Item sentences as tokens: every distinct text once in one flat array, items point into it.

`tokens[offsets[r]:offsets[r + 1]]` are the tokens of text `r`, and item `i` has text `rows[i]`, so that
items with the same text share their tokens. Text 0 is empty; it is that of PAD and of every item without
a usable text. What the tokens mean says the tokenizer, whose hash the store carries.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from recsys.data.sequences import Int32, Int64
from recsys.errors import ArtifactError

UInt8 = npt.NDArray[np.uint8]
UInt64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]

TOKEN_META: Final = "tokens.json"
KEY_TYPE, VALUE_TYPE = 1, 2
"""Types of the tokens of an attribute's name and of its value; 0 is CLS, 3 padding."""


@dataclass(frozen=True)
class TokenStore:
    """The sentences of a catalogue, tokenised, T tokens in R distinct texts.

    Attributes:
        tokens: int32 [T].
        types: uint8 [T]; 1 in an attribute's name, 2 in its value.
        word_starts: bool [T]; whether a word begins here (the first token of a text always does).
        offsets: int64 [R + 1]; text r owns `offsets[r]:offsets[r + 1]`; text 0 is empty.
        hashes: uint64 [R, 2], of what each text was made from (text, limits, tokenizer); (0, 0) for text 0.
        rows: int32 [N + 1]; which text each item has, 0 for PAD.
        pad_id, cls_id, mask_id, unknown_id: the tokenizer's special tokens.
        vocabulary_size: tokens are below it.
        tokenizer_hash: of the tokenizer; a model's weights fit one of them only.
    """

    tokens: Int32
    types: UInt8
    word_starts: Bools
    offsets: Int64
    hashes: UInt64
    rows: Int32
    pad_id: int
    cls_id: int
    mask_id: int
    unknown_id: int
    vocabulary_size: int
    tokenizer_hash: str

    @property
    def n_items(self) -> int:
        """Number of items, PAD aside; valid indices are 1..n_items."""
        return len(self.rows) - 1

    @property
    def n_texts(self) -> int:
        """Number of distinct texts, the empty one included."""
        return len(self.offsets) - 1

    def spans(self, items: npt.NDArray[np.integer]) -> tuple[Int64, Int64]:
        """Return `(first token, number of tokens)` of items of any shape, int64 each."""
        rows = self.rows[items]
        first = self.offsets[rows]
        return first, self.offsets[rows + np.int32(1)] - first

    def lengths(self) -> Int64:
        """Return the number of tokens of every item, int64 [N + 1]; 0 where there is no text."""
        return np.diff(self.offsets)[self.rows]

    def item_hashes(self) -> UInt64:
        """Return the content hash of every item, uint64 [N + 1, 2]; equal texts have equal ones."""
        return self.hashes[self.rows]

    def take(self, items: npt.NDArray[np.integer]) -> TokenStore:
        """Return a store in memory whose items 1..M are these [M], in their order."""
        texts, inverse = np.unique(np.append(0, self.rows[items]), return_inverse=True)
        lengths = np.diff(self.offsets)[texts]
        offsets = np.append(0, np.cumsum(lengths)).astype(np.int64)
        places = np.repeat(self.offsets[texts] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return replace(
            self,
            tokens=self.tokens[places],
            types=self.types[places],
            word_starts=self.word_starts[places],
            offsets=offsets,
            hashes=self.hashes[texts],
            rows=np.append(0, inverse[1:]).astype(np.int32),
        )

    def only(self, items: Int64) -> tuple[TokenStore, Int64]:
        """Return a store of those items alone that occur among `items`, and these as its indices.

        `items` are of any shape; PAD is PAD in both.
        """
        known, place = np.unique(np.append(0, items), return_inverse=True)  # PAD comes first
        return self.take(known[1:]), place[1:].reshape(items.shape)

    def extended(self, *others: TokenStore) -> TokenStore:
        """Return a store in memory with the items of others behind those of this one, in their order.

        Raises:
            ArtifactError: one was made with another tokenizer.
        """
        stores, offsets, rows = (self, *others), [self.offsets[:2]], [self.rows[:1]]
        texts, tokens = 0, 0
        for one in stores:
            if one.tokenizer_hash != self.tokenizer_hash:
                raise ArtifactError(
                    f"tokens of tokenizer {one.tokenizer_hash[:8]} cannot join those of tokenizer "
                    f"{self.tokenizer_hash[:8]}; tokenise them again"
                )
            offsets.append(one.offsets[2:] + tokens)
            rows.append(np.where(one.rows[1:] > 0, one.rows[1:] + np.int32(texts), 0))
            texts, tokens = texts + one.n_texts - 1, tokens + int(one.offsets[-1])
        joined: dict[str, Any] = {
            name: np.concatenate([getattr(one, name) for one in stores])
            for name in ("tokens", "types", "word_starts")
        }
        return replace(
            self,
            offsets=np.concatenate(offsets),
            hashes=np.concatenate([self.hashes[:1], *(one.hashes[1:] for one in stores)]),
            rows=np.concatenate(rows).astype(np.int32),  # all have the same empty text
            **joined,
        )

    def save(self, directory: Path, there: Sequence[str] = ()) -> None:
        """Write the arrays (but for those that are `there` already) as .npy files, the rest as JSON."""
        directory.mkdir(parents=True, exist_ok=True)
        for name in _ARRAYS:
            if name not in there:
                np.save(directory / f"{name}.npy", getattr(self, name))
        facts = {name: getattr(self, name) for name in _FACTS}
        (directory / TOKEN_META).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: Path, *, memory_map: bool = True) -> TokenStore:
        """Open a saved store; arrays are memory-mapped unless told otherwise."""
        meta = directory / TOKEN_META
        if not meta.is_file():
            raise ArtifactError(
                f"{directory} holds no item sentences ({TOKEN_META} is missing); run `recsys features` "
                "with a section `text`"
            )
        facts = json.loads(meta.read_text(encoding="utf-8"))
        mode: Any = "r" if memory_map else None
        arrays = {name: np.load(directory / f"{name}.npy", mode) for name in _ARRAYS}
        return cls(**arrays, **{name: facts[name] for name in _FACTS})


_ARRAYS: Final = ("tokens", "types", "word_starts", "offsets", "hashes", "rows")
_FACTS: Final = (
    "pad_id",
    "cls_id",
    "mask_id",
    "unknown_id",
    "vocabulary_size",
    "tokenizer_hash",
)
