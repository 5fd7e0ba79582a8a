"""Files that a model reads count by what they hold, not by where they lie."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from features.tokenizer import tokenizer_files
from pipelines.run_keys import _described, run_key
from pipelines.text_vectors import name_of, source_key
from recsys.config import (
    ExperimentConfig,
    ItemVectors,
    SASRecConfig,
    TextVectorsConfig,
    TiSASRecConfig,
    UniRecConfig,
    VotesConfig,
)
from recsys.config.playlists import SetModelConfig


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """A directory like that of a Hugging Face encoder."""
    directory = tmp_path / "one"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({"hidden_size": 4}))
    (directory / "model.safetensors").write_bytes(b"weights")
    return directory


def test_an_encoder_counts_by_its_files(
    fitted_experiment: ExperimentConfig, encoder: Path, tmp_path: Path
) -> None:
    def keys(directory: Path) -> tuple[str, str, str]:
        wanted = ItemVectors(source=str(directory), width=4)
        model = TextVectorsConfig(vectors=wanted)
        config = fitted_experiment.model_copy(update={"models": {"frozen": model}})
        return source_key(config, wanted), run_key(config, "frozen"), name_of(config, wanted)

    first = keys(encoder)
    other = tmp_path / "elsewhere"
    shutil.copytree(encoder, other)
    assert keys(other) == first
    weights = other / "model.safetensors"
    weights.write_bytes(b"changed")  # of the same size
    os.utime(weights, ns=(1, 1))
    changed = keys(other)
    assert not set(changed) & set(first)


def test_minilm_is_not_the_vectors_of_tokens(fitted_experiment: ExperimentConfig) -> None:
    found = {
        source_key(fitted_experiment, ItemVectors(source=source, width=width))
        for source, width in (("minilm", 4), ("minilm", 5), ("minilm", None))
    }
    assert len(found) == 3


def test_song_vectors_count_by_their_bytes(
    fitted_experiment: ExperimentConfig, tmp_path: Path
) -> None:
    def key(path: Path | None) -> str:
        model = SetModelConfig(song_vectors=path)
        return run_key(fitted_experiment.model_copy(update={"models": {"lists": model}}), "lists")

    one, other = tmp_path / "one.parquet", tmp_path / "other.parquet"
    one.write_bytes(b"vectors")
    other.write_bytes(b"vectors")
    assert key(one) == key(other) != key(None)
    other.write_bytes(b"changed")
    assert key(one) != key(other)


def test_a_tokenizer_is_its_words_and_its_special_ones(tmp_path: Path) -> None:
    assert tokenizer_files(tmp_path) == {}
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert tokenizer_files(tmp_path) == {}
    (tmp_path / "tokenizer.json").write_text("{}")
    words = tokenizer_files(tmp_path)
    (tmp_path / "special_tokens_map.json").write_text("{}")
    both = tokenizer_files(tmp_path)
    assert list(words) == ["tokenizer.json"]
    assert set(both) == {"tokenizer.json", "special_tokens_map.json"}
    assert both["tokenizer.json"] == words["tokenizer.json"]


def test_a_part_that_does_otherwise_than_before_makes_another_run() -> None:
    """Runs of other models stay what they are."""
    plain = {"calendar": True, "global_term": False, "item_enhancement": False}
    plain |= {"sequence_enhancement": False}

    def changed(**settings: Any) -> list[str]:
        return list(_described(UniRecConfig(**plain | settings)).get("changed", []))

    assert changed() == [] and "changed" not in _described(SASRecConfig())
    assert len(changed(global_term=True)) == len(changed(uniformity=True)) == 1
    assert changed(votes=VotesConfig()) == []
    baskets = {"baskets": "set", "training": {"objective": "next_basket"}}
    assert len(changed(votes=VotesConfig(), **baskets)) == 1 and changed(**baskets) == []
    assert changed(frequency_by="count") == changed(mode="reference") == []
    parts: dict[str, Any] = {"sequence_enhancement": True, "frequency_by": "count"}
    assert len(changed(**parts)) == 1 and len(changed(mode="reference", **parts)) == 2
    assert len(_described(TiSASRecConfig())["changed"]) == 1


def test_a_setting_that_came_later_leaves_earlier_runs_their_names() -> None:
    assert "item_teacher" not in _described(UniRecConfig())
    assert _described(UniRecConfig(item_teacher="neighbours"))["item_teacher"] == "neighbours"
