"""Sentences and text vectors as stages: what they learn from, what is made again, models end to end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from features.text_tower import TextTower
from features.tokenizer import load_tokenizer
from pipelines.features import build_features
from pipelines.prepare import prepare
from pipelines.publish import _text_tower
from pipelines.ray_session import ray_session
from pipelines.run_keys import run_key
from pipelines.runs import Run
from pipelines.text import build_sentences, learned_items, open_sentences, wants_sentences
from pipelines.text_vectors import build_text_vectors, open_vectors, vectors_key
from recsys.config import ExperimentConfig, ItemVectors, LeaveOneOutSplit, TextVectorsConfig
from recsys.data.cold import choose_cold
from recsys.data.sequences import SequenceStore, Split
from recsys.errors import DataError
from recsys.manifest import read_manifest

pytest.importorskip("tokenizers")
pytestmark = [pytest.mark.ray, pytest.mark.slow]

VECTORS = ItemVectors(width=4)
MODELS = {
    "bag": {"kind": "bag_of_tokens"},
    "knn": {"kind": "item_knn", "text": {"vectors": {"width": 4}}},
    "frozen": {"kind": "text_vectors", "vectors": {"width": 4}},
}
COLOURS = ("amber", "azure", "coral", "ebony", "ivory", "khaki", "lilac", "mauve")


def catalogue(ids: list[str], changed: dict[str, str] | None = None) -> pl.DataFrame:
    titles = [
        (changed or {}).get(name, f"{COLOURS[i % 8]} {COLOURS[i // 8 % 8]} {name}")
        for i, name in enumerate(ids)
    ]
    return pl.DataFrame({"item_id": ids, "title": titles, "category": [["a", "b"]] * len(ids)})


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, tiny_events: pl.DataFrame) -> Any:
    """Return `build(name, items, events, **text)`: an experiment with its features, texts included."""
    root = tmp_path_factory.mktemp("texts")
    events = tiny_events

    def build(
        name: str, items: pl.DataFrame, extra: pl.DataFrame | None = None, **text: Any
    ) -> ExperimentConfig:
        folder = root / f"{name}-data"
        folder.mkdir(exist_ok=True)
        whole = events if extra is None else pl.concat([events, extra], how="diagonal")
        whole.write_parquet(folder / "events.parquet")
        items.write_parquet(folder / "items.parquet")
        config = ExperimentConfig.model_validate(
            {
                "name": name,
                "output": str(root / "out"),
                "data": {
                    "events": [str(folder / "events.parquet")],
                    "items": [str(folder / "items.parquet")],
                },
                "models": MODELS,
                "text": {"vocabulary_size": 120, **text},
                "tracking": {"enabled": False},
            }
        )
        prepare(config)
        build_features(config)
        build_sentences(config)
        build_text_vectors(config)
        return config

    with ray_session(
        ExperimentConfig.model_validate({"name": "x", "data": {}, "models": MODELS}).ray
    ):
        yield build


def ids_of(tiny_events: pl.DataFrame, *more: str) -> list[str]:
    return [*tiny_events["item_id"].unique().sort().to_list(), *more]


def test_texts_of_items_without_training_events_teach_nothing(
    built: Callable[..., ExperimentConfig], tiny_events: pl.DataFrame
) -> None:
    ids = ids_of(tiny_events, "new")
    last = tiny_events["timestamp"].max()
    extra = pl.DataFrame({"user_id": ["u00"], "item_id": ["new"], "timestamp": [last]})
    one = built("one", catalogue(ids, {"new": "amber azure"}), extra)
    two = built("two", catalogue(ids, {"new": "zygote zygote quixotic"}), extra)
    assert not learned_items(one, "main")[-1]
    stores = [open_sentences(config, "main") for config in (one, two)]
    assert stores[0].tokenizer_hash == stores[1].tokenizer_hash
    vectors = [open_vectors(config, VECTORS, "main") for config in (one, two)]
    np.testing.assert_array_equal(vectors[0][:-1], vectors[1][:-1])
    assert not np.array_equal(vectors[0][-1], vectors[1][-1])


def test_only_a_changed_text_is_tokenised_again(
    built: Callable[..., ExperimentConfig], tiny_events: pl.DataFrame, tmp_path: Path
) -> None:
    ids = ids_of(tiny_events)
    first = built("again", catalogue(ids))
    kept = tmp_path / "tokenizer"
    (first.workspace / "sentences" / "main" / "tokenizer").rename(kept)
    built("again", catalogue(ids), tokenizer=str(kept))
    changed = built("again", catalogue(ids, {ids[3]: "lilac lamp"}), tokenizer=str(kept))
    rows = read_manifest(changed.workspace / "sentences")["rows"]["main"]
    assert (rows["items"], rows["texts"], rows["texts_reused"]) == (
        len(ids),
        len(ids),
        len(ids) - 1,
    )
    alone = built("alone", catalogue(ids, {ids[3]: "lilac lamp"}), tokenizer=str(kept))
    mine, theirs = (open_sentences(config, "main") for config in (changed, alone))
    assert mine.tokens.tolist() == theirs.tokens.tolist()
    assert mine.rows.tolist() == theirs.rows.tolist()


def test_items_without_text_are_refused_by_id_or_kept(
    built: Callable[..., ExperimentConfig], tiny_events: pl.DataFrame
) -> None:
    ids = ids_of(tiny_events)
    items = catalogue(ids, {ids[1]: "", ids[2]: " "}).drop("category")
    with pytest.raises(
        DataError, match=rf"2 of {len(ids)} items have no value .* {ids[1]}, {ids[2]}"
    ):
        built("empty", items)
    kept = built("kept", items, empty_items="keep")
    assert open_sentences(kept, "main").lengths()[[2, 3]].tolist() == [0, 0]
    assert not open_vectors(kept, VECTORS, "main")[[0, 2, 3]].any()


def test_the_key_of_a_run_knows_the_texts_that_its_model_reads(
    built: Callable[..., ExperimentConfig], tiny_events: pl.DataFrame
) -> None:
    ids = ids_of(tiny_events)
    one = built("keys", catalogue(ids))
    before = {name: run_key(one, name) for name in MODELS}
    other = one.model_copy(update={"text": one.text.model_copy(update={"item_tokens": 5})})
    assert vectors_key(other) != vectors_key(one)
    build_sentences(other)
    build_text_vectors(other)
    assert all(run_key(other, name) != before[name] for name in MODELS)


def test_cold_items_have_no_event_before_the_test(
    built: Callable[..., ExperimentConfig], tiny_events: pl.DataFrame
) -> None:
    ids = ids_of(tiny_events)
    plain = built("plain", catalogue(ids)).model_copy(update={"split": LeaveOneOutSplit()})
    cold = plain.model_copy(
        update={"name": "cold", "split": LeaveOneOutSplit(cold_items=0.25), "models": {}}
    )
    for config in (plain, cold):
        prepare(config)
        build_features(config)
    chosen = choose_cold(len(ids), 0.25, seed=0)
    store = SequenceStore.load(cold.workspace / "features" / "sequences")
    split = Split.load(cold.workspace / "prepared" / "splits" / "main")
    before = Split.load(plain.workspace / "prepared" / "splits" / "main")
    tested = np.zeros(store.n_events, dtype=bool)
    tested[split.test.start] = True
    assert not chosen[store.items[~tested]].any()
    assert chosen[store.items[tested]].any()
    assert split.test.user.tolist() == before.test.user.tolist()
    theirs = SequenceStore.load(plain.workspace / "features" / "sequences")
    assert store.items[split.test.start].tolist() == theirs.items[before.test.start].tolist()
    assert not learned_items(cold, "main")[chosen].any()


def test_a_bundle_takes_along_what_places_a_text(
    built: Callable[..., ExperimentConfig], tiny_events: pl.DataFrame, tmp_path: Path
) -> None:
    items = catalogue(ids_of(tiny_events))
    config = built("keys", items)
    text = _text_tower(Run(config, "frozen", "main", tmp_path), tmp_path)
    assert text is not None
    found = TextTower.load(text).vectors(items.drop("item_id").to_dicts())
    np.testing.assert_allclose(found, open_vectors(config, VECTORS, "main")[1:], atol=1e-6)
    assert _text_tower(Run(config, "knn", "main", tmp_path), tmp_path / "other") is None


def test_an_encoder_may_move_and_none_of_its_files_may_change(
    built: Callable[..., ExperimentConfig], tiny_events: pl.DataFrame, tmp_path: Path
) -> None:
    config = built("moving", catalogue(ids_of(tiny_events)))
    encoder = tmp_path / "one"
    random_bert(config, encoder)

    def of(directory: Path) -> tuple[ExperimentConfig, ItemVectors]:
        wanted = ItemVectors(source=str(directory), width=4)
        models = {"frozen": TextVectorsConfig(vectors=wanted)}
        return config.model_copy(update={"models": models}), wanted

    first, wanted = of(encoder)
    build_text_vectors(first)
    vectors = np.array(open_vectors(first, wanted, "main"))
    shutil.copytree(encoder, tmp_path / "two")
    second, moved = of(tmp_path / "two")
    made = read_manifest(build_text_vectors(second))
    np.testing.assert_array_equal(open_vectors(second, moved, "main"), vectors)
    assert [facts["encoded"] for facts in made["vectors"].values()] == [len(vectors) - 1]  # once
    # Another pooling of the same weights, say, is another encoder.
    settings = json.loads((tmp_path / "two" / "config.json").read_text())
    (tmp_path / "two" / "config.json").write_text(json.dumps(settings | {"layer_norm_eps": 0.5}))
    made = read_manifest(build_text_vectors(second))
    assert [facts["encoded"] for facts in made["vectors"].values()] == [len(vectors) - 1]
    assert np.abs(open_vectors(second, moved, "main") - vectors).max() > 1e-3


def random_bert(config: ExperimentConfig, directory: Path) -> None:
    """Write a small BERT of random weights that reads the words of an experiment."""
    transformers = pytest.importorskip("transformers")
    shutil.copytree(config.workspace / "sentences" / "main" / "tokenizer", directory)
    words = load_tokenizer(directory).vocabulary_size
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(0)
    bert = transformers.BertModel(
        transformers.BertConfig(vocab_size=words, num_hidden_layers=1, **sizes)
    )
    bert.save_pretrained(directory)


def test_texts_are_made_where_a_model_reads_them() -> None:
    def experiment(**models: Any) -> ExperimentConfig:
        return ExperimentConfig.model_validate({"name": "x", "data": {}, "models": models})

    assert wants_sentences(experiment(bag={"kind": "bag_of_tokens"}))
    assert wants_sentences(experiment(knn=MODELS["knn"]))
    minilm = {"kind": "text_vectors", "vectors": {"source": "minilm", "width": None}}
    assert not wants_sentences(experiment(frozen=minilm))
    assert not wants_sentences(experiment(pop={"kind": "pop"}))
