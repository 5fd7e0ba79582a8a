"""What every encoder of sets promises, checked on all of them, and the oracles of each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from recsys.config.sets import SetEncoderConfig
from recsys.data.sequences import SequenceStore, TrainingData
from recsys.models.sets import SetEncoder, build_set_encoder
from recsys.models.sets.attention import AttentionPool
from recsys.models.sets.deep_sets import DeepSets
from recsys.models.sets.mean import SIF

N_ITEMS, WIDTH = 20, 8
CONFIGS: dict[str, dict[str, Any]] = {
    "mean": {"kind": "mean"},
    "sif": {"kind": "sif"},
    "deep_sets": {"kind": "deep_sets"},
    "deep_sets_sum": {"kind": "deep_sets", "pooling": "sum"},
    "deep_sets_max": {"kind": "deep_sets", "pooling": "max"},
    "attention": {"kind": "attention"},
    "set_transformer": {"kind": "set_transformer"},
    "set_transformer_induced": {"kind": "set_transformer", "inducing": 3},
    "read_process": {"kind": "read_process", "steps": 4},
}
ITEMS = torch.tensor([[3, 1, 4, 15, 9], [2, 6, 0, 0, 0], [5, 5, 5, 8, 0], [0, 0, 0, 0, 0]])


def config_of(**settings: Any) -> SetEncoderConfig:
    config: SetEncoderConfig = TypeAdapter(SetEncoderConfig).validate_python(
        {"width": WIDTH, **settings}
    )
    return config


def built(**settings: Any) -> SetEncoder:
    torch.manual_seed(0)
    return build_set_encoder(config_of(**settings), N_ITEMS).double().eval()


def training_data(held_out: int = 5) -> TrainingData:
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 12, 40)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    items = rng.integers(1, 12, lengths.sum()).astype(np.int32)
    # Held-out items are others than those that train.
    end = np.maximum(offsets[1:] - np.where(np.arange(40) % 4 == 0, 2, 0), offsets[:-1])
    for first, last in zip(end, offsets[1:], strict=True):
        items[first:last] = 13 + held_out
    return TrainingData(SequenceStore(items, offsets, N_ITEMS), end)


@pytest.fixture(params=CONFIGS)
def encoder(request: pytest.FixtureRequest) -> SetEncoder:
    made = built(**CONFIGS[request.param])
    if isinstance(made, SIF):
        made.fit(training_data())
    return made


@torch.no_grad()
def test_one_vector_a_set(encoder: SetEncoder) -> None:
    vectors = encoder(ITEMS)
    assert vectors.shape == (4, WIDTH)
    assert vectors.isfinite().all()
    assert (vectors[0] - vectors[1]).abs().max() > 1e-6


@torch.no_grad()
def test_order_does_not_matter(encoder: SetEncoder) -> None:
    vectors = encoder(ITEMS)
    for seed in range(5):
        order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(encoder(ITEMS[:, order]), vectors, atol=1e-12, rtol=0)


@torch.no_grad()
def test_padding_and_neighbours_do_not_matter(encoder: SetEncoder) -> None:
    vectors = encoder(ITEMS)
    wider = torch.nn.functional.pad(ITEMS, (3, 4))
    torch.testing.assert_close(encoder(wider), vectors, atol=1e-12, rtol=0)
    mask = wider > 0
    wider[~mask] = 7  # a mask that is given is believed
    torch.testing.assert_close(encoder(wider, mask), vectors, atol=1e-12, rtol=0)
    for row, size in enumerate((5, 2, 4, 0)):
        alone = encoder(ITEMS[row : row + 1, :size])
        torch.testing.assert_close(alone[0], vectors[row], atol=1e-12, rtol=0)


@torch.no_grad()
def test_an_empty_set_is_zero(encoder: SetEncoder) -> None:
    assert (encoder(ITEMS)[3] == 0).all()
    assert encoder(ITEMS[:, :0]).tolist() == [[0.0] * WIDTH] * 4
    assert encoder(ITEMS[:0]).shape == (0, WIDTH)


def test_gradients_are_numbers_and_pad_gets_none(encoder: SetEncoder) -> None:
    encoder(ITEMS).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert encoder.item_table.weight.grad is not None
    assert (encoder.item_table.weight.grad[0] == 0).all()
    assert encoder.item_table.weight.grad[3].abs().max() > 0


@torch.no_grad()
def test_state_dict_is_the_whole_encoder(encoder: SetEncoder) -> None:
    kinds = {type(built(**settings)): settings for settings in CONFIGS.values()}
    if type(encoder).__name__ in ("DeepSets", "SetTransformer"):
        return  # several configurations of one class; their state is parameters alone
    copy = built(**kinds[type(encoder)])
    copy.load_state_dict(encoder.state_dict())
    assert torch.equal(copy(ITEMS), encoder(ITEMS))


def test_widths_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"width \(7\) must be a multiple of heads \(2\)"):
        config_of(kind="attention", width=7)
    with pytest.raises(ValidationError, match=r"width \(7\) must be even"):
        config_of(kind="read_process", width=7)


def test_a_mean_by_hand() -> None:
    encoder = built(kind="mean")
    table = encoder.item_table.weight
    torch.testing.assert_close(encoder(ITEMS)[2], (3 * table[5] + table[8]) / 4)


def sif_by_hand(encoder: SIF, data: TrainingData) -> Tensor:
    """Return the vectors of ITEMS by numpy's SVD of all training vectors."""
    table = encoder.item_table.weight.detach().numpy()
    counts = data.item_counts()
    weight = encoder.smoothing / (encoder.smoothing + counts / counts.sum())
    weighted = table * weight[:, None]
    begin = data.store.offsets[:-1]
    sets = [data.store.items[a:b] for a, b in zip(begin, data.train_end, strict=True) if b > a]
    training = np.stack([weighted[one].mean(0) for one in sets])
    common = np.linalg.svd(training)[2][0]
    rows = []
    for row in ITEMS.tolist():
        mean = weighted[[i for i in row if i]].mean(0) if any(row) else np.zeros(WIDTH)
        rows.append(mean - common * (common @ mean))
    return torch.tensor(np.array(rows))


