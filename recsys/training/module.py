"""The one LightningModule: an objective, a model, an optimiser, an optional moving average."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytorch_lightning as lightning
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, IterableDataset

from recsys.config import TrainingConfig
from recsys.data.batches import SequenceBatch
from recsys.data.pairs import PairBatches
from recsys.data.windows import TrainingBatches
from recsys.models.contract import EncoderModel
from recsys.runtime import derive_seed
from recsys.training.objective import Objective
from recsys.training.totals import EpochTotals, share_of_step

Batches = TrainingBatches | PairBatches


class EpochBatches(IterableDataset[SequenceBatch]):
    """The batches of the epoch that begins when iteration begins, as an already batched data set.

    `begin_epoch` is called then and says which one it is: a resumed trainer makes its loaders before
    it knows, and leaves out the hooks that would tell.
    """

    def __init__(self, batches: Batches, begin_epoch: Callable[[], int]) -> None:
        self.batches = batches
        self.begin_epoch = begin_epoch

    def __iter__(self) -> Iterator[SequenceBatch]:
        return self.batches.epoch(self.begin_epoch())

    def __len__(self) -> int:
        return len(self.batches)


class TrainingModule(lightning.LightningModule):  # type: ignore[misc]
    """Trains `model` by `objective`; everything random in an epoch is a function of (seed, epoch).

    So a run that is killed and resumed at an epoch's beginning ends where an undisturbed one does.
    """

    def __init__(
        self,
        model: EncoderModel,
        objective: Objective,
        config: TrainingConfig,
        batches: Batches,
    ) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.config = config
        self.batches = batches
        self.averaged = averaged_copy(model, config.ema) if config.ema is not None else None
        self.totals = EpochTotals(torch.device("cpu"))
        self.epoch_began = time.perf_counter()

    @property
    def planned_steps(self) -> int:
        """Optimiser steps if training runs for all its epochs."""
        return max(1, self.config.epochs * len(self.batches))

    @property
    def evaluated(self) -> EncoderModel:
        """The model that is validated and kept: the moving average where there is one."""
        if self.averaged is None:
            return self.model
        return self.averaged.module  # type: ignore[return-value]

    def train_dataloader(self) -> DataLoader[SequenceBatch]:
        """Return the loader of every epoch's batches."""
        dataset = EpochBatches(self.batches, self.begin_epoch)
        return DataLoader(dataset, batch_size=None, pin_memory=self.device.type == "cuda")

    def begin_epoch(self) -> int:
        """Restart every random stream from (seed, epoch, process), and the epoch's record."""
        # Not the trainer's own count: a resumed one still has the finished epoch's number here.
        epoch = int(self.global_step) // max(1, len(self.batches))
        seed = derive_seed(self.batches.seed, epoch, self.global_rank)
        torch.manual_seed(seed)
        self.objective.reseed(seed)
        self.objective.begin_epoch(self.model)
        self.totals = EpochTotals(self.device)
        self.epoch_began = time.perf_counter()
        return epoch

    def training_step(self, batch: SequenceBatch, _: int) -> Tensor:
        """Return the objective's loss, and count the step for the epoch's record.

        Nothing here reads a value from the device, so that steps queue up behind one another.

        With several processes the loss that is derived is weighted by this process's share of the
        step's targets. So the mean of the processes' gradients is the gradient of the mean over all
        targets of the step, however unevenly they fall, as in one process with the whole batch.
        """
        progress = self.global_step / self.planned_steps
        loss: Tensor = self.objective(self.model, batch, progress)
        self.totals.add(loss, batch)
        return loss * share_of_step(batch, self.device) if self.trainer.world_size > 1 else loss

    def transfer_batch_to_device(
        self, batch: SequenceBatch, device: torch.device, dataloader_idx: int
    ) -> SequenceBatch:
        """Move a batch; Lightning does not know how to move a frozen dataclass."""
        del dataloader_idx
        return batch.to(device, non_blocking=True)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then pull the moving average after the weights."""
        super().optimizer_step(*args, **kwargs)
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)

    def configure_optimizers(self) -> Any:
        """Return AdamW with decay on matrices only, and the learning-rate schedule per step."""
        config = self.config
        # Fused AdamW is 9 times faster here, but refuses gradients scaled for fp16.
        optimizer = torch.optim.AdamW(
            # An objective may have weights of its own, which are trained and left behind.
            decay_groups(nn.ModuleList([self.model, self.objective]), config.weight_decay),
            lr=config.lr,
            betas=config.betas,
            fused=self.trainer.precision != "16-mixed" and self.device.type != "mps",
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(config, step, self.planned_steps)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def averaged_copy(model: EncoderModel, decay: float) -> AveragedModel:
    """Return an exponential moving average of the model's weights, itself never trained."""
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]
    return averaged.requires_grad_(False)


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split parameters: matrices and tables decay, vectors (biases, norms) do not."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]


def learning_rate_factor(config: TrainingConfig, step: int, total: int) -> float:
    """Return the share of `lr` used at a step: linear warm-up, then the schedule down to zero."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, total - config.warmup_steps)
    done = min(1.0, done)
    match config.schedule:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 - done
        case "cosine":
            return 0.5 * (1.0 + float(torch.cos(torch.tensor(done * torch.pi))))
