"""The lists that probes ask about: which they are, and what is known of them from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.config.probes import ProbeConfig
from recsys.data.sequences import Int32, Int64, SequenceStore
from recsys.errors import DataError
from recsys.schema import USER

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ProbeLists:
    """N lists.

    Attributes:
        users: int64 [N], dense index of each list, ascending.
        songs: of each list its newest songs, int32; no longer than every model reads.
        left_out: how many lists are not here, by reason.
    """

    users: Int64
    songs: list[Int32]
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.users)

    @property
    def lengths(self) -> Int64:
        """Songs of each list, int64 [N]."""
        return np.array([len(one) for one in self.songs], dtype=np.int64)


def choose_lists(
    store: SequenceStore, train_end: Int64, config: ProbeConfig, longest: int, seed: int
) -> ProbeLists:
    """Return the lists to ask about.

    Args:
        store: all events.
        train_end: int64 [U], end of what the models learned of each list.
        config: which lists.
        longest: newest songs of a list that every model reads; of a longer one the rest is cut off.
        seed: of the sample.

    Raises:
        DataError: fewer lists than folds are left.
    """
    lengths, begin = np.diff(store.offsets), store.offsets[:-1]
    long = lengths >= config.min_songs
    fresh = train_end <= begin if config.lists == "unseen" else np.ones(len(lengths), dtype=bool)
    chosen = np.flatnonzero(long & fresh)
    left = {
        "learned from": int((~fresh).sum()),
        f"fewer than {config.min_songs} songs": int((fresh & ~long).sum()),
    }
    if len(chosen) > config.max_lists:
        left["not drawn"] = len(chosen) - config.max_lists
        rng = np.random.default_rng((seed, 1))
        chosen = np.sort(rng.choice(chosen, config.max_lists, replace=False))
    if len(chosen) < 2 * config.folds:
        raise DataError(
            f"{len(chosen)} lists are left to probe ({left}), too few for {config.folds} folds; lower "
            "probe.min_songs, hold out more lists by the split, or set probe.lists to all"
        )
    left["cut to the newest songs"] = int((lengths[chosen] > longest).sum())
    end = store.offsets[1:]
    songs = [
        np.array(store.items[max(begin[u], end[u] - longest) : end[u]], dtype=np.int32)
        for u in chosen
    ]
    return ProbeLists(chosen.astype(np.int64), songs, left)


def as_store(lists: list[Int32], n_items: int) -> SequenceStore:
    """Pack lists for a model to read, without times."""
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in lists])]).astype(np.int64)
    flat = np.concatenate([np.zeros(0, dtype=np.int32), *lists]).astype(np.int32)
    zeros = np.zeros(len(flat), dtype=np.int64)
    return SequenceStore(flat, offsets, n_items, timestamps=zeros, baskets=_own_baskets(offsets))


def _own_baskets(offsets: Int64) -> Int32:
    """Number the events of each list, so that every one is a basket of its own."""
    whole = np.arange(offsets[-1]) - np.repeat(offsets[:-1], np.diff(offsets))
    return whole.astype(np.int32)


@dataclass(frozen=True)
class Label:
    """A question with one right answer for some lists.

    Attributes:
        name: of the label.
        rows: int64 [M], which lists have one.
        classes: int64 [M], 0..C-1, by falling number of lists, ties by name.
        names: of the C classes.
        left_out: lists without an answer, or of a class that is too small.
    """

    name: str
    rows: Int64
    classes: Int64
    names: list[str]
    left_out: int


def label_of(name: str, values: pl.Series, config: ProbeConfig) -> Label | None:
    """Return a label of values [N], null where unknown; None if fewer than two classes are left.

    Numbers of more than `bands` different values are cut at their quantiles.
    """
    known = values
    if values.dtype.is_numeric() and values.n_unique() > config.bands:
        known = _bands(values.cast(pl.Float64), config.bands)
    texts = known.cast(pl.String)
    counts = texts.drop_nulls().value_counts().sort(["count", texts.name], descending=[True, False])
    kept = counts.filter(pl.col("count") >= config.min_class)[texts.name].to_list()
    if len(kept) < 2:
        return None
    number = {one: place for place, one in enumerate(kept)}
    classes = np.array([number.get(text, -1) for text in texts.to_list()], dtype=np.int64)
    rows = np.flatnonzero(classes >= 0)
    return Label(name, rows, classes[rows], kept, len(values) - len(rows))


def _bands(values: pl.Series, bands: int) -> pl.Series:
    """Cut numbers at their quantiles; equal numbers share a band, whose name is its range."""
    known = np.sort(values.drop_nulls().to_numpy())
    inner = [known[int(len(known) * part / bands)] for part in range(1, bands)]
    cuts = np.unique(np.array([cut for cut in inner if cut > known[0]], dtype=np.float64))
    edges = [known[0], *cuts, np.inf]

    def name(value: float | None) -> str | None:
        if value is None or np.isnan(value):
            return None
        place = int(np.searchsorted(cuts, value, side="right"))
        top = "" if np.isinf(edges[place + 1]) else f"{edges[place + 1]:g}"
        return f"{edges[place]:g}-{top}"

    return pl.Series(values.name, [name(value) for value in values.to_list()], dtype=pl.String)


def read_labels(path: str, wanted: list[str], names: pl.Series) -> pl.DataFrame:
    """Return the wanted columns for lists of these names, a row each, null where the file has none.

    Raises:
        DataError: the file is no such table, or names a list twice.
    """
    frame = pl.read_parquet(path)
    missing = [name for name in (USER, *wanted) if name not in frame.columns]
    if missing:
        raise DataError(
            f"probe.labels: {path} lacks {', '.join(missing)}; it has {', '.join(frame.columns)}"
        )
    frame = frame.select(pl.col(USER).cast(pl.String), *wanted)
    if frame[USER].is_duplicated().any():
        twice = frame.filter(frame[USER].is_duplicated())[USER][0]
        raise DataError(f"probe.label_file: {path} has list {twice!r} more than once")
    asked = pl.DataFrame({USER: names.cast(pl.String)})
    joined = asked.join(frame, on=USER, how="left", maintain_order="left")
    if joined.select(pl.all_horizontal(pl.col(wanted).is_null()).all()).item():
        raise DataError(f"probe.label_file: {path} knows none of the lists; are the ids the same?")
    return joined.select(wanted)
