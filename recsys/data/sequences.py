"""Packed sequences: every user's (or list's) events in one flat array, windows are views.

`items[offsets[u]:offsets[u + 1]]` are the events of user `u`, oldest first. Nothing is stored per
prefix: a training window or an evaluation target is three integers into the flat arrays, which are
memory-mapped int32/int64 files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from recsys.errors import ArtifactError
from recsys.schema import SplitName

if TYPE_CHECKING:
    from recsys.data.token_store import TokenStore

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

SEQUENCE_META = "sequences.json"


@dataclass(frozen=True)
class SequenceStore:
    """All events, user-major and oldest first.

    Attributes:
        items: int32 [E], dense item indices 1..n_items.
        offsets: int64 [U + 1]; user u owns `offsets[u]:offsets[u + 1]`.
        n_items: size of the catalogue without PAD; valid indices are 1..n_items.
        timestamps: int64 [E] seconds, or None when the data set's clock is `none`.
        baskets: int32 [E], equal for events of one basket of a user (baskets are contiguous), or None.
        weights: float32 [E] event weights, or None.
    """

    items: Int32
    offsets: Int64
    n_items: int
    timestamps: Int64 | None = None
    baskets: Int32 | None = None
    weights: npt.NDArray[np.float32] | None = None

    @property
    def n_users(self) -> int:
        """Number of users (or lists), those without events included."""
        return len(self.offsets) - 1

    @property
    def n_events(self) -> int:
        """Number of events."""
        return len(self.items)

    def save(self, directory: Path) -> None:
        """Write the arrays as .npy files and their names and sizes as JSON."""
        directory.mkdir(parents=True, exist_ok=True)
        arrays = {name: getattr(self, name) for name in _ARRAYS if getattr(self, name) is not None}
        for name, array in arrays.items():
            np.save(directory / f"{name}.npy", array)
        write_description(directory, self.n_items, arrays)

    @classmethod
    def load(cls, directory: Path, *, memory_map: bool = True) -> SequenceStore:
        """Open a saved store; arrays are memory-mapped unless told otherwise."""
        meta_path = directory / SEQUENCE_META
        if not meta_path.is_file():
            raise ArtifactError(f"{directory} holds no sequences ({SEQUENCE_META} is missing)")
        meta = json.loads(meta_path.read_text())
        mode: Any = "r" if memory_map else None
        arrays = {name: np.load(directory / f"{name}.npy", mode) for name in meta["arrays"]}
        return cls(n_items=meta["n_items"], **arrays)


def write_description(directory: Path, n_items: int, arrays: Iterable[str]) -> None:
    """Write which arrays a directory of sequences holds; `SequenceStore.load` reads it."""
    meta = {"n_items": n_items, "arrays": sorted(arrays)}
    (directory / SEQUENCE_META).write_text(json.dumps(meta))


_ARRAYS = ("items", "offsets", "timestamps", "baskets", "weights")


@dataclass(frozen=True)
class Targets:
    """What a split asks for: after the events before `start` of `user`, the events `start:end`.

    `start` and `end` are absolute positions in the store. A next-event target has `end = start + 1`;
    a basket or the rest of a list is a longer run and is judged as a set. The history of a target is
    `offsets[user]:start`.
    """

    user: Int32
    start: Int64
    end: Int64

    def __len__(self) -> int:
        return len(self.user)

    def save(self, path: Path) -> None:
        """Write the three columns as one .npz file (no pickle)."""
        np.savez(path, user=self.user, start=self.start, end=self.end)

    @classmethod
    def load(cls, path: Path) -> Targets:
        """Read targets written by `save`."""
        if not path.is_file():
            raise ArtifactError(f"{path} is missing; run the prepare stage")
        with np.load(path, allow_pickle=False) as archive:
            return cls(user=archive["user"], start=archive["start"], end=archive["end"])


@dataclass(frozen=True)
class Split:
    """One fold: which events train, what validation and test ask for.

    `train_end` is int64 [U], absolute: user u's training events are `offsets[u]:train_end[u]`.
    `refit_end` is the same for a model that is fitted again when validation has been used: all that
    comes before the test window.
    """

    train_end: Int64
    validation: Targets
    test: Targets
    refit_end: Int64 | None = None

    def targets(self, name: SplitName) -> Targets:
        """Return the targets of the named split."""
        return self.validation if name == "validation" else self.test

    def refitted(self) -> Split:
        """Return the fold as a refitted model sees it: the validation window trains, too."""
        if self.refit_end is None:
            raise ArtifactError("this split does not say what a refit may learn; prepare it again")
        return replace(self, train_end=self.refit_end)

    def save(self, directory: Path) -> None:
        """Write the fold into `directory`."""
        directory.mkdir(parents=True, exist_ok=True)
        np.save(directory / "train_end.npy", self.train_end)
        self.validation.save(directory / "validation.npz")
        self.test.save(directory / "test.npz")
        if self.refit_end is not None:
            np.save(directory / "refit_end.npy", self.refit_end)

    @classmethod
    def load(cls, directory: Path) -> Split:
        """Read a fold written by `save`."""
        path = directory / "train_end.npy"
        if not path.is_file():
            raise ArtifactError(f"{path} is missing; run the prepare stage")
        refit = directory / "refit_end.npy"
        return cls(
            train_end=np.load(path),
            validation=Targets.load(directory / "validation.npz"),
            test=Targets.load(directory / "test.npz"),
            refit_end=np.load(refit) if refit.is_file() else None,
        )


@dataclass(frozen=True)
class TrainingData:
    """What a model may learn from: the store, cut at the end of every user's training events.

    Attributes:
        store: all events.
        train_end: int64 [U], where each user's training events end.
        sentences: of the catalogue's items, for models that read them.
        item_vectors: float32 [n_items + 1, D], of the items' texts, for models that read them.
    """

    store: SequenceStore
    train_end: Int64
    sentences: TokenStore | None = None
    item_vectors: npt.NDArray[np.float32] | None = None

    @property
    def lengths(self) -> Int64:
        """Training events per user, int64 [U]."""
        return self.train_end - self.store.offsets[:-1]

    def places(self) -> tuple[Int64, Int64]:
        """Return `(user [E], place in the store [E])` of all training events, oldest first by user."""
        lengths = self.lengths
        users = np.repeat(np.arange(self.store.n_users, dtype=np.int64), lengths)
        first = np.repeat(np.cumsum(lengths) - lengths, lengths)
        return users, self.store.offsets[users] + np.arange(len(users), dtype=np.int64) - first

    def events(self) -> tuple[Int64, Int32]:
        """Return `(user [E], item [E])` of all training events, user-major and oldest first."""
        users, places = self.places()
        return users, np.asarray(self.store.items[places])

    def item_counts(self) -> Int64:
        """Count training events per item, int64 [n_items + 1]; index 0 (PAD) is zero."""
        return np.bincount(self.events()[1], minlength=self.store.n_items + 1).astype(np.int64)
