from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

from recsys.config import LossConfig
from recsys.errors import ConfigError
from recsys.losses import BCE, BPR, SampledSoftmax, Softmax, build_loss
from recsys.losses.softmax import chunk_rows


def problem(tokens: int, items: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    make = torch.Generator().manual_seed(seed)
    queries = torch.randn(tokens, width, generator=make, dtype=torch.float64)
    table = torch.randn(items + 1, width, generator=make, dtype=torch.float64)
    targets = torch.randint(1, items + 1, (tokens,), generator=make)
    return queries.requires_grad_(), targets, table.requires_grad_()


def whole(
    queries: Tensor,
    targets: Tensor,
    table: Tensor,
    temperature: float = 1.0,
    smoothing: float = 0.0,
) -> Tensor:
    logits = queries @ table[1:].T / temperature
    return cross_entropy(logits, targets - 1, label_smoothing=smoothing)


def chunked(rows: int, items: int, **settings: float) -> Softmax:
    """A loss whose chunks have `rows` tokens of float64 logits."""
    return Softmax(memory_mb=(rows * items * 8 + 4) / 1e6, **settings)


def test_hand_computed() -> None:
    table = torch.tensor([[9.0], [0.0], [math.log(2)], [math.log(5)]])  # exp of scores: 1, 2, 5
    loss = Softmax()(torch.tensor([[1.0], [1.0]]), torch.tensor([3, 2]), table)
    assert loss.item() == pytest.approx((math.log(8 / 5) + math.log(8 / 2)) / 2, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    tokens=st.integers(1, 9),
    items=st.integers(1, 12),
    rows=st.integers(1, 10),
    temperature=st.sampled_from([0.1, 1.0, 3.0]),
    smoothing=st.sampled_from([0.0, 0.2]),
    seed=st.integers(0, 99),
)
def test_any_chunk_equals_the_whole(
    tokens: int, items: int, rows: int, temperature: float, smoothing: float, seed: int
) -> None:
    queries, targets, table = problem(tokens, items, 4, seed)
    loss = chunked(rows, items, temperature=temperature, label_smoothing=smoothing)
    assert chunk_rows(queries, table, loss.memory_mb) == rows
    ours, oracle = (
        loss(queries, targets, table),
        whole(queries, targets, table, temperature, smoothing),
    )
    assert ours.detach().numpy() == pytest.approx(oracle.detach().numpy(), abs=1e-10)
    for grad, expected in zip(
        torch.autograd.grad(3 * ours, (queries, table)),
        torch.autograd.grad(3 * oracle, (queries, table)),
        strict=True,
    ):
        torch.testing.assert_close(grad, expected, atol=1e-10, rtol=0)


def test_gradcheck() -> None:
    queries, targets, table = problem(5, 7, 3)
    loss = chunked(2, 7, temperature=0.7, label_smoothing=0.1)
    assert torch.autograd.gradcheck(lambda q, t: loss(q, targets, t), (queries, table))


def test_pad_never_competes_and_gets_no_gradient() -> None:
    queries, targets, table = problem(6, 5, 3)
    value = Softmax(label_smoothing=0.1)(queries, targets, table)
    value.backward()
    assert table.grad is not None
    assert (table.grad[0] == 0).all()
    moved = table.detach().clone()
    moved[0] = 1e6
    assert Softmax(label_smoothing=0.1)(queries, targets, moved).item() == value.item()


def test_large_scores_do_not_overflow() -> None:
    queries, targets, table = problem(6, 5, 3)
    big = (queries * 1e4).float()
    expected = whole(big.double(), targets, table).item()
    assert Softmax()(big, targets, table.float()).item() == pytest.approx(expected, rel=1e-5)


def test_only_wanted_gradients_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, targets, table = problem(4, 5, 3)
    products = []
    real = torch.Tensor.addmm_
    monkeypatch.setattr(
        torch.Tensor, "addmm_", lambda *args, **kw: products.append(1) or real(*args, **kw)
    )
    with torch.no_grad():
        silent = Softmax()(queries, targets, table)
    assert not silent.requires_grad
    Softmax()(queries, targets, table.detach()).backward()
    assert products == []
    Softmax()(queries.detach(), targets, table).backward()
    assert products == [1]


def test_autocast_keeps_float32_logits() -> None:
    queries, targets, table = problem(64, 50, 32)
    single, items = queries.detach().float(), table.detach().float()
    plain = Softmax()(single, targets, items)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert Softmax()(single, targets, items).item() == plain.item()
    low = single.bfloat16().requires_grad_()
    value = Softmax()(low, targets, items)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(Softmax()(low.float(), targets, items).item(), rel=1e-6)
    value.backward()
    assert low.grad is not None
    assert low.grad.dtype == torch.bfloat16


def test_backward_twice_gives_the_same() -> None:
    queries, targets, table = problem(4, 5, 3)
    loss = Softmax()(queries, targets, table)
    first = torch.autograd.grad(loss, (queries, table), retain_graph=True)
    second = torch.autograd.grad(loss, (queries, table))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("kind", "sampler"),
    [
        *(("softmax", "uniform"), ("sampled_softmax", "uniform"), ("sampled_softmax", "in_batch")),
        *(("bce", "uniform"), ("bce", "in_batch"), ("bpr", "in_batch"), ("gbce", "uniform")),
    ],
)
def test_no_tokens_cost_nothing(kind: str, sampler: str) -> None:
    queries, targets, table = problem(0, 5, 3)
    loss = build_loss(LossConfig(kind=kind, sampler=sampler), np.ones(6, dtype=np.int64), 1)  # type: ignore[arg-type]
    value = loss(queries, targets, table)
    value.backward()
    assert value.item() == 0
    assert table.grad is not None
    assert (table.grad == 0).all()


