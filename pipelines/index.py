"""The index stage: a learned model's item vectors, searchable, with the recall that the search has."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipelines.ray_session import map_partitions, ray_session
from pipelines.runs import Run, tested_run
from recsys.config import ExperimentConfig
from recsys.manifest import is_current, stable_hash, stage_directory

if TYPE_CHECKING:
    from torch import Tensor

    from recsys.data.batches import SequenceBatch
    from recsys.data.sequences import Targets
    from recsys.retrieval.index import Index

logger = logging.getLogger(__name__)

STAGE_VERSION: Final = 4
ITEMS_AT_ONCE: Final = 65_536
RECALL_QUERIES: Final = 1000
RECALL_K: Final = 100
TRADEOFF: Final = "tradeoff.json"
"""In an index directory: every kind of index on these vectors, see `recsys/retrieval/tradeoff.py`."""
MAP: Final = "map.parquet"
"""In an index directory: items and histories in the plane, see `write_map`."""
QUERIES: Final = "queries.npy"
"""In an index directory: the query vectors of the histories on the map."""


def index_directory(run: Run) -> Path:
    """Return where the index of a run lies, finished or not."""
    return run.config.workspace / "index" / run.directory.name


def index_key(run: Run) -> str:
    """Return the hash of everything that makes a run's index."""
    settings = run.config.index.model_dump(mode="json")
    return stable_hash({"run": run.key, "index": settings, "version": STAGE_VERSION})


def index(config: ExperimentConfig, name: str, fold: str = "main") -> Path:
    """Index the item vectors of a trained model and return the finished directory.

    The model is the one that is tested and published. The manifest has the search's recall at 100
    against exact search, for the histories of up to 1,000 seeded validation targets: real queries,
    because the recall of random ones says little. A model whose score is more than one inner product
    also has the recall of its rescored shortlist against full ranking there, as `rescored`. For the same
    queries `log_z` says how far the estimate of log Z, by which long catalogues' lists are compared, is
    from the sum over all items.
    """
    run = tested_run(config, name, fold)
    directory, key = index_directory(run), index_key(run)
    if is_current(directory, key):
        return directory

    with stage_directory(directory, key) as (work, manifest), ray_session(config.ray):
        tasks = [(config, name, fold, work)]
        [facts] = map_partitions(build, tasks, workers=1, title=f"index {name}")
        manifest.update(run=run.directory.name, model=name, fold=fold, **facts)
    return directory


def build(task: tuple[ExperimentConfig, str, str, Path]) -> dict[str, Any]:
    """Write a run's index into a directory and return its facts (a Ray task)."""
    import torch

    from recsys.models import EncoderModel
    from recsys.retrieval.index import build_index, recall_check
    from recsys.retrieval.rescore import rescored_recall

    config, name, fold, directory = task
    run = tested_run(config, name, fold)
    with torch.inference_mode():
        vectors = item_vectors(run)
        built = build_index(config.index, vectors)
        queries = sample_queries(run)
        if len(queries):
            recall_check(built, vectors, queries, RECALL_K)
        if isinstance(run.model, EncoderModel) and not run.model.is_inner_product:
            rescored_recall(built, run.model, sample_histories(run), RECALL_K)
        elif len(queries):
            built.log_z = log_z_error(run, built, queries)
        measure_tradeoff(built, queries, directory)
        write_map(run, vectors, queries, directory)
    built.save(directory)
    return built.facts()


def log_z_error(run: Run, built: Index, queries: Tensor) -> dict[str, float]:
    """Return the error of the estimate of log Z with the candidates and the sample of a search's defaults."""
    from recsys.decoding import Catalogue, SearchSettings
    from recsys.decoding.normaliser import error_of
    from recsys.models import EncoderModel

    assert isinstance(run.model, EncoderModel)
    usual = SearchSettings()
    return error_of(Catalogue(run.model, built), queries, usual.candidates, usual.sample)


