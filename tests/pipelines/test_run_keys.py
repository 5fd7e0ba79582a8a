"""Files that a model reads count by what they hold, not by where they lie."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from features.tokenizer import tokenizer_files
from pipelines.run_keys import run_key
from pipelines.text_vectors import name_of, source_key
from recsys.config import ExperimentConfig, ItemVectors, TextVectorsConfig
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
    def keys(directory: Path) -> tuple[str, str]:
        wanted = ItemVectors(source=str(directory), width=4)
        model = TextVectorsConfig(vectors=wanted)
        config = fitted_experiment.model_copy(update={"models": {"frozen": model}})
        return source_key(config, wanted), run_key(config, "frozen")

    first = keys(encoder)
    other = tmp_path / "elsewhere"
    shutil.copytree(encoder, other)
    assert keys(other) == first
    assert name_of(ItemVectors(source=str(other))) != name_of(ItemVectors(source=str(encoder)))
    weights = other / "model.safetensors"
    weights.write_bytes(b"changed")  # of the same size
    os.utime(weights, ns=(1, 1))
    changed = keys(other)
    assert changed[0] != first[0] and changed[1] != first[1]


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
