"""Full ranking: where a model puts each target's items among the whole catalogue.

Everything the evaluation says is derived from what this file returns: the ranks of the relevant items
and the top of the list, one row per target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.config import EvaluationConfig
from recsys.data.batches import SequenceBatch, pack_histories
from recsys.data.previous import PreviousLists
from recsys.data.sequences import Int32, Int64, SequenceStore, Targets
from recsys.errors import DataError
from recsys.evaluation.ranked import RankedTargets
from recsys.models.contract import EncoderModel, Model
from recsys.retrieval.blocks import block_rows, block_workers, map_blocks, multiply
from recsys.retrieval.exclusion import Exclusion, Histories
from recsys.retrieval.topk import topk_rows

Float64 = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]
"""Called as `progress(targets done, targets in all)` after every block."""


@torch.no_grad()
def rank_targets(
    model: Model,
    store: SequenceStore,
    targets: Targets,
    evaluation: EvaluationConfig,
    *,
    list_length: int | None = None,
    batch_size: int = 256,
    device: torch.device | str | None = None,
    name: str | None = None,
    progress: Progress | None = None,
    among: npt.NDArray[np.bool_] | None = None,
) -> RankedTargets:
    """Rank the whole catalogue for every target and return where its relevant items stand.

    The rank of an item is 1 + (permitted items that score more) + (others that score the same) / 2:
    the mean of the best and the worst place a sort could give it. Items that repeat inside a target
    count once. Scores are compared as float32. On the CPU each of torch's threads takes a block of
    targets; memory is bounded by one block of `batch_size` x catalogue (fewer rows where it is large)
    for each of them, and the result.

    Args:
        model: any model; for an `EncoderModel` the item vectors are computed once.
        store: the events.
        targets: what to rank.
        evaluation: `exclude`, `repeats` and `list_length` are used.
        list_length: length of the stored lists, instead of the setting.
        batch_size: targets scored at once, at most.
        device: where to score; where the model is, by default.
        name: how errors call the model.
        progress: called after every block.
        among: bool [n_items + 1]; only these items are permitted. All by default.

    Raises:
        DataError: a score is NaN or infinite; the message names model and target.
    """
    length = evaluation.list_length if list_length is None else list_length
    place = torch.device(device) if device is not None else _device_of(model)
    was_training = model.training
    model.to(place).eval()
    step = block_rows(model.n_items + 1, batch_size)
    parts = [slice(at, min(at + step, len(targets))) for at in range(0, len(targets), step)]
    workers = block_workers(len(parts), place)
    scorer = _Scorer(model, store, targets, place, name or type(model).__name__, step, workers)
    exclusion = Exclusion.from_setting(evaluation.exclude)
    others = None if among is None else torch.from_numpy(~among).to(place)

    def rank(part: slice) -> _Block:
        with scorer.scores(part) as scores:
            exclusion.mask_(scores, Histories.of_targets(store, targets, part))
            if others is not None:
                scores.masked_fill_(others, -torch.inf)
            return _rank_block(scores, store, targets, part, evaluation.repeats, length)

    blocks = []
    for part, block in zip(parts, map_blocks(rank, parts, workers), strict=True):
        blocks.append(block)
        if progress is not None:
            progress(part.stop, len(targets))
    model.train(was_training)
    return _join(blocks, store, targets, length)


@dataclass(frozen=True)
class _Block:
    """The kept targets of one block, the relevant items of all of them in one row each."""

    index: Int64
    n_relevant: Int64
    items: Int32
    ranks: Float64
    top: Int32
    forbidden: int


class _Scorer:
    """Scores blocks of targets into a few buffers, one a worker.

    Fresh memory for every block would cost as much as the product that fills it.
    """

    def __init__(
        self,
        model: Model,
        store: SequenceStore,
        targets: Targets,
        device: torch.device,
        name: str,
        rows: int,
        workers: int,
    ) -> None:
        self.model, self.store, self.targets = model, store, targets
        self.device, self.name = device, name
        self.previous = PreviousLists(store) if model.reads_previous else None
        width = model.n_items + 1
        self.buffers = [
            torch.empty(min(rows, len(targets)), width, device=device) for _ in range(workers)
        ]
        self.encoder = _plain_encoder(model)
        self.table = None if self.encoder is None else _item_table(self.encoder, name)
        # By Cauchy-Schwarz no score is greater than the product of the two norms.
        norms = (
            torch.zeros(1) if self.table is None else torch.linalg.vector_norm(self.table, dim=1)
        )
        self.reach = float(norms.max())

    @contextmanager
    def scores(self, part: slice) -> Iterator[Tensor]:
        """Lend the finite scores float32 [B, n_items + 1] of a block, free to be overwritten."""
        batch = self._batch(part).to(self.device)
        buffer = self.buffers.pop()
        scores = buffer[: len(batch)]
        if self.encoder is None or self.table is None:
            scores.copy_(self.model.score(batch))
            self._check(torch.isfinite(scores[:, 1:]).all(dim=1), part)
        else:
            queries = self.encoder.encode_sequences(batch).float()
            self._check(torch.isfinite(queries).all(dim=1), part)
            multiply(queries, self.table, scores)
            if self.reach * float(torch.linalg.vector_norm(queries, dim=1).max()) > 1e38:
                self._check(torch.isfinite(scores[:, 1:]).all(dim=1), part)
        yield scores
        self.buffers.append(buffer)

    def _batch(self, part: slice) -> SequenceBatch:
        users = self.targets.user[part]
        begin = self.store.offsets[users]
        batch = pack_histories(self.store, begin, self.targets.start[part], self.model.max_length)
        if self.previous is None:
            return batch
        found = self.previous.items(users.astype(np.int64), self.model.reads_previous)
        items, ages = (torch.from_numpy(each) for each in found)
        return replace(batch, previous=items, previous_ages=ages)

    def _check(self, finite: Tensor, part: slice) -> None:
        if bool(finite.all()):
            return
        row = part.start + int((~finite).nonzero()[0, 0])
        raise DataError(
            f"model {self.name} gives scores that are NaN or infinite, first for target {row} "
            f"(user {self.targets.user[row]}); nothing can be ranked by them"
        )


def _plain_encoder(model: Model) -> EncoderModel | None:
    """Return the model if its score is nothing but the product of its two vectors."""
    if isinstance(model, EncoderModel) and model.is_inner_product:
        return model if type(model).score is EncoderModel.score else None
    return None


def _item_table(model: EncoderModel, name: str) -> Tensor:
    table = model.encode_items().float()
    finite = torch.isfinite(table).all(dim=1)
    finite[0] = True  # PAD is never ranked
    if not bool(finite.all()):
        item = int((~finite).nonzero()[0, 0])
        raise DataError(
            f"model {name}: the vectors of {int((~finite).sum())} items hold NaN or infinity, the "
            f"first is item {item}; the training has diverged, lower its learning rate"
        )
    return table


def _rank_block(
    scores: Tensor, store: SequenceStore, targets: Targets, part: slice, repeats: str, length: int
) -> _Block:
    """Rank one block of masked scores [B, n_items + 1], where -inf means forbidden."""
    rows, items = _relevant(store, targets, part)
    own = scores[_to(rows, scores), _to(items, scores)]  # [P]
    permitted = (own > -torch.inf).cpu().numpy()
    ranks = np.full(len(rows), np.inf)
    ranks[permitted] = _ranks(scores, rows[permitted], own[_to(permitted, scores)])
    forbidden = len(rows) - int(permitted.sum())
    if repeats == "drop":
        rows, items, ranks = rows[permitted], items[permitted], ranks[permitted]
    order = np.lexsort((items, ranks, rows))
    counts = np.bincount(rows, minlength=len(scores))
    kept = np.flatnonzero(counts)
    top = topk_rows(scores, length)[0] if length else torch.empty(len(scores), 0)
    return _Block(
        index=kept + part.start,
        n_relevant=counts[kept],
        items=items[order].astype(np.int32),
        ranks=ranks[order],
        top=top.clamp(min=0).cpu().numpy().astype(np.int32)[kept],
        forbidden=forbidden,
    )


def _relevant(store: SequenceStore, targets: Targets, part: slice) -> tuple[Int64, Int64]:
    """Return the distinct `(row, item)` pairs of the targets, ascending."""
    events = Histories(store.items, np.asarray(targets.start[part]), np.asarray(targets.end[part]))
    rows, items = events.pairs()
    base = store.n_items + 1
    distinct = np.unique(rows * base + items)
    return distinct // base, distinct % base


def _ranks(scores: Tensor, rows: Int64, own: Tensor) -> Float64:
    """Return the averaged rank of each pair: `own[p]` is its score in row `rows[p]`."""
    if scores.device.type == "cpu":
        above, equal = _count_on_cpu(scores.numpy(), rows, own.numpy())
    else:
        above, equal = _count_on_device(scores, rows, own)
    return 1.0 + above + (equal - 1) / 2.0


def _count_on_cpu(
    scores: npt.NDArray[np.float32], rows: Int64, own: npt.NDArray[np.float32]
) -> tuple[Int64, Int64]:
    """Count the scores above and equal to each pair's own.

    Row by row in NumPy: a row and its comparison stay in the cache and are counted by vector
    instructions, 20 times faster than a comparison and a sum of the whole block in torch.
    """
    above, least = np.empty(len(rows), dtype=np.int64), np.empty(len(rows), dtype=np.int64)
    flags = np.empty(scores.shape[1], dtype=np.bool_)
    for p, row in enumerate(rows.tolist()):
        above[p] = np.count_nonzero(np.greater(scores[row], own[p], out=flags))
        least[p] = np.count_nonzero(np.greater_equal(scores[row], own[p], out=flags))
    return above, least - above


def _count_on_device(scores: Tensor, rows: Int64, own: Tensor) -> tuple[Int64, Int64]:
    counts = []
    for at in range(0, len(rows), len(scores)):  # gathers at most one more block
        mine = scores[_to(rows[at : at + len(scores)], scores)]
        limit = own[at : at + len(scores), None]
        counts.append(torch.stack([(mine > limit).sum(dim=1), (mine == limit).sum(dim=1)]))
    above, equal = torch.cat(counts, dim=1).cpu().numpy() if counts else np.zeros((2, 0), np.int64)
    return above, equal


def _join(
    blocks: list[_Block], store: SequenceStore, targets: Targets, length: int
) -> RankedTargets:
    index = _concatenate([block.index for block in blocks], np.int64)
    user = np.asarray(targets.user)[index].astype(np.int32)
    n_relevant = _concatenate([block.n_relevant for block in blocks], np.int64)
    tops = [block.top for block in blocks] or [np.empty((0, length), dtype=np.int32)]
    items = _concatenate([block.items for block in blocks], np.int32)
    offsets = np.concatenate([[0], np.cumsum(n_relevant)]).astype(np.int64)
    return RankedTargets(
        index=index,
        user=user,
        history_length=np.asarray(targets.start)[index] - store.offsets[user],
        offsets=offsets,
        items=items,
        ranks=_concatenate([block.ranks for block in blocks], np.float64),
        top=np.concatenate(tops),
        n_targets=len(targets),
        dropped=len(targets) - len(index),
        forbidden=sum(block.forbidden for block in blocks),
        order=order_of_items(items, offsets, store, targets, index),
    )


def order_of_items(
    items: Int32, offsets: Int64, store: SequenceStore, targets: Targets, index: Int64
) -> Int32 | None:
    """Return which of its target's items each is by time, int32 [P]: 0 comes next; see `RankedTargets`.

    An item that comes several times goes by the first. Where baskets are known, events of a target are
    one, and none comes before another.
    """
    if store.baskets is not None or len(items) == len(index):
        return None
    row = np.repeat(np.arange(len(index)), np.diff(offsets))
    events = Histories(store.items, targets.start[index], targets.end[index])
    rows, events_items = events.pairs()
    base = store.n_items + 1
    pair, first = np.unique(rows * base + events_items, return_index=True)
    when = first[np.searchsorted(pair, row * base + items)]  # place among all targets' events
    order = np.empty(len(items), dtype=np.int32)
    by_time = np.lexsort((when, row))
    order[by_time] = np.arange(len(items)) - offsets[:-1][row]
    return order


def _concatenate(parts: list[Any], dtype: type[np.generic]) -> Any:
    return np.concatenate([np.empty(0, dtype), *parts])


def _to(values: npt.NDArray[np.generic], like: Tensor) -> Tensor:
    return torch.from_numpy(values).to(like.device)


def _device_of(model: Model) -> torch.device:
    for tensors in (model.parameters(), model.buffers()):
        for tensor in tensors:
            return tensor.device
    return torch.device("cpu")
