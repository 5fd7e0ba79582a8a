"""Fit a learned model: from data and a configuration to the best weights on disk."""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch
import torch.distributed as distributed
from safetensors.torch import load_file, save_file

from recsys.config import EvaluationConfig, TrainingConfig
from recsys.config.training import SET_OBJECTIVES
from recsys.data.sequences import Int64, Targets, TrainingData
from recsys.data.statistics import TrainingStatistics
from recsys.data.windows import TrainingBatches
from recsys.errors import ArtifactError, ConfigError, DataError
from recsys.evaluation.ranking import rank_targets
from recsys.losses import build_loss, build_set_loss
from recsys.models.contract import EncoderModel
from recsys.models.playlists.seq2seq import Seq2Seq
from recsys.models.sets.model import SetModel
from recsys.models.unirec import UniRec
from recsys.retrieval.exclusion import Bools
from recsys.runtime import derive_seed, resolve_compile, resolve_device, resolve_precision
from recsys.training.callbacks import (
    BEST,
    LAST,
    METRIC,
    EpochEnd,
    EpochRow,
    Validate,
    plain_state,
)
from recsys.training.list_objectives import (
    ListWriting,
    PrefixPrediction,
    RestWriting,
    list_counts,
)
from recsys.training.module import TrainingModule
from recsys.training.objective import Objective, SetPrediction, TargetPrediction
from recsys.training.popularity_query import popularity_query
from recsys.training.unirec_objective import UniRecObjective
from recsys.training.validation import means_by_user

logger = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"
HISTORY = "history.json"


@dataclass(frozen=True)
class FitPlan:
    """Everything `fit` needs besides the model.

    Attributes:
        training: how to fit.
        evaluation: how validation ranks (what it excludes).
        data: what may be learned from.
        statistics: of the same training events, for objectives that read them.
        validation: what the best epoch is chosen on; None trains all epochs and keeps the last, as a
            refit does whose epochs are known (and any model that is not `chosen_by_validation`).
        directory: where checkpoints, history and weights are written.
        seed: of weights' drop-out, order and negatives.
        on_epoch: called by the first process with each epoch's record.
        users: bool [U], whose histories are trained on; everybody's by default. What is counted of the
            data is counted of all.
        epochs: train so many, by the learning rates of the configured ones; all of them by default.
        trainer: further arguments of the Lightning Trainer (strategy, plugins, devices, ...).
        stage_epochs: the epochs of each stage of a training in stages, as `epochs` for one.
        kept: where vectors of texts are kept for other runs, by the encoder's weights and a text's hash;
            for models that encode texts by weights that do not learn.
        rank, world_size: this process among those that train together, each on its own windows; but
            for what is random, their result is that of one process with `world_size` times the batch.
    """

    training: TrainingConfig
    evaluation: EvaluationConfig
    data: TrainingData
    validation: Targets | None
    directory: Path
    seed: int = 0
    on_epoch: Callable[[EpochRow], None] | None = None
    epochs: int | None = None
    trainer: dict[str, Any] | None = None
    rank: int = 0
    world_size: int = 1
    statistics: TrainingStatistics | None = None
    users: Bools | None = None
    stage_epochs: tuple[int, int] | None = None
    kept: Path | None = None


def fit(model: EncoderModel, plan: FitPlan) -> list[EpochRow]:
    """Train `model`, leave its best weights in it and in `directory`, return the epochs' records.

    If `directory` holds a checkpoint of an interrupted run, training goes on from it; if that run had
    made its last epoch, only what follows it is done again.

    Raises:
        DataError: there is nothing to learn from, or nothing to choose the best epoch on.
        ArtifactError: no validation gave a finite figure.
    """
    if not model.chosen_by_validation:
        plan = replace(plan, validation=None)
    if plan.validation is not None:
        validation_targets(plan)  # missed now, and not after an epoch
    counts = plan.data.item_counts()
    module = _module(model, plan, counts)
    if resolve_compile(plan.training.compile, resolve_device(plan.training.device)):
        if model.learns_by is not None:
            step = getattr(model, model.learns_by)
            setattr(model, model.learns_by, torch.compile(step, dynamic=True))
        elif plan.training.compile == "on":
            raise ConfigError(
                f"training.compile is on, but nothing of {type(model).__name__} is compiled; use auto or off"
            )
    check = None if plan.validation is None else lambda trained: validate(trained, plan)
    end = train_epochs(module, plan, check)
    _keep_best(model, plan, end, counts)
    return end.rows


