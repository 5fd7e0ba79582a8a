"""How models of whole lists learn: lists that are written, and sets that ask for what follows."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from recsys.data.batches import SequenceBatch
from recsys.data.item_sets import ItemSets
from recsys.data.sequences import Int64
from recsys.losses import Loss, SetLoss
from recsys.models.contract import EncoderModel
from recsys.models.generation import Windows
from recsys.models.playlists.seq2seq import Seq2Seq, newest
from recsys.models.sets.model import SetModel
from recsys.schema import PAD
from recsys.training.objective import Objective

Task = Literal["reconstruct", "continue", "both"]


class ListWriting(Objective):
    """A decoder writes lists: the same that were read and their end, or what follows a random cut.

        reconstruct   -sum_t log p(y_t | y_<t, z(y)),          y_{L + 1} the end
        continue      -sum_{t > m} log p(y_t | y_m..y_{t-1}, z(y_1..y_m)),     m uniform on 0..L-1

    averaged over all that is written in a step, of both tasks together. A list is a training window:
    its inputs and the last target. What is continued has no end, because a window may stop before the
    list does. The cuts are drawn anew in every step.

    Args:
        loss: over songs 1..V and, as item V + 1, the end.
        task: what is written.
    """

    def __init__(self, loss: Loss, task: Task) -> None:
        super().__init__()
        self.loss = loss
        self.task = task
        self._generator = torch.Generator()

    def forward(self, model: EncoderModel, batch: SequenceBatch, progress: float) -> Tensor:
        """Return the mean loss over what is written."""
        del progress
        assert isinstance(model, Seq2Seq)
        items, lengths = whole_lists(batch)
        parts = []
        if self.task != "continue":
            parts.append(self._again(model, items, lengths))
        if self.task != "reconstruct":
            parts.append(self._rest(model, items, lengths))
        queries, targets = (torch.cat(some) for some in zip(*parts, strict=True))
        loss: Tensor = self.loss(queries, targets, model.outputs())
        return loss

    def _again(self, model: Seq2Seq, items: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return queries [T, D] and targets [T] of lists that are written again, with their ends."""
        kept = Windows(items, lengths).newest(model.max_length)
        inputs = torch.nn.functional.pad(kept.items, (1, 0))  # [B, L + 1], the beginning first
        aims = torch.nn.functional.pad(kept.items, (0, 1))
        aims = aims.scatter(1, kept.lengths[:, None], model.n_items + 1)
        return _written(model.write(kept.items, kept.lengths, inputs), aims)

    def _rest(self, model: Seq2Seq, items: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same of what follows a random cut of each list."""
        return _written(*written_on(model, items, lengths, self._generator))

    def reseed(self, seed: int) -> None:
        """Restart the cuts and the negative sampler."""
        self._generator.manual_seed(seed)
        self.loss.reseed(seed)


class RestWriting(Objective):
    """A decoder writes the rest of lists, and every step asks for all that is left to write, as a set.

        sum_{t > m} set_loss(query(y_m..y_{t-1}, z(y_1..y_m)), {y_t..y_L}),     m uniform on 0..L-1

    averaged over the steps: `ListWriting`'s `continue` with a loss that does not ask which of the
    remaining songs comes first. As there, a list is a training window, so what comes after a window of
    `max_length` places is not in the rest. The cuts are drawn anew in every step.
    """

    def __init__(self, loss: SetLoss) -> None:
        super().__init__()
        self.loss = loss
        self._generator = torch.Generator()

    def forward(self, model: EncoderModel, batch: SequenceBatch, progress: float) -> Tensor:
        """Return the mean loss over what is written."""
        del progress
        assert isinstance(model, Seq2Seq)
        queries, aims = written_on(model, *whole_lists(batch), self._generator)
        loss: Tensor = self.loss(queries[aims != PAD], remaining(aims), model.encode_items())
        return loss

    def reseed(self, seed: int) -> None:
        """Restart the cuts and the negative sampler."""
        self._generator.manual_seed(seed)
        self.loss.reseed(seed)


def written_on(
    model: Seq2Seq, items: Tensor, lengths: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return `(queries float [B, T, D], aims int64 [B, T])` of what follows a random cut of each list.

    Args:
        model: which reads a list up to its cut and is told what comes before each step.
        items: int64 [B, T], lists, 0 behind their ends.
        lengths: int64 [B].
        generator: of the cuts.
    """
    draw = torch.rand(len(items), generator=generator).to(items.device)
    cut = (draw * lengths).long().minimum((lengths - 1).clamp(min=0))  # [B]
    places = torch.arange(items.shape[1], device=items.device)
    first = Windows(items.masked_fill(places >= cut[:, None], PAD), cut).newest(model.max_length)
    where = places + cut[:, None]  # [B, T]
    rest = items.gather(1, where.clamp(max=items.shape[1] - 1))
    aims = rest.masked_fill(where >= lengths[:, None], PAD)
    begun = newest(first.items, first.lengths)[:, None]
    inputs = torch.cat([begun, aims[:, :-1]], 1)
    return model.write(first.items, first.lengths, inputs), aims


def remaining(aims: Tensor) -> ItemSets:
    """Return the set of what is left at every step of lists int64 [B, T] (0 is none), list by list.

    A song that is written twice is left until its last place.
    """
    real = aims != PAD
    steps = torch.arange(aims.shape[1], device=aims.device)
    later = steps[None, :] > steps[:, None]  # [T, T]
    again = ((aims[:, :, None] == aims[:, None, :]) & later).any(2)  # [B, T]
    left = (real & ~again)[:, None, :] & ~later.T & real[:, :, None]  # [B, step, member]
    lists, _, members = left.nonzero(as_tuple=True)
    sizes = left.sum(2)[real]
    rows = torch.repeat_interleave(torch.arange(len(sizes), device=aims.device), sizes)
    offsets = np.concatenate([[0], sizes.cumsum(0).cpu().numpy()]).astype(np.int64)
    return ItemSets(aims[lists, members], rows, offsets)


def whole_lists(batch: SequenceBatch) -> tuple[Tensor, Tensor]:
    """Return `(items int64 [B, L + 1], lengths [B])`: a training batch's windows and their last targets."""
    if batch.targets is None:
        raise ValueError("a training batch needs targets")
    windows = Windows.of_batch(batch)
    last = batch.targets.flatten()[batch.last.clamp(min=0)]
    grown = torch.nn.functional.pad(windows.items, (0, 1)).scatter(
        1, windows.lengths[:, None], last[:, None]
    )
    return grown, windows.lengths + (last != PAD)


def list_counts(item_counts: Int64, lists: int) -> Int64:
    """Return training events per thing that can be written, int64 [V + 2]: songs, then the lists' ends."""
    return np.append(item_counts, max(1, lists)).astype(np.int64)


def _written(queries: Tensor, aims: Tensor) -> tuple[Tensor, Tensor]:
    real = aims != PAD  # [B, T]
    return queries[real], aims[real]


class PrefixPrediction(Objective):
    """Some places of every step predict what follows, each from the set of the history up to it.

    Which ones is drawn anew in every step: `prefixes` for each sequence on average, all if there are
    fewer. So an epoch does not see every target, but each is as likely as another.
    """

    def __init__(self, loss: Loss | SetLoss) -> None:
        super().__init__()
        self.loss = loss
        self._draw = np.random.default_rng(0)

    def forward(self, model: EncoderModel, batch: SequenceBatch, progress: float) -> Tensor:
        """Return the mean loss over the places that were drawn."""
        del progress
        assert isinstance(model, SetModel)
        if batch.target_places is None:
            raise ValueError("a training batch needs targets")
        count = len(batch.target_places)
        some = self._draw.permutation(count)[: model.prefixes * len(batch)]
        places = batch.target_places[torch.from_numpy(some).to(batch.items.device)]  # [T]
        queries = model.prefix_queries(batch, places)
        if isinstance(self.loss, SetLoss):
            if batch.target_sets is None:
                raise ValueError("a training batch of sets needs target sets")
            aims = batch.target_sets.select(some)
            found: Tensor = self.loss(queries, aims, model.encode_items())
            return found
        if batch.targets is None:
            raise ValueError("a training batch needs targets")
        loss: Tensor = self.loss(queries, batch.targets.flatten()[places], model.encode_items())
        return loss

    def reseed(self, seed: int) -> None:
        """Restart the draws and the negative sampler."""
        self._draw = np.random.default_rng(seed)
        self.loss.reseed(seed)
