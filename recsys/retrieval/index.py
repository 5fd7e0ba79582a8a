"""An index over item vectors: the items of largest inner product, without those that are forbidden.

`build_index` chooses between `ExactIndex` (this file) and the FAISS kinds (`faiss_index.py`). Every
kind holds the vectors themselves: an approximate index proposes candidates, their scores are always
exact inner products, and lists are full whenever enough items are allowed.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.config import IndexConfig
from recsys.errors import ArtifactError
from recsys.retrieval.blocks import block_rows
from recsys.retrieval.exclusion import Exclusion, Histories
from recsys.retrieval.topk import check_finite, exact_topk, topk_rows
from recsys.schema import PAD

INDEX_META = "index.json"
VECTORS = "vectors.npy"

Vectors = Tensor | npt.NDArray[np.float32]


@dataclass
class Index(ABC):
    """Item vectors, searchable by inner product. Item i is row i; row 0 (PAD) is never found.

    Attributes:
        config: how it was asked for.
        columns: float32 [D, n_items + 1], the vectors as columns. Each kind lays them out as it reads
            them: all of a number together where everything is scored (one query against 100,000
            items of 64 dimensions takes a third of the time), all of an item together where
            candidates are picked (a tenth).
        recall: what `recall_check` measured last, saved with the index; None if never measured.
        rescored: the same of `rescored_recall`; None for a model that needs no rescoring.
        log_z: what `recsys.decoding.normaliser.error_of` measured: how far an estimated log Z is from the
            exact one, in nats; None where it was not.
    """

    config: IndexConfig
    columns: Tensor
    recall: dict[str, float] | None = field(default=None, kw_only=True)
    rescored: dict[str, float] | None = field(default=None, kw_only=True)
    log_z: dict[str, float] | None = field(default=None, kw_only=True)

    kind: str = field(default="exact", init=False)

    @property
    def n_items(self) -> int:
        """Size of the catalogue, PAD not counted."""
        return int(self.columns.shape[1]) - 1

    @property
    def width(self) -> int:
        """Size of a vector (D)."""
        return int(self.columns.shape[0])

    @property
    def vectors(self) -> Tensor:
        """The vectors as rows, float32 [n_items + 1, D] (a view)."""
        return self.columns.T

    @cached_property
    def lengths(self) -> Tensor:
        """Length of every vector, float32 [n_items + 1], never zero."""
        lengths: Tensor = torch.linalg.vector_norm(self.columns, dim=0)
        return lengths.clamp_(min=1e-12)

    @abstractmethod
    def search(
        self, queries: Vectors, k: int, exclusion: Exclusion, histories: Histories
    ) -> tuple[Tensor, Tensor]:
        """Return `(items int64 [B, k], scores float32 [B, k])`, best first, ties by item index.

        Scores are exact inner products of `queries` [B, D] and item vectors. Where fewer than k
        items are permitted, the rest of a list is -1 with score -inf.
        """

    def save(self, directory: Path) -> None:
        """Write `index.json`, the vectors and, for FAISS kinds, the structure into `directory`."""
        directory.mkdir(parents=True, exist_ok=True)
        np.save(directory / VECTORS, self.vectors.contiguous().numpy())
        meta = {"config": self.config.model_dump(mode="json"), **self.facts()}
        (directory / INDEX_META).write_text(json.dumps(meta, indent=2, sort_keys=True) + "\n")

    def facts(self) -> dict[str, Any]:
        """Return what a manifest should say about this index."""
        sizes = {"items": self.n_items, "width": self.width}
        measured = {"recall": self.recall, "rescored": self.rescored, "log_z": self.log_z}
        return {"kind": self.kind, **sizes, **measured}


@dataclass
class ExactIndex(Index):
    """All items scored for every query, in blocks of queries that bound memory."""

    def __post_init__(self) -> None:
        self.columns = self.columns.contiguous()

    def search(
        self, queries: Vectors, k: int, exclusion: Exclusion, histories: Histories
    ) -> tuple[Tensor, Tensor]:
        """See `Index.search`."""
        return exact_search(self.columns, checked(queries), k, exclusion, histories)


def exact_search(
    columns: Tensor, queries: Tensor, k: int, exclusion: Exclusion, histories: Histories
) -> tuple[Tensor, Tensor]:
    """Return the true k best permitted items; of a short allow-list nothing else is scored."""
    n_items = columns.shape[1] - 1
    listed = exclusion.candidates(n_items)
    if listed is not None and 4 * len(listed) < n_items:
        ids = torch.from_numpy(listed)
        return _search_listed(columns[:, ids], ids, queries, k, exclusion, histories)
    items = torch.full((len(queries), k), -1, dtype=torch.int64)
    values = torch.full((len(queries), k), -torch.inf)
    step = block_rows(n_items + 1)
    for at in range(0, len(queries), step):
        part = slice(at, at + step)
        scores = queries[part] @ columns  # [b, n_items + 1]
        exclusion.mask_(scores, histories[part])
        items[part], values[part] = topk_rows(scores, k)
    return items, values


def _search_listed(
    table: Tensor,
    ids: Tensor,
    queries: Tensor,
    k: int,
    exclusion: Exclusion,
    histories: Histories,
) -> tuple[Tensor, Tensor]:
    """Rank the items `ids` [C] alone, whose vectors are the columns of `table` [D, C]."""
    scores = queries @ table  # [B, C]
    permitted = exclusion.permitted(np.broadcast_to(ids.numpy(), scores.shape), histories)
    scores.masked_fill_(~torch.from_numpy(permitted), -torch.inf)
    # PAD's column of -inf: without candidates there would be no column at all.
    scores = torch.nn.functional.pad(scores, (1, 0), value=-torch.inf)  # [B, 1 + C]
    places, values = topk_rows(scores, k)
    names = torch.cat([torch.tensor([PAD]), ids])
    return torch.where(places < 0, -1, names[places.clamp(min=0)]), values


def checked(queries: Vectors) -> Tensor:
    """Return queries as float32 [B, D] on the CPU; `DataError` if any value is not finite."""
    rows = torch.as_tensor(queries, dtype=torch.float32).detach().cpu()
    check_finite(rows, "queries")
    return rows


def build_index(config: IndexConfig, vectors: Vectors) -> Index:
    """Return a searchable index of `vectors` float32 [n_items + 1, D], row 0 being PAD."""
    rows = torch.as_tensor(vectors, dtype=torch.float32).detach().cpu()
    check_finite(rows, "item vectors")
    kind = config.kind
    if kind == "auto":
        kind = "exact" if len(rows) - 1 < config.exact_below else "hnsw"
    if kind == "exact":
        return ExactIndex(config, rows.T)
    from recsys.retrieval.faiss_index import build_faiss

    return build_faiss(kind, config, rows)


def load_index(directory: Path) -> Index:
    """Open an index written by `save`; `ArtifactError` names a missing or unusable file."""
    meta_path, vectors_path = directory / INDEX_META, directory / VECTORS
    for path in (meta_path, vectors_path):
        if not path.is_file():
            raise ArtifactError(f"{path} is missing; run the index stage")
    try:
        meta = json.loads(meta_path.read_text())
        config = IndexConfig.model_validate(meta["config"])
        columns = torch.from_numpy(np.load(vectors_path)).T
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{directory} holds no readable index ({error})") from error
    if meta["kind"] == "exact":
        built: Index = ExactIndex(config, columns, recall=meta["recall"])
    else:
        from recsys.retrieval.faiss_index import load_faiss

        built = load_faiss(directory, meta, config, columns)
    built.rescored, built.log_z = meta.get("rescored"), meta.get("log_z")
    return built


def recall_check(index: Index, vectors: Vectors, queries: Vectors, k: int) -> dict[str, float]:
    """Return `{"k", "queries", "recall"}` against exact search, and keep it in `index.recall`.

    Recall is the mean over queries of (returned items whose score reaches the true k-th best score)
    / min(k, n_items); a tie with the k-th counts as found.
    """
    asked = checked(queries)
    table = torch.as_tensor(vectors, dtype=torch.float32)
    k = min(k, index.n_items)
    everything = Exclusion(seen=False)
    nothing = Histories.from_lists([[]] * len(asked))
    _, truth = exact_topk(asked, table, k)
    _, found = index.search(asked, k, everything, nothing)
    tolerance = 1e-5 * truth.abs().amax(1, keepdim=True)  # two summation orders of one product
    hits = (found >= truth[:, -1:] - tolerance).float().mean()
    index.recall = {"k": k, "queries": len(asked), "recall": float(hits)}
    return index.recall


def most_alike(vector: Tensor, index: Index, closed: Sequence[int] = ()) -> int:
    """Return the item not `closed` of largest cosine with a vector [D]; of equal ones the first."""
    cosines = vector @ index.columns / index.lengths
    cosines[[PAD, *closed]] = -torch.inf
    return int(cosines.argmax())