def train_epochs(
    module: TrainingModule,
    plan: FitPlan,
    check: Validate | None,
    reached: float = -math.inf,
) -> EpochEnd:
    """Train a module for the plan's epochs, or on from the checkpoint in its directory.

    Args:
        module: what is trained.
        plan: how; its validation is not looked at.
        check: tells how good the module is, after an epoch; None keeps the last epoch's weights.
        reached: only weights that are better than this are kept.
    """
    plan.directory.mkdir(parents=True, exist_ok=True)
    end = EpochEnd(
        plan.directory,
        check,
        patience=plan.training.patience,
        every=plan.training.validate_every,
        on_epoch=plan.on_epoch,
        reached=reached,
    )
    checkpoint = plan.directory / LAST
    resume = checkpoint if checkpoint.is_file() else None
    if resume is not None:
        logger.info("resuming from %s", checkpoint)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # it narrates and advertises
    with warnings.catch_warnings():
        # The batches are made in this process on purpose: packing takes half a millisecond.
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*`IterableDataset` has `__len__` defined.*")
        warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated.*")  # Lightning's own call
        trainer = _trainer(plan, end)
        trainer.fit(module, ckpt_path=resume, weights_only=True)
    return end


def _module(model: EncoderModel, plan: FitPlan, counts: Int64) -> TrainingModule:
    # A writer is given lists in their order, and makes sets of what it has not written yet itself.
    objective = "next_event" if isinstance(model, Seq2Seq) else plan.training.objective
    batches = TrainingBatches(
        plan.data,
        model.max_length,
        plan.training.batch_size,
        windows=plan.training.windows,
        objective=objective,
        repeats=plan.training.repeats,
        recency_half_life=plan.training.recency_half_life,
        seed=plan.seed,
        rank=plan.rank,
        world_size=plan.world_size,
        users=plan.users,
    )
    if len(batches) == 0:
        raise DataError(
            "no user has two training events, so there is nothing to learn from; "
            "check the split and the filters (recsys describe shows the lengths)"
        )
    lengths = plan.data.lengths if plan.users is None else plan.data.lengths[plan.users]
    tokens = math.ceil(int(lengths.sum()) / len(batches) / plan.world_size)
    torch.manual_seed(derive_seed(plan.seed))
    model.prepare(plan.data)
    return TrainingModule(
        model, build_objective(model, plan, counts, tokens), plan.training, batches
    )


def build_objective(
    model: EncoderModel, plan: FitPlan, item_counts: Int64, tokens_per_step: int
) -> Objective:
    """Return the way in which a model learns; the last two arguments are those of `build_loss`."""
    training = plan.training
    sizes = (item_counts, tokens_per_step)
    if training.objective in SET_OBJECTIVES:
        sets = build_set_loss(training.loss, *sizes)
        match model:
            case SetModel():
                return PrefixPrediction(sets)
            case Seq2Seq():
                return RestWriting(sets)
        return SetPrediction(sets)
    if isinstance(model, Seq2Seq):
        lists = list_counts(item_counts, int((plan.data.lengths > 0).sum()))
        return ListWriting(build_loss(training.loss, lists, tokens_per_step), model.task)
    loss = build_loss(training.loss, *sizes)
    match model:
        case SetModel():
            return PrefixPrediction(loss)
        case UniRec():
            return UniRecObjective(model, loss, plan.data, plan.statistics)
    return TargetPrediction(loss)


