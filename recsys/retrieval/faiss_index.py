"""The FAISS kinds: Flat, HNSW, IVF-Flat, IVF-PQ and a scan of 4-bit product codes, all by inner product,
on a GPU where there is one.

Three traps are stepped around. FAISS' id selectors are not used (HNSW ignores them in some modes):
more candidates are fetched than asked for, forbidden ones are dropped here, and the fetch grows
until lists are full, at the last by an exact search. Vectors are searched as they are: turning
inner product into a distance by one more dimension lowered HNSW's recall@100 (50,000 x 64, 32
links, search width 256) from .984 to .775 on low-rank vectors and from .965 to .062 on Gaussian
ones of uneven norm. And a process that has searched must not fork a worker that searches, which
hangs in OpenMP: start workers by `spawn`.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding

from recsys.config import IndexConfig
from recsys.data.sequences import Int64
from recsys.errors import ArtifactError, ConfigError, MissingExtraError
from recsys.retrieval.exclusion import Exclusion, Histories
from recsys.retrieval.index import Index, Vectors, checked, exact_search

log = logging.getLogger(__name__)

STRUCTURE = "index.faiss"
PQ_CODES = 256
"""Centroids of each product-quantiser byte; training needs at least as many vectors."""
KINDS = ("flat", "hnsw", "ivf_flat", "ivf_pq", "pq_scan")
RERANKED = {"ivf_pq": 8}
"""Candidates fetched per wanted item, where more than one: distances between codes are settled exactly."""
SCAN_BITS = 4
SCAN_LEAST = 320
"""Candidates that a scan fetches at least: for short lists they cost next to nothing."""
ONLY_CPU = {"hnsw", "pq_scan"}
"""Kinds that FAISS does not search on a GPU."""
GROWTH = 4
"""Factor by which a fetch grows when too many candidates were forbidden."""


@dataclass
class FaissIndex(Index):
    """Candidates from FAISS, scored exactly. FAISS' row r is item r + 1, so PAD is not in it."""

    structure: Any
    kind: str = field(kw_only=True)
    exact_searches: int = field(default=0, init=False)
    """Queries answered by exact search because FAISS could not fill their lists."""

    def __post_init__(self) -> None:
        self.columns = (
            self.columns.T.contiguous().T
        )  # candidates are picked: an item's numbers together

    def search(
        self, queries: Vectors, k: int, exclusion: Exclusion, histories: Histories
    ) -> tuple[Tensor, Tensor]:
        """See `Index.search`. With an allow-list the search is exact."""
        rows = checked(queries)
        if exclusion.allowed is not None:
            return exact_search(self.columns, rows, k, exclusion, histories)
        items = torch.full((len(rows), k), -1, dtype=torch.int64)
        scores = torch.full((len(rows), k), -torch.inf)
        todo = torch.arange(len(rows))
        longest = int((histories.end - histories.start).max(initial=0)) if exclusion.seen else 0
        fetch = self._reranked(k) + longest + len(exclusion.blocked)
        while len(todo) and 2 * fetch < self.n_items:
            part = _rows(histories, todo)
            items[todo], scores[todo] = self._approximate(rows[todo], k, exclusion, part, fetch)
            todo = todo[items[todo, -1] < 0]
            fetch *= GROWTH
        if len(todo):
            self.exact_searches += len(todo)
            part = _rows(histories, todo)
            items[todo], scores[todo] = exact_search(self.columns, rows[todo], k, exclusion, part)
        return items, scores

    def _approximate(
        self, queries: Tensor, k: int, exclusion: Exclusion, histories: Histories, fetch: int
    ) -> tuple[Tensor, Tensor]:
        """Fetch candidates, score them exactly, drop what is not permitted, keep k."""
        found = self._candidates(queries, fetch)  # [B, fetch]
        found.sort(axis=1)  # so that equal scores fall to the smaller item index
        items = torch.from_numpy(found)
        vectors = embedding(
            items, self.vectors
        )  # [B, fetch, D], in a third of the time of `[items]`
        scores = torch.bmm(vectors, queries[:, :, None])[:, :, 0]
        open_ = torch.from_numpy(exclusion.permitted(found, histories))
        scores = scores.masked_fill(~open_, -torch.inf)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        scores, items = scores[:, :k], items.gather(1, order[:, :k])
        return torch.where(torch.isneginf(scores), -1, items), scores

    def _reranked(self, k: int) -> int:
        """Return how many candidates settle the best k."""
        if self.kind == "pq_scan":
            return max(SCAN_LEAST, self.config.scan_rerank * k)
        return RERANKED.get(self.kind, 1) * k

    def _candidates(self, queries: Tensor, fetch: int) -> Int64:
        """Return item indices int64 [B, fetch], 0 where FAISS found fewer."""
        rows = np.ascontiguousarray(queries.numpy())
        _, found = self.structure.search(rows, fetch, params=self._effort(fetch))
        return np.asarray(found + 1, dtype=np.int64)

    def _effort(self, fetch: int) -> Any:
        """Return how wide to search, for this call alone: other threads keep their own width."""
        faiss = import_faiss()
        if self.kind == "hnsw":
            return faiss.SearchParametersHNSW(efSearch=max(self.config.ef_search, fetch))
        if self.kind in ("flat", "pq_scan"):
            return None
        # Enough cells that they hold the fetch several times over.
        lists = int(self.structure.nlist)
        wanted = max(probes(self.config, lists), math.ceil(4 * fetch * lists / self.n_items))
        return faiss.SearchParametersIVF(nprobe=min(lists, wanted))

    def save(self, directory: Path) -> None:
        """Write the index; FAISS' part is left out for `flat`, which is the vectors again."""
        super().save(directory)
        if self.kind != "flat":
            faiss = import_faiss()
            structure = self.structure
            if on_gpu(faiss, structure):
                structure = faiss.index_gpu_to_cpu(structure)
            faiss.write_index(structure, str(directory / STRUCTURE))


