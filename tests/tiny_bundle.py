"""A small bundle for tests: a seeded SASRec over 40 items, or any other model, with users and titles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from recsys.bundle import write_bundle
from recsys.config import IndexConfig, ModelConfig, SASRecConfig
from recsys.data.sequences import SequenceStore, TrainingData
from recsys.models import CountingModel, EncoderModel, Model, build_model
from recsys.retrieval.index import build_index

N_ITEMS, N_USERS = 40, 12
SASREC = SASRecConfig(width=8, heads=2, blocks=1, max_length=6)


def item_name(index: int) -> str:
    return f"i{index:02d}"


def items_frame() -> pl.DataFrame:
    indices = np.arange(1, N_ITEMS + 1, dtype=np.int32)
    ids = [item_name(i) for i in indices]
    return pl.DataFrame({"item_id": ids, "item": indices, "title": [f"Title {i}" for i in ids]})


def users_frame() -> pl.DataFrame:
    return pl.DataFrame({"user_id": [f"u{u:02d}" for u in range(N_USERS)]})


def events() -> SequenceStore:
    """User u has 2 * u events, so user 0 has none."""
    rng = np.random.default_rng(7)
    lengths = 2 * np.arange(N_USERS)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    items = rng.integers(1, N_ITEMS + 1, size=offsets[-1]).astype(np.int32)
    return SequenceStore(items, offsets, N_ITEMS, timestamps=np.arange(len(items), dtype=np.int64))


def fitted(config: ModelConfig = SASREC, seed: int = 3) -> Model:
    torch.manual_seed(seed)
    model = build_model(config, N_ITEMS)
    if isinstance(model, CountingModel):
        store = events()
        model.fit(TrainingData(store, store.offsets[1:]))
    if isinstance(model, EncoderModel):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn(parameter.shape))
            model.default_query.copy_(torch.randn(model.width))
    return model.eval()


def make_bundle(folder: Path, config: ModelConfig = SASREC, **changes: Any) -> Path:
    model = changes.pop("model", None) or fitted(config)
    index = None
    if isinstance(model, EncoderModel):
        with torch.no_grad():
            index = build_index(IndexConfig(), model.encode_items())
    parts: dict[str, Any] = {
        "name": "tiny",
        "model": model,
        "model_config": config,
        "items": items_frame(),
        "users": users_frame(),
        "store": events(),
        "index": index,
        "popularity": np.bincount(events().items, minlength=N_ITEMS + 1),
        "info": {"metrics": {"NDCG@10": 0.5}, "seed": 3, "dataset": "tiny"},
        "recent_events": 5,
    }
    return write_bundle(folder, **{**parts, **changes})
