"""The bundle: everything a recommender needs in one directory, without the training data.

    <name>@<hash8>/
      manifest.json        what it is: versions, sizes, metrics, sha256 and size of every file
      config.yaml          the model's configuration
      model.safetensors    its tensors
      items.parquet        item_id, item (dense index) and attributes
      popularity.npy       training events per item, int64 [n_items + 1]
      users.parquet        user_id, row = dense index                            (optional)
      recent/              the newest events of every user, a SequenceStore      (with users)
      seen/                the items of all events of every user, the same       (with users)
      text/                what places a new item by its texts                   (models that read them)
      index/               item vectors and their search structure               (encoder models)
      playlists/           the lists of those users by their vectors             (by a setting)

Nothing in it is pickled. The version (hash8) is the start of a sha256 over the names and hashes of
the files and over the rules by which it answers (`RULES`), so what answers alike has one version, and
what does not has another. Loading verifies every byte that it then reads.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from recsys import __version__
from recsys.config import ModelConfig, dump_config
from recsys.data.sequences import SEQUENCE_META, Int64, SequenceStore
from recsys.data.vocabulary import Vocabulary
from recsys.errors import ArtifactError
from recsys.lock import locked
from recsys.manifest import (
    MANIFEST,
    SCHEMA_VERSION,
    file_hash,
    replace_directory,
    stable_hash,
    write_manifest,
)
from recsys.models import Model, build_model
from recsys.playlist_index import NAMES, PlaylistIndex
from recsys.retrieval.exclusion import Exclusion, Setting
from recsys.retrieval.index import INDEX_META, VECTORS, Index, load_index
from recsys.schema import ITEM, USER

FORMAT = "recsys-bundle"
BUNDLE_VERSION = 3
"""Raised when a reader of one layout could not use the other; 2 added `seen/`, 3 versions by rules."""

CONFIG, WEIGHTS, ITEMS = "config.yaml", "model.safetensors", "items.parquet"
POPULARITY, USERS, RECENT, INDEX = "popularity.npy", "users.parquet", "recent", "index"
SEEN, PLAYLISTS, TEXT = "seen", "playlists", "text"
ALWAYS = (CONFIG, WEIGHTS, ITEMS, POPULARITY)
BASKET_MINUTES, EXCLUDE = "basket_minutes", "exclude"
RULES = (BASKET_MINUTES, EXCLUDE)
"""Facts of the manifest that change what is answered."""


@dataclass(frozen=True)
class Bundle:
    """A verified bundle, loaded.

    Attributes:
        path: its directory.
        manifest: the manifest as a mapping.
        model: ready to score, in evaluation mode.
        items: one row an item, sorted by `item` (1..n_items).
        item_ids: translator between external item ids and dense indices.
        user_ids: the same for users, or None when no users travel along.
        recent: the newest events of those users, which the model reads; or None.
        seen: the items of all their events, memory-mapped, by which lists leave out what was seen; with
            repeats and in order, so that a repeat window of any length is exact; or None.
        index: searchable item vectors, or None for models that score without them.
        popularity: training events per item, int64 [n_items + 1].
        playlists: the users' lists, searchable; or None.
    """

    path: Path
    manifest: dict[str, Any]
    model: Model
    items: pl.DataFrame
    item_ids: Vocabulary
    user_ids: Vocabulary | None
    recent: SequenceStore | None
    seen: SequenceStore | None
    index: Index | None
    popularity: Int64
    playlists: PlaylistIndex | None = None

    @property
    def text(self) -> Path | None:
        """Where the bundle has what places a new item by its texts, if it has."""
        path = self.path / TEXT
        return path if path.is_dir() else None

    @property
    def name(self) -> str:
        """The name it was published under."""
        return str(self.manifest["name"])

    @property
    def version(self) -> str:
        """The first eight hex digits of its content hash."""
        return str(self.manifest["version"])

    @property
    def basket_minutes(self) -> float | None:
        """How long a basket of the data lasts, where times make the baskets; else None."""
        minutes = self.manifest["info"].get(BASKET_MINUTES)
        return None if minutes is None else float(minutes)

    @property
    def exclude(self) -> Setting:
        """The rule of exclusion the model was evaluated by, as in `evaluation.exclude`.

        A bundle that was written without one leaves out all that was seen.
        """
        rule: Setting = self.manifest["info"].get(EXCLUDE, "seen")
        return rule


def write_bundle(
    directory: Path,
    *,
    name: str,
    model: Model,
    model_config: ModelConfig,
    items: pl.DataFrame,
    users: pl.DataFrame | None,
    store: SequenceStore | None,
    index: Index | None,
    popularity: Int64,
    info: Mapping[str, Any],
    recent_events: int = 100,
    playlists: PlaylistIndex | None = None,
    text: Path | None = None,
) -> Path:
    """Write `<directory>/<name>@<hash8>/`, whole or not at all, and return its path.

    Args:
        directory: where bundles live; made if missing.
        name: part of the path and of every answer.
        model: fitted; its `state_dict` is stored.
        model_config: what `build_model` needs to make it again.
        items: `item_id`, `item` = 1..n_items in order, and any attributes.
        users: `user_id`, row = dense index; None leaves users and their events out.
        store: events of all users; the newest `recent_events` of each are stored, and the items of all.
        index: of the model's item vectors; None for models without them.
        popularity: training events per item, int64 [n_items + 1].
        info: JSON-like facts kept in the manifest: metrics, data set, seed, ...; of these,
            `basket_minutes` tells a model that reads baskets how times make them, and `exclude` which
            items of a history are left out unless a query says otherwise (`seen` without it).
        recent_events: newest events kept per user for the model to read.
        playlists: the users' lists by their vectors, if they are to be found.
        text: directory of what places a new item by its texts, taken along as it is.

    Raises:
        RecsysError: another process writes into `directory`, or the parts do not fit together.
    """
    _check_parts(model, items, users, store, index, popularity, playlists)
    Exclusion.from_setting(info.get(EXCLUDE, "seen"))  # refuses what is no rule
    with _working_directory(directory, name) as work:
        _write_model(work, model, model_config)
        items.sort("item").write_parquet(work / ITEMS)
        np.save(work / POPULARITY, np.asarray(popularity, dtype=np.int64))
        kept = None
        if users is not None and store is not None:
            users.select(pl.col(USER).cast(pl.String)).write_parquet(work / USERS)
            kept = newest(store, recent_events)
            kept.save(work / RECENT)
            SequenceStore(store.items, store.offsets, store.n_items).save(work / SEEN)
        if index is not None:
            index.save(work / INDEX)
        if playlists is not None:
            playlists.save(work / PLAYLISTS)
            info = {**info, PLAYLISTS: playlists.facts()}
        if text is not None:
            shutil.copytree(text, work / TEXT)
        manifest = _describe(work, name, model, model_config, kept, index, info)
        write_manifest(work, manifest)
        target = directory / f"{name}@{manifest['version']}"
        replace_directory(work, target)
    return target


@contextmanager
def _working_directory(directory: Path, name: str) -> Iterator[Path]:
    """Yield an empty directory beside the bundles, which is gone afterwards unless it was moved.

    Who holds the lock is alone here, so what others left half-made is of processes that were killed.
    """
    with locked(directory / ".lock", directory, "then publish again"):
        for left in directory.glob(".*.partial-*"):
            shutil.rmtree(left)
        work = directory / f".{name}.partial-{os.getpid()}"
        work.mkdir()
        try:
            yield work
        finally:
            if work.exists():
                shutil.rmtree(work)


def newest(store: SequenceStore, n: int) -> SequenceStore:
    """Return the store cut to the newest `n` events of every user, in memory."""
    lengths = np.minimum(np.diff(store.offsets), n)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    first = np.repeat(store.offsets[1:] - lengths - offsets[:-1], lengths)
    where = first + np.arange(offsets[-1])
    return SequenceStore(
        np.asarray(store.items[where]),
        offsets,
        store.n_items,
        timestamps=None if store.timestamps is None else np.asarray(store.timestamps[where]),
        baskets=None if store.baskets is None else np.asarray(store.baskets[where]),
    )


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


def _check_parts(
    model: Model,
    items: pl.DataFrame,
    users: pl.DataFrame | None,
    store: SequenceStore | None,
    index: Index | None,
    popularity: Int64,
    playlists: PlaylistIndex | None,
) -> None:
    """Refuse parts that do not belong together, before anything is written."""
    sizes = {"items": len(items), "popularity": len(popularity) - 1}
    if index is not None:
        sizes["index"] = index.n_items
    if store is not None:
        sizes["events"] = store.n_items
    wrong = {part: n for part, n in sizes.items() if n != model.n_items}
    if wrong:
        raise ArtifactError(
            f"the model knows {model.n_items} items, but {wrong} differ; "
            "publish parts of the same prepared data"
        )
    if model.reads_baskets and store is not None and store.baskets is None:
        raise ArtifactError(
            "the model reads baskets, but the events have none; publish the sequences it learned from"
        )
    if model.reads_times and store is not None and store.timestamps is None:
        raise ArtifactError(
            "the model reads times, but the events have none; publish the sequences it learned from"
        )
    if playlists is not None and (users is None or store is None):
        raise ArtifactError(
            "playlists are lists of users; publish them with users and their events"
        )
    if users is not None and store is not None and len(users) != store.n_users:
        raise ArtifactError(f"{len(users)} users, but sequences of {store.n_users}")


def _write_model(work: Path, model: Model, config: ModelConfig) -> None:
    (work / CONFIG).write_text(dump_config(config), "utf-8")
    state = model.state_dict()
    # Cloned, because safetensors refuses tensors that share memory (tied tables).
    tensors = {key: state[key].detach().cpu().contiguous().clone() for key in sorted(state)}
    save_file(tensors, work / WEIGHTS)


def _describe(
    work: Path,
    name: str,
    model: Model,
    config: ModelConfig,
    recent: SequenceStore | None,
    index: Index | None,
    info: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the manifest: facts, the hash of every file, and a digest of the manifest itself."""
    paths = sorted(p for p in work.rglob("*") if p.is_file())
    files = {
        p.relative_to(work).as_posix(): {"sha256": file_hash(p), "bytes": p.stat().st_size}
        for p in paths
    }
    sizes = {"items": model.n_items}
    if recent is not None:
        sizes |= {"users": recent.n_users, "recent_events": recent.n_events}
    content = {
        "schema_version": SCHEMA_VERSION,
        "code_version": __version__,
        "format": FORMAT,
        "bundle_version": BUNDLE_VERSION,
        "name": name,
        "version": _version(files, info),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": {"kind": config.kind, "max_length": model.max_length},
        "sizes": sizes,
        "index": None if index is None else index.facts(),
        "files": files,
        "info": dict(info),
    }
    plain: dict[str, Any] = json.loads(
        json.dumps(content, default=str), parse_constant=lambda name: None
    )  # JSON has no NaN or infinity: a metric without a value is null
    return {**plain, "digest": stable_hash(plain)}


def _version(files: Mapping[str, Mapping[str, Any]], info: Mapping[str, Any]) -> str:
    lines = "".join(f"{path} {files[path]['sha256']}\n" for path in sorted(files))
    lines += "".join(f"{rule} {json.dumps(info.get(rule))}\n" for rule in RULES)
    return hashlib.sha256(lines.encode()).hexdigest()[:8]


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
    if digest != stable_hash(manifest) or manifest["version"] != _version(
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
