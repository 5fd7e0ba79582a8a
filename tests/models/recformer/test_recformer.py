"""Recformer as a model: its two encoders, its catalogue, new items, mixed histories, its state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentences_of import ring_store, token_store

from recsys.config import RecformerConfig, TextEncoderConfig, parse_config
from recsys.data.batches import batch_from_lists
from recsys.data.token_store import TokenStore
from recsys.errors import ArtifactError, ConfigError, DataError
from recsys.models.recformer.model import Recformer
from recsys.models.recformer.text_vectors import kept_text_vectors, text_vectors
from recsys.training.callbacks import plain_state

N = 12


def config(**settings: Any) -> RecformerConfig:
    shape = TextEncoderConfig(width=16, heads=2, inner=24, max_tokens=16, max_items=5)
    return RecformerConfig(encoder=shape, **settings)


def ready(sentences: TokenStore | None = None) -> Recformer:
    torch.manual_seed(0)
    model = Recformer(config(), N).eval()
    model.set_sentences(ring_store(N) if sentences is None else sentences)
    for parameter in model.encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    model.refresh_items()
    return model


@torch.no_grad()
def test_an_item_is_encoded_as_a_history_of_itself() -> None:
    model = ready()
    histories = [[item] for item in range(1, N + 1)]
    queries = model.encode_sequences(batch_from_lists(histories, None, 5))
    torch.testing.assert_close(queries, model.encode_items()[1:], atol=1e-6, rtol=0)
    torch.testing.assert_close(queries.norm(dim=1), torch.ones(N))


@torch.no_grad()
def test_every_place_is_the_history_up_to_it() -> None:
    model, history = ready(), [3, 1, 4, 1, 5]
    hidden = model.hidden(batch_from_lists([history, [7]], None, 5))
    for end in range(1, 6):
        alone = model.encode_sequences(batch_from_lists([history[:end]], None, 5))
        torch.testing.assert_close(hidden[0, end - 1], alone[0], atol=1e-6, rtol=0)
    assert model.hidden(batch_from_lists([[]], None, 5)).numel() == 0


@torch.no_grad()
def test_equal_texts_are_equal_items_and_items_without_text_alike() -> None:
    model = ready(token_store([[1, 2], [3], [1, 2], [], []] + [[5]] * 7, N))
    vectors = model.encode_items()
    assert torch.equal(vectors[1], vectors[3]) and torch.equal(vectors[4], vectors[5])
    assert not torch.allclose(vectors[1], vectors[2])
    assert vectors[0].count_nonzero() == 0


@torch.no_grad()
def test_a_new_item_is_ranked_by_its_text_alone() -> None:
    model = ready()
    new = model.vectors_of(token_store([[4, 5], [9, 3, 3]], N))
    torch.testing.assert_close(new[1], model.encode_items()[5], atol=1e-6, rtol=0)  # item 5's text
    assert new.shape == (3, 16) and new[0].count_nonzero() == 0


@torch.no_grad()
def test_new_items_are_encoded_by_the_encoder_of_the_catalogue() -> None:
    model = ready()
    before = model.vectors_of(ring_store(N))
    for parameter in model.encoder.parameters():
        parameter.add_(torch.randn_like(parameter))  # the user encoder has learned since
    torch.testing.assert_close(model.vectors_of(ring_store(N)), before, rtol=0, atol=0)
    torch.testing.assert_close(before, model.encode_items(), atol=1e-6, rtol=0)


@torch.no_grad()
def test_a_history_may_mix_items_and_texts() -> None:
    model = ready()
    more = token_store([[6, 7], [2, 0]], N)  # the first is item 7's text
    found = model.encode_histories([[3, -1], [], [-2], [3, 7]], more)
    assert torch.equal(found[0], found[3]) and torch.equal(found[1], model.default_query)
    known = model.encode_sequences(batch_from_lists([[3, 7]], None, 5))
    torch.testing.assert_close(found[:1], known, atol=1e-6, rtol=0)
    alone = model.encode_histories([[-2]], token_store([[1, 1], [2, 0]], N))
    torch.testing.assert_close(found[2:3], alone, atol=1e-6, rtol=0)
    for wrong in (N + 1, 0, -3):
        with pytest.raises(
            DataError, match=rf"{wrong} to {wrong}; allowed are 1 to {N} .* -1 to -2"
        ):
            model.encode_histories([[wrong]], more)
    with pytest.raises(DataError, match="no more were given"):
        model.encode_histories([[-1]])


def test_sentences_that_do_not_fit_are_refused() -> None:
    model = ready()
    with pytest.raises(ArtifactError, match="12 items, but the sentences are of 3"):
        model.set_sentences(ring_store(3))
    with pytest.raises(ArtifactError, match=r"tokenizer cdcdcdcd.*tokenizer abababab"):
        model.vectors_of(ring_store(3, "cd" * 32))
    with pytest.raises(ArtifactError, match="tokenizer cdcdcdcd"):
        model.encode_histories([[-1]], ring_store(3, "cd" * 32))
    with pytest.raises(ArtifactError, match="no item sentences yet"):
        Recformer(config(), N).refresh_items()


@torch.no_grad()
def test_its_state_is_tensors_and_holds_the_sentences(tmp_path: Path) -> None:
    model = ready()
    for parameter in model.encoder.parameters():
        parameter.add_(torch.randn_like(parameter))
    save_file(plain_state(model.state_dict()), tmp_path / "model.safetensors")
    copy = Recformer(config(), N).eval()
    copy.load_state_dict(load_file(tmp_path / "model.safetensors"))
    batch = batch_from_lists([[3, 1, 4], [7]], None, 5)
    assert torch.equal(copy.score(batch), model.score(batch))
    assert torch.equal(copy.vectors_of(ring_store(N)), model.vectors_of(ring_store(N)))
    assert np.array_equal(copy.sentences.hashes, model.sentences.hashes)


@torch.no_grad()
def test_only_changed_texts_are_encoded_again(tmp_path: Path) -> None:
    model, file = ready(), tmp_path / "kept" / "vectors.safetensors"
    texts = [[i, i + 1] for i in range(20)]
    first = token_store(texts, 40)
    model.encoder.resize(first.vocabulary_size)
    vectors, encoded = kept_text_vectors(model.encoder, first, file)
    assert encoded == 21  # and the empty text
    assert kept_text_vectors(model.encoder, first, file)[1] == 0
    texts[7], texts[8] = texts[8], [30]  # one moved, one changed
    second = token_store(texts, 40)
    again, encoded = kept_text_vectors(model.encoder, second, file)
    assert encoded == 1
    np.testing.assert_array_equal(again[8], vectors[9])
    expected = text_vectors(model.encoder, second).numpy()
    np.testing.assert_allclose(again, expected, atol=1e-6)
    model.encoder.words.weight.mul_(1.1)  # other weights: nothing that is kept may be used
    assert kept_text_vectors(model.encoder, second, file)[1] == 21
    file.write_bytes(b"no tensors")
    with pytest.raises(ArtifactError, match="is damaged"):
        kept_text_vectors(model.encoder, second, file)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"stages": "none"}, "set pretrained"),
        ({"training": {"ema": 0.9}}, "training.ema would average"),
        ({"training": {"loss": {"temperature": 0.1}}}, "a temperature of its own"),
        ({"training": {"objective": "next_basket"}}, "use next_event"),
        ({"encoder": {"width": 10, "heads": 4}}, "multiple of heads"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(settings: dict[str, Any], said: str) -> None:
    raw = {"name": "x", "data": {"events": ["x.csv"]}, "models": {"r": {"kind": "recformer"}}}
    raw["models"]["r"] |= settings  # type: ignore[index]
    with pytest.raises(ConfigError, match=said):
        parse_config(raw)
