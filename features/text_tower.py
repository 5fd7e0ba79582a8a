"""The text tower of a bundle: what a new item's texts are to its model, by the maps it was trained with.

    text/tower.json       attributes, limits, source
    text/tokenizer/       where the model reads tokens, or vectors of them
    text/map/             where it reads vectors: the map of `features.text_map`

A frozen encoder is named, not copied (MiniLM has 90 MB): it must be where it was, with the same weights.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from features.sentences import SentenceMaker
from features.text_map import Centred, load_map, unit
from features.text_vectors import FrozenEncoder, TokenProjection, encoder_directory, plain_texts
from features.texts import attribute_texts, frame_of_items, most_characters
from features.tokenizer import load_tokenizer
from recsys.config.text import TextConfig
from recsys.data.bags import Float32
from recsys.data.token_store import TokenStore
from recsys.errors import ArtifactError
from recsys.manifest import file_hash

TOWER: Final = "tower.json"
TOKENIZER, MAP = "tokenizer", "map"


@dataclass(frozen=True)
class TextTower:
    """A loaded tower; `directory` is the `text/` of a bundle."""

    directory: Path
    attributes: tuple[str, ...]
    config: TextConfig
    source: str | None
    weights: str | None

    @classmethod
    def load(cls, directory: Path) -> TextTower:
        """Open a tower; `ArtifactError` if there is none."""
        path = directory / TOWER
        if not path.is_file():
            raise ArtifactError(f"{directory} holds no text tower ({TOWER} is missing)")
        said = json.loads(path.read_text(encoding="utf-8"))
        config = TextConfig.model_validate(said["config"])
        return cls(directory, tuple(said["attributes"]), config, said["source"], said["weights"])

    def sentences(self, items: Sequence[Mapping[str, object]]) -> TokenStore:
        """Return the sentences of items (attributes by name); the k-th is item k + 1."""
        return self._maker.of_items(items)

    def vectors(self, items: Sequence[Mapping[str, object]]) -> Float32:
        """Return the text vectors of items, float32 [M, W]; 0 where there is no text.

        Raises:
            ArtifactError: the frozen encoder that made the model's vectors is not here.
        """
        _, fitted = load_map(self.directory / MAP)
        if isinstance(fitted, TokenProjection):
            return fitted.vectors(self.sentences(items))[1:]
        characters = most_characters(self.config, self.attributes)
        texts = attribute_texts(frame_of_items(items), self.attributes, characters)
        raw = self._encoder.vectors(plain_texts(texts))
        return fitted(raw) if isinstance(fitted, Centred) else unit(raw)

    @cached_property
    def _maker(self) -> SentenceMaker:
        tokenizer = load_tokenizer(self.directory / TOKENIZER)
        return SentenceMaker(tokenizer, self.attributes, self.config)

    @cached_property
    def _encoder(self) -> FrozenEncoder:
        assert self.source is not None
        directory = encoder_directory(self.source)
        found = weights_of(directory)
        if found != self.weights:
            raise ArtifactError(
                f"{directory} holds other weights ({str(found)[:8]}) than those that made the text "
                f"vectors of {self.directory.parent} ({str(self.weights)[:8]})"
            )
        return FrozenEncoder(directory)


def write_tower(
    directory: Path,
    attributes: Sequence[str],
    config: TextConfig,
    *,
    tokenizer: Path | None = None,
    text_map: Path | None = None,
) -> None:
    """Write a tower from a directory of a tokenizer, of a map, or both."""
    directory.mkdir(parents=True)
    source = weights = None
    if text_map is not None:
        source, fitted = load_map(text_map)
        shutil.copytree(text_map, directory / MAP, ignore=shutil.ignore_patterns("vectors.npy"))
        if not isinstance(fitted, TokenProjection):
            weights = weights_of(encoder_directory(source))
    if tokenizer is not None:
        shutil.copytree(tokenizer, directory / TOKENIZER)
    said: dict[str, Any] = {
        "attributes": list(attributes),
        "config": config.model_dump(mode="json"),
        "source": source,
        "weights": weights,
    }
    (directory / TOWER).write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


def weights_of(directory: Path) -> str | None:
    """Return the sha256 of an encoder's weights, None without any."""
    path = directory / "model.safetensors"
    return file_hash(path) if path.is_file() else None
