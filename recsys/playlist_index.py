"""Published playlists, searchable: by what they are like, and by what they ask for.

Two vectors of each. Its embedding, at unit length: by the inner product of two, which is their cosine,
playlists are alike. And its query, what the model is asked with for the next song: a song's inner
product with it is the song's score for that playlist, so the same search turned around finds the
playlists for a song.

    playlists/
      names.parquet    playlist, row (1..P), user (dense index of the list)
      alike/           the embeddings, an index
      asking/          the queries, an index
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from recsys.config import IndexConfig
from recsys.data.batches import SequenceBatch, pack_histories
from recsys.data.sequences import Int64, SequenceStore
from recsys.data.vocabulary import Vocabulary
from recsys.errors import DataError
from recsys.models.contract import EncoderModel
from recsys.retrieval.index import Index, build_index, load_index

Float32 = npt.NDArray[np.float32]

NAMES, ALIKE, ASKING = "names.parquet", "alike", "asking"
PLAYLIST, ROW, OWNER = "playlist", "row", "user"
BLOCK = 256
"""Lists encoded at once; sorted by length, so that they have little padding."""


@dataclass(frozen=True)
class PlaylistIndex:
    """Playlists 1..P by name, with both of their vectors.

    Attributes:
        names: playlists and their rows.
        users: int64 [P + 1], the dense index of each row's list among the users; -1 in row 0.
        alike: unit embeddings, searched by cosine.
        asking: queries, searched by item vectors.
    """

    names: Vocabulary
    users: Int64
    alike: Index
    asking: Index

    def __len__(self) -> int:
        return len(self.names)

    def save(self, directory: Path) -> None:
        """Write everything into `directory`."""
        directory.mkdir(parents=True, exist_ok=True)
        rows = np.arange(1, len(self) + 1, dtype=np.int32)
        columns = {PLAYLIST: self.names.ids, ROW: rows, OWNER: self.users[1:]}
        pl.DataFrame(columns).write_parquet(directory / NAMES)
        self.alike.save(directory / ALIKE)
        self.asking.save(directory / ASKING)

    @classmethod
    def load(cls, directory: Path) -> PlaylistIndex:
        """Open what `save` wrote."""
        frame = pl.read_parquet(directory / NAMES).sort(ROW)
        users = np.concatenate([[-1], frame[OWNER].to_numpy()]).astype(np.int64)
        names = Vocabulary(frame[PLAYLIST], first_index=1)
        return cls(names, users, load_index(directory / ALIKE), load_index(directory / ASKING))

    def facts(self) -> dict[str, Any]:
        """Return what a manifest should say."""
        return {"playlists": len(self), "alike": self.alike.facts(), "asking": self.asking.facts()}


def build_playlists(
    model: EncoderModel,
    store: SequenceStore,
    names: pl.Series,
    config: IndexConfig,
    min_songs: int = 1,
) -> PlaylistIndex:
    """Return the index of all lists of a store that have at least `min_songs` events.

    Raises:
        DataError: there is no such list.
    """
    chosen = np.flatnonzero(np.diff(store.offsets) >= max(1, min_songs))
    if not len(chosen):
        raise DataError(
            f"no list has {max(1, min_songs)} songs, so there are no playlists to publish; lower "
            "publish.playlists.min_songs"
        )
    embeddings, queries = list_vectors(model, store, chosen)
    unit = torch.nn.functional.normalize(torch.from_numpy(embeddings), dim=1)
    return PlaylistIndex(
        Vocabulary(names.cast(pl.String).gather(chosen), first_index=1),
        np.concatenate([[-1], chosen]).astype(np.int64),
        build_index(config, _with_pad(unit)),
        build_index(config, _with_pad(torch.from_numpy(queries))),
    )


def list_vectors(
    model: EncoderModel, store: SequenceStore, lists: Int64
) -> tuple[Float32, Float32]:
    """Return `(embeddings [P, E], queries [P, D])` of these lists of a store, float32, in order."""
    queries = _encoded(model.encode_sequences, model.width, model, store, lists)
    return list_embeddings(model, store, lists), queries


def list_embeddings(model: EncoderModel, store: SequenceStore, lists: Int64) -> Float32:
    """Return the embeddings of these lists of a store alone, float32 [P, E], in order."""
    return _encoded(model.embed_lists, model.embedding_width, model, store, lists)


@torch.inference_mode()
def _encoded(
    encode: Callable[[SequenceBatch], Tensor],
    width: int,
    model: EncoderModel,
    store: SequenceStore,
    lists: Int64,
) -> Float32:
    """Return what a model makes of lists, block by block, float32 [P, width]."""
    out = np.empty((len(lists), width), dtype=np.float32)
    begin, end = store.offsets[:-1][lists], store.offsets[1:][lists]
    device = next(iter(model.state_dict().values())).device
    for some in by_length(end - begin):
        batch = pack_histories(store, begin[some], end[some], model.max_length).to(device)
        out[some] = encode(batch).float().cpu().numpy()
    return out


def by_length(lengths: Int64) -> list[Int64]:
    """Cut lists into blocks of like lengths, each int64; ties in the order they came in."""
    order = np.argsort(lengths, kind="stable")
    return [order[at : at + BLOCK] for at in range(0, len(order), BLOCK)]


def _with_pad(rows: Tensor) -> Tensor:
    return torch.cat([rows.new_zeros(1, rows.shape[1]), rows])
