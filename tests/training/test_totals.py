"""An epoch's sums by hand, and that no training step waits for the device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_fit import plan, small_model
from torch.utils._python_dispatch import TorchDispatchMode

from recsys.config import LossConfig
from recsys.data.batches import SequenceBatch
from recsys.training.fit import fit
from recsys.training.module import TrainingModule
from recsys.training.totals import EpochTotals, target_count


def batch(items: list[int], targets: list[int] | None) -> SequenceBatch:
    """One row; segments, positions and the newest event do not matter here."""
    row, zeros = torch.tensor([items]), torch.zeros(1, len(items), dtype=torch.int64)
    if targets is None:
        return SequenceBatch(row, zeros, zeros, torch.tensor([0]))
    places = torch.tensor([place for place, item in enumerate(targets) if item])
    wanted = torch.tensor([targets])
    return SequenceBatch(row, zeros, zeros, torch.tensor([0]), None, None, wanted, places)


def test_sums_by_hand() -> None:
    totals = EpochTotals(torch.device("cpu"))
    totals.add(torch.tensor(0.1), batch([5, 6, 7, 0], [6, 7, 0, 0]))
    totals.add(torch.tensor(1.7), batch([5, 0], [9, 0]))
    # float32 losses, summed as float64
    expected = float(torch.tensor(0.1)) * 2 + float(torch.tensor(1.7))
    assert totals.read() == (expected, 3, 4, 6)


def test_a_batch_without_targets_counts_its_events_only() -> None:
    totals, plain = EpochTotals(torch.device("cpu")), batch([5, 6], None)
    totals.add(torch.tensor(3.0), plain)
    assert totals.read() == (0.0, 0, 2, 2)
    assert target_count(plain) == 0


WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique")
"""Operations whose answer, or whose size, the host must know: on a GPU it waits for them."""


class Watch(TorchDispatchMode):
    """Notes every operation that makes the host wait."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        self.waits: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.operations += 1
        name = func.overloadpacket.__name__
        if name in WAITING or name.startswith("unique"):
            self.waits.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "loss",
    [
        LossConfig(kind="softmax"),
        LossConfig(kind="sampled_softmax", negatives=4),
        LossConfig(kind="bce", sampler="in_batch"),
        LossConfig(kind="gbce", negatives=4, sampler="popularity", share="batch"),
    ],
    ids=lambda loss: f"{loss.kind}-{loss.sampler}",
)
def test_no_step_waits_for_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: LossConfig
) -> None:
    plain, watch = TrainingModule.training_step, Watch()

    def watched(self: TrainingModule, batch: SequenceBatch, nth: int) -> Any:
        with watch:
            return plain(self, batch, nth)

    monkeypatch.setattr(TrainingModule, "training_step", watched)
    fit(small_model(), plan(tmp_path, epochs=1, loss=loss, repeats="mask"))
    assert watch.operations > 100
    assert watch.waits == []


def test_the_watch_sees_a_wait() -> None:
    with Watch() as watch:
        float(torch.ones(2).sum())
        torch.ones(2).nonzero()
    assert watch.waits == ["_local_scalar_dense", "nonzero"]