@pytest.mark.parametrize(
    ("items", "tokens", "memory_mb", "expected"),
    [
        (125_000, 4000, 256.0, Softmax),
        (125_001, 4000, 256.0, SampledSoftmax),
        (250_000, 256, 256.0, Softmax),  # a step has fewer tokens than a chunk
        (12_101, 750, 16.0, SampledSoftmax),
    ],
)
def test_auto_goes_by_catalogue_and_memory(
    items: int, tokens: int, memory_mb: float, expected: type
) -> None:
    counts = np.ones(items + 1, dtype=np.int64)
    assert type(build_loss(LossConfig(memory_mb=memory_mb), counts, tokens)) is expected


def test_build_loss_names_what_smoothing_cannot_do() -> None:
    counts = np.ones(5, dtype=np.int64)
    for kind in ("sampled_softmax", "gbce", "bce", "bpr"):
        config = LossConfig(kind=kind, label_smoothing=0.1)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=r"label_smoothing is 0.1.*kind: softmax"):
            build_loss(config, counts, 10)


@pytest.mark.parametrize("sampler", ["uniform", "popularity"])
@pytest.mark.parametrize("share", ["token", "batch"])
def test_gbce_is_calibrated_for_the_negatives_that_are_drawn(sampler: str, share: str) -> None:
    config = LossConfig(kind="gbce", negatives=10, gbce_t=1, sampler=sampler, share=share)  # type: ignore[arg-type]
    loss = build_loss(config, np.ones(102, dtype=np.int64), 7)
    assert isinstance(loss, BCE)
    drawn, _ = loss.sampler(torch.arange(1, 8))
    # t = 1: beta is the rate at which an item other than the target is drawn.
    assert loss.beta == pytest.approx(drawn.shape[-1] / (101 - 1))


def test_build_loss_passes_the_settings_on() -> None:
    counts = np.ones(102, dtype=np.int64)
    gbce = build_loss(LossConfig(kind="gbce", negatives=10, gbce_t=0.5, temperature=2), counts, 10)
    assert isinstance(gbce, BCE)
    assert (gbce.beta, gbce.temperature) == (pytest.approx(0.1 * (0.5 * -9 + 10)), 2)
    bce = build_loss(LossConfig(kind="bce"), counts, 10)
    assert isinstance(bce, BCE)
    assert bce.beta == 1
    bpr = build_loss(LossConfig(kind="bpr", share="batch", negatives=7), counts, 10)
    assert isinstance(bpr, BPR)
    assert (bpr.sampler.shared, bpr.sampler.count) == (True, 7)
    softmax = build_loss(
        LossConfig(kind="softmax", temperature=0.5, label_smoothing=0.2), counts, 10
    )
    assert isinstance(softmax, Softmax)
    assert (softmax.temperature, softmax.label_smoothing) == (0.5, 0.2)
