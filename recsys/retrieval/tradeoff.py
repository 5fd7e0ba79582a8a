"""What each kind of index costs and finds on the vectors at hand: recall beside latency and memory.

Which index is right depends on the vectors: what loses nothing on clustered ones may lose a quarter on
others. So the kinds are built and asked here, with the queries of real histories.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final, TypedDict

import numpy as np
import torch
from torch import Tensor

from recsys.config import IndexConfig
from recsys.errors import ConfigError
from recsys.retrieval.exclusion import Exclusion, Histories
from recsys.retrieval.faiss_index import FaissIndex, import_faiss, probes
from recsys.retrieval.index import Index, build_index, recall_check

TIMED: Final = 200
"""Queries that are asked one at a time."""
WIDTHS: Final = {
    "hnsw": "ef_search",
    "ivf_flat": "probes",
    "ivf_pq": "probes",
    "pq_scan": "scan_rerank",
}
"""Kind -> the setting that makes its search wider."""
EF_SEARCH: Final = (128, 256, 512)
RERANKS: Final = (8, 16, 64)
SHARES: Final = (32, 8, 2)
"""Of the IVF cells, a 32nd, an eighth and a half are visited."""
QUANTISED_FROM: Final = 50_000
"""Items from which codes in place of vectors are tried: learning them costs more than they save."""


class Tradeoff(TypedDict):
    """One kind of index with one width of search.

    Times are milliseconds of one query at a time; `queries_per_second` is of all queries together;
    memory is that of the vectors and the structure, in MB.
    """

    kind: str
    setting: str
    k: int
    recall: float
    p50_ms: float
    p95_ms: float
    queries_per_second: float
    memory_mb: float
    build_seconds: float
    queries: int
    items: int
    threads: int
    chosen: bool


def measure_kinds(chosen: Index, queries: Tensor, k: int) -> list[Tradeoff]:
    """Build every kind of index over the vectors of `chosen` and measure them.

    Args:
        chosen: the index that will serve; its own kind and settings are among the rows.
        queries: float32 [Q, D], vectors of histories.
        k: items asked for.

    Raises:
        MissingExtraError: FAISS is not installed.
    """
    import_faiss()
    vectors = chosen.vectors.contiguous()
    rows = [_measure(chosen, vectors, queries, k, _setting(chosen), 0.0, chosen=True)]
    kinds = ["exact", "flat", "hnsw", "ivf_flat"]
    coded = ["ivf_pq", "pq_scan"]
    kinds += [kind for kind in coded if chosen.n_items >= QUANTISED_FROM or chosen.kind == kind]
    for kind in kinds:
        config = chosen.config.model_copy(update={"kind": kind})
        began = time.perf_counter()
        try:
            built = build_index(config, vectors)
        except ConfigError:  # a quantiser that does not fit these vectors is no kind to choose from
            continue
        took = time.perf_counter() - began
        if kind == chosen.kind:
            rows[0]["build_seconds"] = took
        for index in _widths(built):
            setting = _setting(index)
            if (kind, setting) != (rows[0]["kind"], rows[0]["setting"]):
                rows.append(_measure(index, vectors, queries, k, setting, took))
    return rows


def _widths(built: Index) -> Iterator[Index]:
    """Yield the index with every width of search; the structure is shared."""
    if built.kind not in WIDTHS or not isinstance(built, FaissIndex):
        yield built
        return
    values: tuple[int, ...]
    match built.kind:
        case "hnsw":
            values = EF_SEARCH
        case "pq_scan":
            values = RERANKS
        case _:
            lists = int(built.structure.nlist)
            values = tuple(max(1, lists // share) for share in SHARES)
    for value in dict.fromkeys(values):
        config: IndexConfig = built.config.model_copy(update={WIDTHS[built.kind]: value})
        yield replace(built, config=config)


def _setting(index: Index) -> str:
    """Return the width of a search in words, empty where there is none to choose."""
    if not isinstance(index, FaissIndex) or index.kind not in WIDTHS:
        return ""
    if index.kind in ("hnsw", "pq_scan"):
        setting = WIDTHS[index.kind]
        return f"{setting} {getattr(index.config, setting)}"
    return f"probes {probes(index.config, int(index.structure.nlist))}"


def _measure(
    index: Index,
    vectors: Tensor,
    queries: Tensor,
    k: int,
    setting: str,
    build_seconds: float,
    *,
    chosen: bool = False,
) -> Tradeoff:
    kept = index.recall
    found = recall_check(index, vectors, queries, k)
    index.recall = kept
    times = _single_queries(index, queries[:TIMED], int(found["k"]))
    return Tradeoff(
        kind=index.kind,
        setting=setting,
        k=int(found["k"]),
        recall=found["recall"],
        p50_ms=float(np.median(times)),
        p95_ms=float(np.quantile(times, 0.95)),
        queries_per_second=_throughput(index, queries, int(found["k"])),
        memory_mb=memory_bytes(index) / 1e6,
        build_seconds=build_seconds,
        queries=len(queries),
        items=index.n_items,
        threads=torch.get_num_threads(),
        chosen=chosen,
    )


def _single_queries(index: Index, queries: Tensor, k: int) -> list[float]:
    """Return the milliseconds of every query, asked one after another, after a first for warmth."""
    nothing, everything = Histories.from_lists([[]]), Exclusion(seen=False)
    index.search(queries[:1], k, everything, nothing)
    times = []
    for query in queries:
        began = time.perf_counter()
        index.search(query[None], k, everything, nothing)
        times.append(1000 * (time.perf_counter() - began))
    return times


def _throughput(index: Index, queries: Tensor, k: int) -> float:
    began = time.perf_counter()
    index.search(queries, k, Exclusion(seen=False), Histories.from_lists([[]] * len(queries)))
    return len(queries) / max(time.perf_counter() - began, 1e-9)


def memory_bytes(index: Index) -> int:
    """Return what an index holds in memory: the vectors, and FAISS' structure as it is written."""
    size = int(index.columns.numel() * index.columns.element_size())
    if not isinstance(index, FaissIndex):
        return size
    faiss: Any = import_faiss()
    return size + int(faiss.serialize_index(index.structure).nbytes)
