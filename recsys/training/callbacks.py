"""What happens at the end of an epoch: validate, remember the best, save, report, perhaps stop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
from safetensors.torch import save_file

from recsys.training.module import TrainingModule
from recsys.training.resources import Resources

logger = logging.getLogger(__name__)

EpochRow = dict[str, float]
Validate = Callable[[TrainingModule], dict[str, float]]

METRIC = "ndcg@10"
LAST = "last.ckpt"
BEST = "best.safetensors"


class EpochEnd(lightning.Callback):  # type: ignore[misc]
    """Validates by full ranking, keeps the best weights, saves a resumable checkpoint, stops early.

    One callback and not four, because the order matters: the checkpoint must hold what validation
    found, and must be whole on disk before anything is reported.

    Without `validate` nothing is compared: training runs for all its epochs and keeps the last.

    Attributes:
        rows: one record per finished epoch, also restored from a checkpoint.
        best: `(metric, epoch)` of the best validation so far; with `reached`, what an earlier training
            came to, only what is better is kept, and its epoch is -1 until then.
    """

    def __init__(
        self,
        directory: Path,
        validate: Validate | None,
        *,
        patience: int,
        every: int,
        on_epoch: Callable[[EpochRow], None] | None = None,
        reached: float = float("-inf"),
    ) -> None:
        self.directory = directory
        self.validate = validate
        self.patience = patience
        self.every = every
        self.on_epoch = on_epoch
        self.rows: list[EpochRow] = []
        self.best: tuple[float, int] = (reached, -1)
        self._failed = 0
        self._resources = Resources()

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run must know, as plain values."""
        return {"rows": self.rows, "best": list(self.best), "failed": self._failed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore from a checkpoint."""
        self.rows = list(state_dict["rows"])
        metric, epoch = state_dict["best"]
        self.best = (float(metric), int(epoch))
        self._failed = int(state_dict["failed"])

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Train no further where the checkpoint is that of a training which had just ended.

        Lightning forgets that a training was stopped early, and asks again only after another epoch.
        The epoch of the checkpoint is told once more: the kill may have come between the two.
        """
        trainer.should_stop = self._is_over()
        if self.rows and self.on_epoch is not None and trainer.is_global_zero:
            self.on_epoch(self.rows[-1])

    def _is_over(self) -> bool:
        return self._failed >= self.patience

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Do everything that belongs to the end of an epoch, in the one right order."""
        epoch = trainer.current_epoch
        row = epoch_row(pl_module, epoch, trainer.world_size)
        last = epoch + 1 == trainer.max_epochs
        if self.validate is None:
            if last:
                self._keep(pl_module, trainer)
        elif (epoch + 1) % self.every == 0 or last:
            began = time.perf_counter()
            row |= self.validate(pl_module)
            row["validation_seconds"] = time.perf_counter() - began
            self._remember(row, epoch, pl_module, trainer)
        self.rows.append(row := row | self._resources.read())
        if self._is_over():
            trainer.should_stop = True
        self._save(trainer)
        if trainer.is_global_zero:
            self._report(row, epoch, trainer.max_epochs)

    def _remember(self, row: EpochRow, epoch: int, module: TrainingModule, trainer: Any) -> None:
        if row[METRIC] <= self.best[0]:
            self._failed += 1
            return
        self.best = (row[METRIC], epoch)
        self._failed = 0
        self._keep(module, trainer)

    def _keep(self, module: TrainingModule, trainer: Any) -> None:
        """Write the weights that stay if nothing better comes."""
        if trainer.is_global_zero:
            aside = self.directory / f".{BEST}"
            save_file(plain_state(module.evaluated.state_dict()), aside)
            aside.replace(self.directory / BEST)

    def _save(self, trainer: Any) -> None:
        """Write the checkpoint aside and rename it: a kill leaves the old one or the new one."""
        aside = self.directory / f".{LAST}"
        trainer.save_checkpoint(aside)
        if trainer.is_global_zero:
            aside.replace(self.directory / LAST)
        trainer.strategy.barrier()

    def _report(self, row: EpochRow, epoch: int, planned: int) -> None:
        done = [r["seconds"] + r.get("validation_seconds", 0.0) for r in self.rows]
        left = (planned - epoch - 1) * sum(done) / len(done)
        best = f" ndcg@10 {row[METRIC]:.4f} (best {self.best[0]:.4f})" if METRIC in row else ""
        logger.info(
            "epoch %d/%d loss %.4f%s, %.0f events/s, %.1f s, at most %s to go",
            epoch + 1, planned, row["loss"], best, row["events_per_second"], done[-1], clock(left),
        )  # fmt: skip
        if self.on_epoch is not None:
            self.on_epoch(row)


def epoch_row(module: TrainingModule, epoch: int, world_size: int = 1) -> EpochRow:
    """Return an epoch's record: loss, throughput and padding over all processes."""
    totals = module.totals.read(world_size)  # waits for the last step; the clock is read after it
    seconds = time.perf_counter() - module.epoch_began
    return {
        "epoch": epoch,
        "loss": totals.loss / max(1, totals.targets),
        "seconds": seconds,
        "events_per_second": totals.targets / max(seconds, 1e-9),
        "padding_share": 1.0 - totals.events / max(1, totals.places),
    }


def plain_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return tensors that own contiguous memory on the CPU, as safetensors wants them."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}


def clock(seconds: float) -> str:
    """Return a duration as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
