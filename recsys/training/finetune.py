"""Fine-tuning of Recformer in two stages, and none at all.

Stage one: every epoch begins with the item encoder catching up with the user encoder and all items being
encoded; the epoch trains against these vectors. Stage two goes on from the best of stage one, against its
item vectors, which stand still, with an optimiser and a schedule of its own. What is kept is the best of
both: a user encoder, the item vectors it was validated with, and the item encoder that made them. Source:
Li et al. 2023 (arXiv 2305.13731); the published code lets one schedule run through both stages, so that
the second has hardly a learning rate left, and does not keep the item encoder.

Items without a training event are no negatives: nothing may be learned about them.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import replace

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from recsys.config import LossConfig
from recsys.data.batches import SequenceBatch
from recsys.data.pairs import PairBatches
from recsys.data.sequences import Int64
from recsys.errors import ArtifactError, DataError
from recsys.losses import Loss, build_loss
from recsys.models.contract import EncoderModel
from recsys.models.recformer.model import Recformer
from recsys.runtime import derive_seed
from recsys.training.callbacks import BEST, METRIC, EpochRow, plain_state
from recsys.training.fit import HISTORY, WEIGHTS, FitPlan, rank_validation, train_epochs, validate
from recsys.training.module import TrainingModule
from recsys.training.objective import Objective
from recsys.training.popularity_query import popularity_query

logger = logging.getLogger(__name__)


class NewestPlacePrediction(Objective):
    """The newest place of every history predicts its target among the items with training events.

    Args:
        loss: over the rows that `trained` gives.
        trained: int64 [K], PAD and the items with training events, ascending.
        n_items: of the catalogue.
        refresh: whether an epoch begins with encoding all items anew.
    """

    trained: Tensor
    row_of: Tensor

    def __init__(self, loss: Loss, trained: Tensor, n_items: int, *, refresh: bool) -> None:
        super().__init__()
        self.loss = loss
        self.refresh = refresh
        rows = torch.zeros(n_items + 1, dtype=torch.int64)
        rows[trained] = torch.arange(len(trained))
        self.register_buffer("trained", trained, persistent=False)
        self.register_buffer("row_of", rows, persistent=False)

    def forward(self, model: EncoderModel, batch: SequenceBatch, progress: float) -> Tensor:
        """Return the mean loss over the histories."""
        del progress
        if batch.targets is None:
            raise ValueError("a training batch needs targets")
        targets = batch.targets.flatten()[batch.last]  # [B]
        table = model.encode_items(self.trained)  # [K, D]
        loss: Tensor = self.loss(model.encode_sequences(batch), self.row_of[targets], table)
        return loss

    def reseed(self, seed: int) -> None:
        """Restart the negative sampler."""
        self.loss.reseed(seed)

    def begin_epoch(self, model: EncoderModel) -> None:
        """Encode all items anew, in stage one."""
        if self.refresh:
            assert isinstance(model, Recformer)
            model.refresh_items()


def finetune(model: Recformer, plan: FitPlan) -> list[EpochRow]:
    """Fine-tune a model that has its sentences, leave the best weights in it and in `plan.directory`.

    Epochs of stage two are numbered on from those of stage one, and a record says its `stage`. An
    interrupted fine-tuning goes on in the stage that it was in.

    Raises:
        DataError: there is nothing to learn from, or nothing to choose the best epoch on.
        ArtifactError: no validation gave a finite figure.
    """
    model.encoder.learn(words=model.config.train_words)
    model.prepare(plan.data)
    counts = plan.data.item_counts()
    stages, rows = model.config.stages, list[EpochRow]()
    if stages != "two":
        encoded = model.refresh_items(plan.kept)
        logger.info("%d of %d texts encoded", encoded, model.sentences.n_texts)
    if stages == "none":
        rows = [_unlearned(model, plan, encoded)]
    reached = float("-inf")
    for stage in (1, 2) if stages == "two" else (2,) if stages == "second" else ():
        found, reached = _stage(model, plan, counts, stage, rows, reached)
        rows = rows + found
    model.eval()
    model.default_query.copy_(popularity_query(model.encode_items(), counts))
    if plan.rank == 0:
        _write(model, plan, rows)
    return rows


def _stage(
    model: Recformer,
    plan: FitPlan,
    counts: Int64,
    stage: int,
    earlier: list[EpochRow],
    reached: float,
) -> tuple[list[EpochRow], float]:
    """Train one stage, load its best weights if they are better; return its records and the best."""
    epochs = plan.training.epochs if plan.stage_epochs is None else plan.stage_epochs[stage - 1]
    if epochs == 0:
        return [], reached
    first = len(earlier)

    def numbered(row: EpochRow) -> EpochRow:
        return {**row, "epoch": row["epoch"] + first, "stage": float(stage)}

    told = plan.on_epoch
    mine = replace(
        plan,
        directory=plan.directory / f"stage{stage}",
        epochs=epochs,
        on_epoch=None if told is None else lambda row: told(numbered(row)),
    )
    module = _module(model, mine, counts, refresh=stage == 1)
    model.train()
    check = None if plan.validation is None else lambda trained: validate(trained, mine)
    end = train_epochs(module, mine, check, reached)
    best = mine.directory / BEST
    if not best.is_file() and stage == 2:  # nothing was better than the best of stage one
        best = plan.directory / "stage1" / BEST
    if not best.is_file():
        raise ArtifactError(
            f"{best} was never written: no validation gave a finite {METRIC} "
            f"(losses: {[round(row['loss'], 4) for row in end.rows]}); lower training.lr"
        )
    model.load_state_dict(load_file(best))
    return [numbered(row) for row in end.rows], end.best[0]


def _module(model: Recformer, plan: FitPlan, counts: Int64, *, refresh: bool) -> TrainingModule:
    training = plan.training
    batches = PairBatches(
        plan.data,
        model.max_length,
        training.batch_size,
        seed=derive_seed(plan.seed, int(refresh)),
        rank=plan.rank,
        world_size=plan.world_size,
    )
    if len(batches) == 0:
        raise DataError(
            "no user has two training events, so there is nothing to learn from; "
            "check the split and the filters (recsys describe shows the lengths)"
        )
    some = counts > 0
    some[0] = True  # PAD has row 0 in every table
    trained = torch.from_numpy(some).nonzero().flatten()
    loss = build_loss(loss_config(model), counts[some], training.batch_size)
    torch.manual_seed(derive_seed(plan.seed))
    objective = NewestPlacePrediction(loss, trained, model.n_items, refresh=refresh)
    return TrainingModule(model, objective, training, batches)


def loss_config(model: Recformer) -> LossConfig:
    """Return the loss of the training section, by the model's temperature."""
    loss = model.config.training.loss
    return loss.model_copy(update={"temperature": model.config.temperature})


def _unlearned(model: Recformer, plan: FitPlan, encoded: int) -> EpochRow:
    """Return the record of a model that does not learn: how good it is as it comes, what was encoded."""
    began = time.perf_counter()
    found = {} if plan.validation is None else rank_validation(model, plan)
    row = {
        "epoch": 0.0,
        "texts_encoded": float(encoded),
        **found,
        "seconds": time.perf_counter() - began,
    }
    if plan.on_epoch is not None:
        plan.on_epoch(row)
    return row


def _write(model: Recformer, plan: FitPlan, rows: list[EpochRow]) -> None:
    """Write the final weights and the history."""
    plan.directory.mkdir(parents=True, exist_ok=True)
    save_file(plain_state(model.state_dict()), plan.directory / WEIGHTS)
    validated = [row for row in rows if METRIC in row]
    best = max(validated, key=lambda row: row[METRIC], default=None)
    history = {
        "best_epoch": None if best is None else best["epoch"],
        "best": None if best is None else best[METRIC],
        "epochs": rows,
    }
    (plan.directory / HISTORY).write_text(json.dumps(history, indent=1) + "\n")
