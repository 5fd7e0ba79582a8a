"""From item texts to the vectors that a model reads: one map, fitted once, kept, used online as it is.

    source: tokens      text ── bag of tokens ──▶ axes ──▶ unit length
    any other           text ── encoder ──▶ minus the mean ──▶ axes ──▶ unit length

Mean and axes are those of the items that have training events (for `tokens` the axes are those of the
bags, see `TokenProjection`); without a width the encoder's own vectors stay.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from features.text_vectors import TokenProjection
from recsys.data.bags import Bools, Float32
from recsys.errors import ArtifactError, DataError

META: Final = "map.json"
"""In a directory of a map: which source it is of."""


@dataclass(frozen=True)
class Centred:
    """Vectors minus a mean, along axes, at unit length: `mean` float32 [W], `axes` float32 [W, D]."""

    mean: Float32
    axes: Float32

    @classmethod
    def fit(cls, vectors: Float32, width: int) -> Centred:
        """Find mean and axes of vectors, float32 [N, W].

        Raises:
            DataError: there are fewer dimensions, or fewer items, than that.
        """
        most = min(vectors.shape)
        if width > most:
            raise DataError(
                f"{vectors.shape[0]} training items with text vectors of {vectors.shape[1]} numbers "
                f"have no {width} directions; set the width to {most} or less"
            )
        mean = vectors.mean(axis=0, dtype=np.float64)
        centred = vectors - mean
        values, axes = np.linalg.eigh(centred.T @ centred)  # ascending
        axes = axes[:, ::-1][:, :width]
        signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(width)])
        del values
        return cls(mean.astype(np.float32), (axes * signs).astype(np.float32))

    def __call__(self, vectors: Float32) -> Float32:
        """Return float32 [N, D]; a vector of zeros (no text) stays one."""
        found = (vectors - self.mean) @ self.axes
        found[~vectors.any(axis=1)] = 0
        return unit(found.astype(np.float32))


def save_map(directory: Path, source: str, fitted: TokenProjection | Centred | None) -> None:
    """Write a map; None leaves vectors as they are."""
    directory.mkdir(parents=True, exist_ok=True)
    arrays = {} if fitted is None else vars(fitted)
    for name, array in arrays.items():
        np.save(directory / f"{name}.npy", array)
    facts = {"source": source, "arrays": sorted(arrays)}
    (directory / META).write_text(json.dumps(facts) + "\n", encoding="utf-8")


def load_map(directory: Path) -> tuple[str, TokenProjection | Centred | None]:
    """Return `(source, map)` of a directory that `save_map` wrote."""
    path = directory / META
    if not path.is_file():
        raise ArtifactError(f"{directory} holds no map of texts ({META} is missing)")
    facts = json.loads(path.read_text(encoding="utf-8"))
    arrays = {name: np.load(directory / f"{name}.npy") for name in facts["arrays"]}
    if not arrays:
        return facts["source"], None
    kind = TokenProjection if "idf" in arrays else Centred
    return facts["source"], kind(**arrays)


def fit_centred(vectors: Float32, learned: Bools, width: int | None) -> Centred | None:
    """Return the map of a catalogue's vectors [N + 1, W], fitted on those `learned` that have a text."""
    return None if width is None else Centred.fit(vectors[learned & vectors.any(axis=1)], width)


def unit(vectors: Float32) -> Float32:
    """Return vectors at unit length; zeros stay."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Float32 = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return scaled.astype(np.float32)


def bundle_vectors(directory: Path, item_ids: Sequence[str]) -> tuple[Float32, int]:
    """Return a bundle's vectors of these items, float32 [N + 1, W], and how many it does not have."""
    from recsys.bundle import load_bundle

    bundle = load_bundle(directory)
    if bundle.index is None:
        raise ArtifactError(
            f"{directory}: its model has no item vectors; name the bundle of one that has"
        )
    rows = bundle.item_ids.encode(item_ids)
    vectors = bundle.index.vectors.numpy()[np.append(0, rows)]
    vectors[0] = 0
    vectors[1:][rows == 0] = 0
    return unit(vectors.astype(np.float32)), int((rows == 0).sum())