def item_vectors(run: Run) -> Tensor:
    """Return the vectors of all items, float32 [n_items + 1, D], encoded in bounded blocks."""
    import torch

    from recsys.models import EncoderModel

    assert isinstance(run.model, EncoderModel)
    size = run.store.n_items + 1
    blocks = (
        torch.arange(at, min(at + ITEMS_AT_ONCE, size)) for at in range(0, size, ITEMS_AT_ONCE)
    )
    return torch.cat([run.model.encode_items(block).float() for block in blocks])  # [N + 1, D]


def sample_queries(run: Run) -> Tensor:
    """Return the query vectors of a seeded sample of validation targets, float32 [Q, D]."""
    import torch

    from recsys.models import EncoderModel

    assert isinstance(run.model, EncoderModel)
    parts = [run.model.encode_sequences(batch).float() for batch in sample_histories(run)]
    return torch.cat(parts) if parts else torch.empty(0, run.model.width)  # [Q, D]


def sample_histories(run: Run) -> Iterator[SequenceBatch]:
    """Yield the histories of a seeded sample of validation targets, some at a time."""
    from recsys.data.batches import history_batches

    batches = history_batches(run.store, sample_targets(run), run.model.max_length, 128)
    for _, batch in batches:
        yield batch


def sample_targets(run: Run) -> Targets:
    """Return a seeded sample of validation targets, in their order."""
    import numpy as np

    from recsys.data.sequences import Targets

    every = run.split.validation
    rng = np.random.default_rng(run.config.seed)
    chosen = np.sort(rng.choice(len(every), min(RECALL_QUERIES, len(every)), replace=False))
    return Targets(every.user[chosen], every.start[chosen], every.end[chosen])


def measure_tradeoff(built: Index, queries: Tensor, directory: Path) -> None:
    """Write what every kind of index would cost and find here, if the configuration wants it."""
    from recsys.errors import MissingExtraError
    from recsys.retrieval.tradeoff import measure_kinds

    config = built.config
    wanted = config.tradeoff == "on" or (
        config.tradeoff == "auto" and built.n_items < config.exact_below
    )
    if not wanted or not len(queries):
        return
    try:
        rows = measure_kinds(built, queries, RECALL_K)
    except MissingExtraError as error:
        if config.tradeoff == "on":
            raise
        logger.warning("The kinds of index are not compared: %s", error)
        return
    (directory / TRADEOFF).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def write_map(run: Run, vectors: Tensor, queries: Tensor, directory: Path) -> None:
    """Write items and sampled histories in the plane, and the vectors of those histories.

    Columns: `kind` (item or history), `item` int32 (0 for a history), `user` int32 (-1 for an item),
    `events` int64 (training events of the item, events before the history's target), `x`, `y` of the
    map of neighbourhoods, `pca_x`, `pca_y` of the two widest directions, float32. A history stands
    amid the items that it scores highest on the map, and at its own vector in the other.
    """
    import numpy as np
    import polars as pl
    import torch

    from recsys.data.sequences import TrainingData
    from recsys.retrieval.layout import NEIGHBOURS, amid, nearest, neighbourhood_map, principal

    items, targets = vectors[1:], sample_targets(run)
    counts = TrainingData(run.store, run.split.train_end).item_counts()[1:]
    places = neighbourhood_map(items, torch.from_numpy(counts), run.config.seed)  # [N, 2]
    flat, _ = principal(torch.cat([items, queries]), fitted_to=len(items))  # [N + Q, 2]
    near, likeness = nearest(queries, items, NEIGHBOURS)
    among = amid(places, near, torch.zeros_like(likeness))  # [Q, 2]
    columns = torch.cat([torch.cat([places, among]), flat], dim=1).numpy()  # [N + Q, 4]
    n, q = len(items), len(queries)
    frame = pl.DataFrame(
        {
            "kind": ["item"] * n + ["history"] * q,
            "item": np.concatenate([np.arange(1, n + 1), np.zeros(q)]).astype(np.int32),
            "user": np.concatenate([np.full(n, -1), targets.user]).astype(np.int32),
            "events": np.concatenate([counts, targets.start - run.store.offsets[targets.user]]),
            **{name: columns[:, i] for i, name in enumerate(("x", "y", "pca_x", "pca_y"))},
        }
    )
    frame.write_parquet(directory / MAP)
    np.save(directory / QUERIES, queries.numpy())
