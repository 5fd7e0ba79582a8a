"""Vectors of the items' texts (`features.text_map`), one directory for each that a configured model reads.

    text_vectors/<name>/<fold>/     `vectors.npy`, float32 [n_items + 1, D], and the map of new texts

What a frozen encoder makes of a text does not depend on the fold; its vectors are kept beside, by the
hashes of the texts, so that after a change of the catalogue only what changed is encoded again.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from features import text_map
from features.text_vectors import FrozenEncoder, TokenProjection, encoder_directory, plain_texts
from features.texts import attribute_texts, choose_attributes, most_characters
from pipelines.input_files import directory_hash
from pipelines.ray_session import map_partitions, ray_session
from pipelines.runs import folds
from pipelines.statistics import FEATURES
from pipelines.text import SENTENCES, learned_items, open_sentences, wanted_vectors
from recsys.config import ExperimentConfig, ItemVectors
from recsys.config.text import NAMES
from recsys.data.bags import Float32
from recsys.errors import ArtifactError
from recsys.manifest import (
    MANIFEST,
    is_current,
    read_manifest,
    stable_hash,
    stage_directory,
)
from recsys.schema import ITEM

logger = logging.getLogger(__name__)

TEXT_VECTORS: Final = "text_vectors"
VECTORS: Final = "vectors.npy"
RAW: Final = "encoded.npz"
"""In the finished directory: what frozen encoders made of texts, by the hash of encoder and text."""
VERSION: Final = 3


def name_of(config: ExperimentConfig, wanted: ItemVectors) -> str:
    """Return the directory of some vectors: by what makes them, wherever their files lie."""
    return stable_hash([described_vectors(wanted), _fingerprint(config, wanted)])[:12]


def vectors_key(config: ExperimentConfig) -> str:
    """Return the hash of everything that makes the vectors; needs features (and sentences)."""
    return stable_hash([source_key(config, wanted) for wanted in wanted_vectors(config)])


def source_key(config: ExperimentConfig, wanted: ItemVectors) -> str:
    """Return the hash of everything that makes the vectors of one source."""
    return stable_hash(
        {
            "features": read_manifest(config.workspace / FEATURES)["key"],
            "attributes": config.text.model_dump(mode="json", exclude={"tokenizer"}),
            "source": described_vectors(wanted),
            "files": _fingerprint(config, wanted),
            "version": VERSION,
        }
    )


def vectors_directory(config: ExperimentConfig, wanted: ItemVectors) -> Path:
    """Return where some vectors and their map lie, a directory for each fold."""
    return config.workspace / TEXT_VECTORS / name_of(config, wanted)


def described_vectors(wanted: ItemVectors) -> dict[str, Any]:
    """Return the settings of some vectors but for the place of their files, of which the bytes count."""
    source = wanted.source if wanted.source in NAMES else None
    return wanted.model_dump(mode="json") | {"source": source}


def _fingerprint(config: ExperimentConfig, wanted: ItemVectors) -> Any:
    """Return what tells one state of a source's files from another."""
    if wanted.source == "tokens":
        return read_manifest(config.workspace / SENTENCES)["key"]
    directory = encoder_directory(wanted.source)
    if (directory / MANIFEST).is_file():
        return read_manifest(directory)["version"]
    if not (directory / "config.json").is_file():
        raise ArtifactError(
            f"{directory} is neither a bundle ({MANIFEST}) nor a Hugging Face directory (config.json); "
            "a model's `text.source` is tokens, minilm, or one of these"
        )
    return directory_hash(directory)


def build_text_vectors(config: ExperimentConfig) -> Path:
    """Return the finished `text_vectors/` directory, made anew unless it is current."""
    directory, key = config.workspace / TEXT_VECTORS, vectors_key(config)
    if is_current(directory, key):
        return directory
    with stage_directory(directory, key) as (work, manifest), ray_session(config.ray):
        task = partial(make_vectors, config=config, work=work, before=directory)
        named = {name_of(config, wanted): wanted for wanted in wanted_vectors(config)}
        facts = map_partitions(task, list(named.values()), 1, "text vectors")
        manifest.update(vectors=dict(zip(named, facts, strict=True)))
    return directory


def open_vectors(config: ExperimentConfig, wanted: ItemVectors, fold: str) -> Float32:
    """Return the text vectors of all items as a model of this fold reads them, float32 [N + 1, D]."""
    path = vectors_directory(config, wanted) / fold / VECTORS
    if not is_current(config.workspace / TEXT_VECTORS, vectors_key(config)) or not path.is_file():
        raise ArtifactError(f"{path} is missing or of another configuration; run `recsys features`")
    vectors: Float32 = np.load(path, mmap_mode="r")
    return vectors


def make_vectors(
    wanted: ItemVectors, config: ExperimentConfig, work: Path, before: Path
) -> dict[str, Any]:
    """Write one source's vectors and maps for every fold; return what the manifest says (a Ray task)."""
    target = work / name_of(config, wanted)
    facts: dict[str, Any] = wanted.model_dump(mode="json")
    raw = None
    if wanted.source != "tokens":
        raw, facts["encoded"] = _raw_vectors(wanted.source, config, work, before)
    for fold in folds(config):
        learned = learned_items(config, fold)
        fitted: TokenProjection | text_map.Centred | None
        if raw is None:
            assert wanted.width is not None
            store = open_sentences(config, fold)
            fitted = TokenProjection.fit(store, learned, wanted.width)
            vectors = fitted.vectors(store)
        else:
            fitted = text_map.fit_centred(raw, learned, wanted.width)
            vectors = raw if fitted is None else fitted(raw)
        text_map.save_map(target / fold, wanted.source, fitted)
        np.save(target / fold / VECTORS, vectors)
        facts["width"] = vectors.shape[1]
    return facts


def _raw_vectors(
    source: str, config: ExperimentConfig, work: Path, before: Path
) -> tuple[Float32, int]:
    """Return a source's own vectors [N + 1, W], and how many of them were not there before."""
    items = pl.read_parquet(config.workspace / "prepared" / "items.parquet")
    directory = encoder_directory(source)
    if (directory / MANIFEST).is_file():
        vectors, missing = text_map.bundle_vectors(directory, items[ITEM].to_list())
        if missing:
            logger.warning("%s has no vectors of %d of %d items", directory, missing, items.height)
        return vectors, 0
    attributes = choose_attributes(items, config.text)
    texts = attribute_texts(items, attributes, most_characters(config.text, attributes))
    plain = plain_texts(texts)
    salt = stable_hash([directory_hash(directory), VERSION])
    hashes = [stable_hash([salt, text])[:32] for text in plain]
    encoded = work / f"{salt[:12]}-{RAW}"
    known = _known(before / encoded.name)
    new = list(dict.fromkeys(h for h in hashes if h not in known))
    if new:
        text_of = dict(zip(hashes, plain, strict=True))
        encoder = FrozenEncoder(directory)
        known |= dict(zip(new, encoder.vectors([text_of[h] for h in new]), strict=True))
    rows = np.stack([known[h] for h in hashes])
    np.savez(encoded, hashes=np.array(hashes), vectors=rows)
    return np.concatenate([np.zeros((1, rows.shape[1]), dtype=np.float32), rows]), len(new)


def _known(path: Path) -> dict[str, Float32]:
    if not path.is_file():
        return {}
    with np.load(path, allow_pickle=False) as archive:
        return dict(zip(archive["hashes"].tolist(), archive["vectors"], strict=True))