def _trainer(plan: FitPlan, end: EpochEnd) -> lightning.Trainer:
    device = resolve_device(plan.training.device)
    return lightning.Trainer(
        **{
            "accelerator": device,
            "devices": 1,
            "precision": resolve_precision(plan.training.precision, device),
            "max_epochs": plan.epochs or plan.training.epochs,
            "gradient_clip_val": plan.training.clip,
            "callbacks": [end],
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "use_distributed_sampler": False,
            "num_sanity_val_steps": 0,
            **(plan.trainer or {}),
        }
    )


def validate(module: TrainingModule, plan: FitPlan) -> dict[str, float]:
    """Return NDCG@10 and HR@10 by full ranking: a mean over each user's targets, then over users.

    With several processes each ranks the targets of its users and the sums are added up, so that no
    user counts twice.
    """
    return rank_validation(module.evaluated, plan, module.device)


def rank_validation(
    model: EncoderModel, plan: FitPlan, device: torch.device | None = None
) -> dict[str, float]:
    """Return what `validate` does, of a model alone."""
    targets = validation_targets(plan)
    mine = targets.user % plan.world_size == plan.rank
    targets = Targets(targets.user[mine], targets.start[mine], targets.end[mine])
    was_training = model.training
    model.eval()
    ranked = rank_targets(
        model, plan.data.store, targets, plan.evaluation, list_length=10, device=device
    )
    model.train(was_training)
    means = means_by_user(ranked)
    sums = torch.tensor([*means.sum(axis=0), len(means)], dtype=torch.float64)
    if plan.world_size > 1:
        sums = sums.to(device)
        distributed.all_reduce(sums)
    count = max(1.0, float(sums[2]))
    return {METRIC: float(sums[0]) / count, "hr@10": float(sums[1]) / count}


def validation_targets(plan: FitPlan) -> Targets:
    """Return the validation targets, or the seeded sample of them that the configuration asks for."""
    targets, limit = plan.validation, plan.training.validation_targets
    if targets is None or len(targets) == 0:
        share = plan.training.users
        few = "" if share == 1 else f"training.users (it is {share:g}) or "
        of = "" if share == 1 else f" of the users that training.users = {share:g} leaves"
        raise DataError(
            f"the split has no validation targets{of}, so no best epoch can be chosen; set {few}"
            "split.validation higher or split.validation_from earlier (split.window higher where "
            "split.kind is rolling)"
        )
    if limit is None or len(targets) <= limit:
        return targets
    rng = np.random.default_rng(derive_seed(plan.seed, len(targets)))
    chosen = np.sort(rng.choice(len(targets), limit, replace=False))
    return Targets(targets.user[chosen], targets.start[chosen], targets.end[chosen])


def _keep_best(model: EncoderModel, plan: FitPlan, end: EpochEnd, counts: Int64) -> None:
    """Load the best epoch's weights, add the query of an empty history, write the final files."""
    best = plan.directory / BEST
    if not best.is_file():
        raise ArtifactError(
            f"{best} was never written: no validation gave a finite {METRIC} "
            f"(losses: {[round(row['loss'], 4) for row in end.rows]}); lower training.lr"
        )
    model.load_state_dict(load_file(best))
    model.eval()
    model.finish(plan.data)
    with torch.no_grad():
        table = model.encode_items()
    model.default_query.copy_(popularity_query(table, counts))
    if plan.rank == 0:
        save_file(plain_state(model.state_dict()), plan.directory / WEIGHTS)
        validated = plan.validation is not None
        history = {
            "best_epoch": end.best[1] if validated else None,
            "best": end.best[0] if validated else None,
            "epochs": end.rows,
        }
        (plan.directory / HISTORY).write_text(json.dumps(history, indent=1) + "\n")
