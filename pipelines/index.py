"""The index stage: a learned model's item vectors, searchable, with the recall that the search has."""

from __future__ import annotations

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

STAGE_VERSION: Final = 1
ITEMS_AT_ONCE: Final = 65_536
RECALL_QUERIES: Final = 1000
RECALL_K: Final = 100


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
    also has the recall of its rescored shortlist against full ranking there, as `rescored`.
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
    built.save(directory)
    return built.facts()


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
    import numpy as np

    from recsys.data.batches import history_batches
    from recsys.data.sequences import Targets

    all_targets = run.split.validation
    rng = np.random.default_rng(run.config.seed)
    size = min(RECALL_QUERIES, len(all_targets))
    chosen = np.sort(rng.choice(len(all_targets), size, replace=False))
    targets = Targets(all_targets.user[chosen], all_targets.start[chosen], all_targets.end[chosen])
    batches = history_batches(run.store, targets, run.model.max_length, 128)
    for _, batch in batches:
        yield batch
