"""Writing a bundle, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors.torch import save_file

from recsys import __version__
from recsys.bundle.layout import (
    BUNDLE_VERSION,
    CONFIG,
    EXCLUDE,
    FORMAT,
    INDEX,
    ITEMS,
    PLAYLISTS,
    POPULARITY,
    RECENT,
    SEEN,
    TEXT,
    USERS,
    WEIGHTS,
    version_of,
)
from recsys.config import ModelConfig, dump_config
from recsys.data.sequences import Int64, SequenceStore
from recsys.errors import ArtifactError
from recsys.lock import locked
from recsys.manifest import (
    SCHEMA_VERSION,
    file_hash,
    replace_directory,
    stable_hash,
    write_manifest,
)
from recsys.models import Model
from recsys.playlist_index import PlaylistIndex
from recsys.retrieval.exclusion import Exclusion
from recsys.retrieval.index import Index
from recsys.schema import USER


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
        "version": version_of(files, info),
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