@torch.no_grad()
def test_sif_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.models.sets.mean.BLOCK", 7)
    encoder = built(kind="sif")
    assert isinstance(encoder, SIF)
    encoder.fit(training_data())
    torch.testing.assert_close(encoder(ITEMS), sif_by_hand(encoder, training_data()))
    vectors = encoder(ITEMS)
    encoder.common.neg_()
    torch.testing.assert_close(encoder(ITEMS), vectors, atol=1e-12, rtol=0)


@torch.no_grad()
def test_sif_learns_nothing_from_held_out_events() -> None:
    states = []
    for held_out in (1, 6):
        encoder = built(kind="sif")
        assert isinstance(encoder, SIF)
        encoder.fit(training_data(held_out))
        states.append(encoder.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@torch.no_grad()
def test_sif_of_collinear_items_is_zero() -> None:
    encoder = built(kind="sif")
    assert isinstance(encoder, SIF)
    encoder.item_table.weight.copy_(torch.arange(21.0)[:, None] * torch.ones(WIDTH))
    encoder.fit(training_data())
    assert encoder(ITEMS).abs().max() < 1e-12


@torch.no_grad()
def test_sif_without_training_events_is_a_mean() -> None:
    encoder, plain = built(kind="sif"), built(kind="mean")
    assert isinstance(encoder, SIF)
    nothing = np.zeros(4, dtype=np.int64)
    store = SequenceStore(np.zeros(0, dtype=np.int32), nothing, N_ITEMS)
    encoder.fit(TrainingData(store, nothing[1:]))
    torch.testing.assert_close(encoder(ITEMS), plain(ITEMS))


@torch.no_grad()
def test_a_sum_tells_sizes_and_a_mean_does_not() -> None:
    once, twice = torch.tensor([[4, 7]]), torch.tensor([[4, 7, 4, 7]])
    mean, total = built(kind="deep_sets"), built(kind="deep_sets", pooling="sum")
    assert isinstance(mean, DeepSets)
    torch.testing.assert_close(mean(once), mean(twice), atol=1e-12, rtol=0)
    assert (total(once) - total(twice)).abs().max() > 1e-6


@torch.no_grad()
def test_attention_without_scores_is_a_mean() -> None:
    encoder, plain = built(kind="attention"), built(kind="mean")
    assert isinstance(encoder, AttentionPool)
    encoder.score.weight.zero_()
    torch.testing.assert_close(encoder(ITEMS), plain(ITEMS), atol=1e-12, rtol=0)


@torch.no_grad()
def test_attention_of_one_item_is_the_item() -> None:
    encoder = built(kind="attention")
    torch.testing.assert_close(encoder(torch.tensor([[7]]))[0], encoder.item_table.weight[7])
