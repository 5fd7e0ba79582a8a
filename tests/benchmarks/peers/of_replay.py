"""RePlay's side of the training benchmark: its parquet loader, SasRec and Lightning module."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from replay.data import FeatureHint, FeatureSource, FeatureType
from replay.data.nn import (
    ParquetModule,
    TensorFeatureInfo,
    TensorFeatureSource,
    TensorSchema,
)
from replay.nn.lightning import LightningModule
from replay.nn.lightning.optimizer import OptimizerFactory
from replay.nn.loss import CE, CESampled
from replay.nn.sequential import SasRec
from replay.nn.transform import UniformNegativeSamplingTransform
from replay.nn.transform.template import make_default_sasrec_transforms
from side import Clock, Events, Settings, read_side, report

ITEM = "item_id"


class Counting(lightning.Callback):  # type: ignore[misc]
    """Tells the clock of every step."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, _: int
    ) -> None:
        mask = batch["padding_mask"]
        self.clock.step(len(mask), int(mask.sum()), mask.numel())


class TokenNegatives(torch.nn.Module):
    """Negatives for every place, a shape its loss takes but none of its transforms draws."""

    def __init__(self, n_items: int, count: int) -> None:
        super().__init__()
        self.n_items = n_items
        self.count = count

    def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
        shape = (*batch["padding_mask"].shape, self.count)
        return {**batch, "negative_labels": torch.randint(self.n_items, shape)}


def main() -> None:
    """Train for so many steps and report."""
    settings, events = read_side()
    torch.set_num_threads(settings.threads)
    lightning.seed_everything(settings.seed, verbose=False)
    warnings.filterwarnings("ignore")
    clock, schema = Clock(settings.warm_up), make_schema(settings, events)
    model = make_model(settings, schema)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=settings.warm_up + settings.steps,
        limit_val_batches=0,
        callbacks=[Counting(clock)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    optimiser = OptimizerFactory(learning_rate=settings.lr)
    with tempfile.TemporaryDirectory() as folder:
        data = make_data(settings, events, schema, Path(folder) / "train.parquet")
        trainer.fit(LightningModule(model, optimizer_factory=optimiser), datamodule=data)
    parameters = sum(weight.numel() for weight in model.parameters())
    report(clock.measured(), parameters, ("replay-rec", "torch", "numpy", "lightning"))


def make_schema(settings: Settings, events: Events) -> TensorSchema:
    """Return the schema: items 0..n-1, n is padding."""
    item = TensorFeatureInfo(
        ITEM,
        is_seq=True,
        feature_type=FeatureType.CATEGORICAL,
        embedding_dim=settings.width,
        padding_value=events.n_items,
        cardinality=events.n_items,
        feature_hint=FeatureHint.ITEM_ID,
        feature_sources=[TensorFeatureSource(FeatureSource.INTERACTIONS, ITEM)],
    )
    return TensorSchema([item])


def make_model(settings: Settings, schema: TensorSchema) -> SasRec:
    """Return the untrained model; its feed-forward's inner layer is as wide as the model."""
    model = SasRec.from_params(
        schema,
        embedding_dim=settings.width,
        num_heads=settings.heads,
        num_blocks=settings.blocks,
        max_sequence_length=settings.length,
        dropout=settings.dropout,
    )
    padding = schema[ITEM].padding_value
    loss = CE(ignore_index=padding) if settings.loss == "softmax" else CESampled()
    return SasRec(model.body, loss)


def make_data(
    settings: Settings, events: Events, schema: TensorSchema, path: Path
) -> ParquetModule:
    """Write every user's newest events and return the loader with its transforms."""
    ends = events.offsets[1:]
    starts = np.maximum(events.offsets[:-1], ends - settings.length - 1)
    lists = [events.items[a:b] - 1 for a, b in zip(starts, ends, strict=True)]
    pq.write_table(pa.table({ITEM: pa.array(lists, pa.list_(pa.int64()))}), path)
    transforms = make_default_sasrec_transforms(schema)["train"]
    draw = {
        "sampled_softmax": TokenNegatives,
        "sampled_softmax_shared": UniformNegativeSamplingTransform,
    }
    if settings.loss in draw:
        transforms.append(draw[settings.loss](events.n_items, settings.negatives))
    return ParquetModule(
        batch_size=settings.batch,
        metadata={"train": {ITEM: {"shape": settings.length + 1, "padding": events.n_items}}},
        transforms={"train": transforms},
        train_path=str(path),
    )


if __name__ == "__main__":
    main()
