"""How long a model takes for one list: what a cost-beside-quality chart needs, measured alike for all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from recsys.data.batches import SequenceBatch, history_batches
from recsys.data.sequences import SequenceStore, Targets
from recsys.models.contract import EncoderModel, Model
from recsys.retrieval.topk import topk_rows

LISTS = 50
LIST_LENGTH = 100


class Latency(TypedDict):
    """Milliseconds of one list of 100 on one CPU thread, one at a time, by exact search.

    Null without targets.
    """

    p50_ms: float | None
    p95_ms: float | None
    lists: int
    threads: int


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread, as an endpoint does: how many a process was given is chance."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.inference_mode()
def list_latency(model: Model, store: SequenceStore, targets: Targets, seed: int) -> Latency:
    """Return the median and 95th percentile over a seeded sample of up to 50 histories.

    A list is scores of the whole catalogue and its best items; nothing is excluded.
    """
    with one_thread():
        return _latency(model.to("cpu").eval(), store, targets, seed)


def _latency(model: Model, store: SequenceStore, targets: Targets, seed: int) -> Latency:
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(len(targets), min(LISTS, len(targets)), replace=False))
    some = Targets(targets.user[chosen], targets.start[chosen], targets.end[chosen])
    k, score = min(LIST_LENGTH, model.n_items), _scorer(model)
    milliseconds = []
    for _, batch in history_batches(store, some, model.max_length, 1):
        began = time.perf_counter()
        topk_rows(score(batch).float(), k)
        milliseconds.append(1000 * (time.perf_counter() - began))
    measured = milliseconds[1:] or milliseconds  # the first pays for what is loaded once
    return Latency(
        p50_ms=float(np.median(measured)) if measured else None,
        p95_ms=float(np.quantile(measured, 0.95)) if measured else None,
        lists=len(measured),
        threads=torch.get_num_threads(),
    )


def _scorer(model: Model) -> Callable[[SequenceBatch], Tensor]:
    """Return what scores a batch as an endpoint would: item vectors are encoded once, beforehand."""
    if not isinstance(model, EncoderModel) or type(model).score is not EncoderModel.score:
        return model.score
    columns = model.encode_items().T.contiguous()  # [D, n_items + 1]
    return lambda batch: model.encode_sequences(batch) @ columns
