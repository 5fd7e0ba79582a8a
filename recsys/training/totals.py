"""What is counted over an epoch, without a training step ever waiting for the device."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as distributed
from torch import Tensor

from recsys.data.batches import SequenceBatch


class Totals(NamedTuple):
    """An epoch's sums, of all processes."""

    loss: float
    """Each step's mean loss times its targets."""
    targets: float
    """Places with a target."""
    events: float
    """Places with an event."""
    places: float
    """All places, padding included."""


class EpochTotals:
    """Adds up the steps of one process; what the device computes stays there until `read`.

    The loss is summed in float64 (float32 on Apple's MPS, which has no wider type).
    """

    def __init__(self, device: torch.device) -> None:
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self._loss = torch.zeros((), dtype=dtype, device=device)
        self._events = torch.zeros((), dtype=torch.int64, device=device)
        self._targets = 0
        self._places = 0

    def add(self, loss: Tensor, batch: SequenceBatch) -> None:
        """Count a step: its mean loss, a scalar, and its batch."""
        targets = target_count(batch)
        self._loss += loss.detach().to(self._loss.dtype) * targets
        self._events += (batch.items > 0).sum()
        self._targets += targets
        self._places += batch.items.numel()

    def read(self, world_size: int = 1) -> Totals:
        """Wait for the device and return the sums; with several processes, each must ask."""
        sums = [float(self._loss), self._targets, int(self._events), self._places]
        if world_size > 1:
            whole = torch.tensor(sums, dtype=torch.float64, device=self._loss.device)
            distributed.all_reduce(whole)
            sums = whole.tolist()
        return Totals(*sums)


def target_count(batch: SequenceBatch) -> int:
    """Return how many places of a batch have a target, known without a look at the device."""
    return 0 if batch.target_places is None else len(batch.target_places)


def share_of_step(batch: SequenceBatch, device: torch.device) -> Tensor:
    """Return this process's share of the step's targets, times the number of processes, a scalar."""
    own = torch.full((), float(target_count(batch)), device=device)
    total = own.clone()
    distributed.all_reduce(total)
    return own * distributed.get_world_size() / total.clamp(min=1)
