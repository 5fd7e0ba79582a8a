"""Bundles of the tiny catalogue whose model reads texts, for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import torch
from tiny_bundle import N_ITEMS, events, items_frame, make_bundle

from features.sentences import SentenceMaker
from features.text_map import save_map
from features.text_tower import write_tower
from features.text_vectors import TokenProjection
from features.tokenizer import train_tokenizer
from recsys.config import (
    ItemVectors,
    RecformerConfig,
    SASRecConfig,
    TextConfig,
    TextEncoderConfig,
    TextItems,
    TextVectorsConfig,
    UniRecConfig,
)
from recsys.config.recformer import LexicalConfig
from recsys.data.sequences import TrainingData
from recsys.models import build_model
from recsys.models.item_table import read_texts
from recsys.models.recformer.model import Recformer

WIDTH = 8
VECTORS = ItemVectors(width=WIDTH)
READS_TEXTS = SASRecConfig(
    width=8, heads=2, blocks=1, max_length=6, text=TextItems(vectors=VECTORS, mode="only")
)
COLOURS = ["amber", "azure", "coral", "ebony", "ivory"]
PLACES = ["desk", "wall", "roof", "yard", "lake", "hall", "barn", "attic"]


def titled() -> pl.DataFrame:
    titles = [f"{COLOURS[i % 5]} {PLACES[i // 5 % 8]} lamp" for i in range(1, N_ITEMS + 1)]
    return items_frame().with_columns(pl.Series("title", titles))


def written(root: Path) -> tuple[Path, TrainingData]:
    """Write a tower of the tiny catalogue; return it, and what a model learns from."""
    tokenizer = train_tokenizer(
        titled()["title"].to_list(), ["title"], vocabulary_size=200, lowercase=True
    )
    tokenizer.save(root / "tokenizer")
    store = SentenceMaker(tokenizer, ("title",), TextConfig()).of_frame(titled())
    learned = np.arange(N_ITEMS + 1) > 0
    projection = TokenProjection.fit(store, learned, WIDTH)
    save_map(root / "map", "tokens", projection)
    write_tower(
        root / "text",
        ["title"],
        TextConfig(),
        tokenizer=root / "tokenizer",
        text_map=root / "map",
    )
    log = events()
    return root / "text", TrainingData(log, log.offsets[1:], store, projection.vectors(store))


def frozen_bundle(root: Path) -> Path:
    text, data = written(root)
    config = TextVectorsConfig(vectors=VECTORS)
    model = build_model(config, N_ITEMS)
    model.fit(data)  # type: ignore[operator]
    return make_bundle(root / "bundles", config, model=model.eval(), items=titled(), text=text)


def learned_bundle(root: Path, config: SASRecConfig | UniRecConfig = READS_TEXTS) -> Path:
    """A model whose item vectors are a map of texts."""
    text, data = written(root)
    model = build_model(config, N_ITEMS)
    read_texts(model, data)
    return make_bundle(root / "bundles", config, model=model.eval(), items=titled(), text=text)


def recformer_bundle(root: Path, lexical: LexicalConfig | None = None) -> Path:
    """A Recformer, which reads the sentences themselves."""
    _, data = written(root)
    assert data.sentences is not None
    shape = TextEncoderConfig(width=16, heads=2, inner=24, max_tokens=32, max_items=6)
    config = RecformerConfig(encoder=shape, lexical=lexical)
    torch.manual_seed(0)
    model = Recformer(config, N_ITEMS).eval()
    model.set_sentences(data.sentences)
    for parameter in model.encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    model.refresh_items()
    write_tower(root / "sentences", ["title"], TextConfig(), tokenizer=root / "tokenizer")
    items = titled()
    return make_bundle(root / "bundles", config, model=model, items=items, text=root / "sentences")
