"""Loading a bundle, every byte that is read verified first."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from recsys import __version__
from recsys.bundle.layout import (
    ALWAYS,
    BUNDLE_VERSION,
    CONFIG,
    FORMAT,
    INDEX,
    ITEMS,
    PLAYLISTS,
    POPULARITY,
    RECENT,
    SEEN,
    USERS,
    WEIGHTS,
    version_of,
)
from recsys.bundle.parts import Bundle
from recsys.config import ModelConfig
from recsys.data.sequences import SEQUENCE_META, SequenceStore
from recsys.data.vocabulary import Vocabulary
from recsys.errors import ArtifactError
from recsys.manifest import MANIFEST, SCHEMA_VERSION, file_hash, stable_hash
from recsys.models import Model, build_model
from recsys.playlist_index import NAMES, PlaylistIndex
from recsys.retrieval.index import INDEX_META, VECTORS, load_index
from recsys.schema import ITEM, USER


def load_bundle(path: Path, device: str = "cpu") -> Bundle:
    """Return the bundle at `path`, every file verified against its sha256.

    Raises:
        ArtifactError: a file is missing, truncated, changed or unreadable, or the bundle was
            written by another version or for a model this code does not know; the file is named.
    """
    manifest = _read_manifest(path)
    _verify_files(path, manifest)
    files = manifest["files"]
    item_ids = Vocabulary.load(path / ITEMS, ITEM)
    model = _load_model(path, len(item_ids)).to(device)
    has_users = USERS in files
    return Bundle(
        path=path,
        manifest=manifest,
        model=model.eval(),
        items=pl.read_parquet(path / ITEMS),
        item_ids=item_ids,
        user_ids=Vocabulary.load(path / USERS, USER) if has_users else None,
        recent=SequenceStore.load(path / RECENT, memory_map=False) if has_users else None,
        seen=SequenceStore.load(path / SEEN) if has_users else None,
        index=load_index(path / INDEX) if f"{INDEX}/{INDEX_META}" in files else None,
        popularity=np.load(path / POPULARITY),
        playlists=PlaylistIndex.load(path / PLAYLISTS) if f"{PLAYLISTS}/{NAMES}" in files else None,
    )


def _read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest of a bundle this code can read, itself verified."""
    file = path / MANIFEST
    if not file.is_file():
        raise ArtifactError(
            f"{path} is no bundle: {file} is missing; make one with `recsys publish`"
        )
    try:
        manifest = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{file} is damaged (no valid JSON); copy the bundle again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ArtifactError(f"{file} does not describe a bundle; make one with `recsys publish`")
    versions = (manifest.get("schema_version"), manifest.get("bundle_version"))
    if versions != (SCHEMA_VERSION, BUNDLE_VERSION):
        raise ArtifactError(
            f"{file} has schema version {versions[0]} and bundle version {versions[1]}; this code "
            f"reads {SCHEMA_VERSION} and {BUNDLE_VERSION}; publish again or use the code it is from"
        )
    digest = manifest.pop("digest", None)
    if digest != stable_hash(manifest) or manifest["version"] != version_of(
        manifest["files"], manifest["info"]
    ):
        raise ArtifactError(f"{file} is damaged or was edited; copy the bundle again")
    return manifest


def _verify_files(path: Path, manifest: Mapping[str, Any]) -> None:
    """Compare every file that will be read with the manifest."""
    files = manifest["files"]
    required = list(ALWAYS)
    if USERS in files:
        required += [f"{RECENT}/{SEQUENCE_META}", f"{SEEN}/{SEQUENCE_META}"]
    if any(name.startswith(f"{INDEX}/") for name in files):
        required += [f"{INDEX}/{INDEX_META}", f"{INDEX}/{VECTORS}"]
    for name in required:
        if name not in files:
            raise ArtifactError(
                f"{path / name} is not listed in {MANIFEST}; the bundle is incomplete"
            )
    for name, expected in files.items():
        file = path / name
        if not file.is_file():
            raise ArtifactError(f"{file} is missing; copy the bundle again")
        size = file.stat().st_size
        if size != expected["bytes"]:
            raise ArtifactError(
                f"{file} has {size} bytes instead of {expected['bytes']}; copy the bundle again"
            )
        if file_hash(file) != expected["sha256"]:
            raise ArtifactError(f"{file} is damaged (its sha256 differs); copy the bundle again")


def read_config(path: Path) -> ModelConfig:
    """Return the configuration of a bundle's model; `ArtifactError` if this code does not know it."""
    file, raw = path / CONFIG, None
    try:
        raw = yaml.safe_load(file.read_text("utf-8"))
        config: ModelConfig = TypeAdapter(ModelConfig).validate_python(raw)
    except (yaml.YAMLError, ValidationError) as error:
        kind = raw.get("kind") if isinstance(raw, dict) else None
        raise ArtifactError(
            f"{file}: model kind {kind!r} with these settings is not known to this code "
            f"(version {__version__}); use the code that wrote the bundle: {error}"
        ) from error
    return config


def _load_model(path: Path, n_items: int) -> Model:
    """Build the model of `config.yaml` and fill it with the tensors."""
    model = build_model(read_config(path), n_items)
    weights = path / WEIGHTS
    try:
        model.load_state_dict(load_file(weights))
    except (RuntimeError, SafetensorError) as error:
        raise ArtifactError(
            f"{weights} does not fit the model of {path / CONFIG}: {error}"
        ) from error
    return model