def _rows(histories: Histories, which: Tensor) -> Histories:
    rows = which.numpy()
    return Histories(histories.values, histories.start[rows], histories.end[rows])


def probes(config: IndexConfig, lists: int) -> int:
    """Return how many cells a search visits: an eighth of them unless configured."""
    return config.probes or max(1, lists // 8)


def build_faiss(kind: str, config: IndexConfig, rows: Tensor) -> FaissIndex:
    """Train and fill a FAISS index with `rows` float32 [n_items + 1, D]; FAISS' own seeds."""
    faiss = import_faiss()
    vectors = np.ascontiguousarray(rows[1:].numpy())
    if not len(vectors):
        raise ConfigError("index: a FAISS index needs at least one item; use kind: exact")
    structure = _empty(faiss, kind, config, *vectors.shape)
    structure.train(vectors)
    structure.add(vectors)
    return FaissIndex(config, rows.T, _to_gpu(faiss, kind, config, structure), kind=kind)


def load_faiss(
    directory: Path, meta: dict[str, Any], config: IndexConfig, columns: Tensor
) -> FaissIndex:
    """Open the FAISS part of a saved index."""
    faiss, kind, path = import_faiss(), str(meta["kind"]), directory / STRUCTURE
    if kind not in KINDS:
        raise ArtifactError(f"{directory}: index kind {kind!r} is not one of {', '.join(KINDS)}")
    if kind == "flat":
        structure = _empty(faiss, kind, config, columns.shape[1] - 1, columns.shape[0])
        structure.add(np.ascontiguousarray(columns.T[1:].numpy()))
    elif not path.is_file():
        raise ArtifactError(f"{path} is missing; run the index stage")
    else:
        try:
            structure = faiss.read_index(str(path))
        except RuntimeError as error:
            raise ArtifactError(f"{path} is not readable by FAISS {faiss.__version__}") from error
    structure = _to_gpu(faiss, kind, config, structure)
    return FaissIndex(config, columns, structure, kind=kind, recall=meta["recall"])


def _empty(faiss: Any, kind: str, config: IndexConfig, n: int, width: int) -> Any:
    """Return an untrained index of the kind for n vectors."""
    metric = faiss.METRIC_INNER_PRODUCT
    if kind == "flat":
        return faiss.IndexFlatIP(width)
    if kind == "hnsw":
        structure = faiss.IndexHNSWFlat(width, config.hnsw_links, metric)
        structure.hnsw.efConstruction = config.ef_construction
        return structure
    if kind == "pq_scan":
        return _scan(faiss, n, width)
    lists = min(n, config.lists or max(1, round(4 * math.sqrt(n))))
    quantizer = faiss.IndexFlatIP(width)
    if kind == "ivf_flat":
        structure = faiss.IndexIVFFlat(quantizer, width, lists, metric)
    else:
        _check_quantiser(config, n, width)
        structure = faiss.IndexIVFPQ(quantizer, width, lists, config.pq_bytes, 8, metric)
        structure.pq.cp.min_points_per_centroid = 1
    structure.cp.min_points_per_centroid = 1  # small catalogues are no reason to warn
    return structure


def _scan(faiss: Any, n: int, width: int) -> Any:
    """Return an untrained scan of product codes: four bits for two numbers (or for one, where odd).

    Eight 4-bit tables are looked up by one instruction (Andre et al. 2017, Quicker ADC), so that all
    codes are read in less time than a graph takes to be walked. Two numbers a code keep the candidates
    good enough that some hundreds, scored exactly, hold the best.
    """
    if n < (least := 2**SCAN_BITS):
        raise ConfigError(
            f"index.kind=pq_scan needs at least {least} items, the catalogue has {n}; use exact"
        )
    codes = width // 2 if width % 2 == 0 else width
    structure = faiss.IndexPQFastScan(width, codes, SCAN_BITS, faiss.METRIC_INNER_PRODUCT)
    structure.pq.cp.min_points_per_centroid = 1
    return structure


def _check_quantiser(config: IndexConfig, n: int, width: int) -> None:
    if width % config.pq_bytes:
        allowed = [d for d in range(1, width + 1) if width % d == 0]
        raise ConfigError(
            f"index.pq_bytes={config.pq_bytes} must divide the vector size {width}; "
            f"allowed: {', '.join(map(str, allowed))}"
        )
    if n < PQ_CODES:
        raise ConfigError(
            f"index.kind=ivf_pq needs at least {PQ_CODES} items, the catalogue has {n}; use exact"
        )


def _to_gpu(faiss: Any, kind: str, config: IndexConfig, structure: Any) -> Any:
    """Return the index on the first GPU where config and hardware agree, else as it is."""
    gpus = faiss.get_num_gpus() if hasattr(faiss, "StandardGpuResources") else 0
    if config.gpu == "off" or (config.gpu == "auto" and not gpus):
        return structure
    if not gpus:
        raise ConfigError("index.gpu=on, but FAISS sees no GPU; install faiss-gpu or use gpu: auto")
    if kind in ONLY_CPU:
        log.warning("FAISS has no %s on a GPU; this index is searched on the CPU", kind)
        return structure
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, structure)


def on_gpu(faiss: Any, structure: Any) -> bool:
    """Tell whether a FAISS index lives on a GPU."""
    return hasattr(faiss, "GpuIndex") and isinstance(structure, faiss.GpuIndex)


def import_faiss() -> Any:
    """Return the faiss module, or say which extra brings it."""
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError("faiss", "ann") from error
    return faiss


def grown_faiss(index: Index, columns: Tensor, vectors: Tensor) -> FaissIndex:
    """Return a copy of a FAISS index with more items; `columns` are all vectors, `vectors` the new."""
    if not isinstance(index, FaissIndex):
        raise TypeError(f"{type(index).__name__} is no FAISS index")
    faiss = import_faiss()
    structure = index.structure
    if on_gpu(faiss, structure):
        structure = faiss.index_gpu_to_cpu(structure)
    structure = faiss.clone_index(structure)
    structure.add(np.ascontiguousarray(vectors.numpy()))
    structure = _to_gpu(faiss, index.kind, index.config, structure)
    return FaissIndex(index.config, columns, structure, kind=index.kind, recall=index.recall)
