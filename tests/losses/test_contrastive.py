"""The contrastive loss against sums by hand, one process against two, and GradCache against none."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as distributed
import torch.multiprocessing
from torch import Tensor

from recsys.config.text_encoder import TextEncoderConfig
from recsys.data.item_sentences import SentenceBatch
from recsys.losses.contrastive import in_batch_contrast
from recsys.models.recformer.encoder import TextEncoder

APART = torch.tensor([1, 2])


def test_it_is_the_cross_entropy_of_cosines() -> None:
    a, b = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[6.0, 8.0], [0.0, 2.0]])
    assert in_batch_contrast(a, b, APART, 0.05).item() == pytest.approx(6.00908, abs=1e-5)
    b = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    loss = in_batch_contrast(torch.eye(2), b, APART, 0.05)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-6)


def test_equal_items_do_not_compete() -> None:
    a, b = torch.randn(3, 4), torch.randn(3, 4)
    b[2] = b[0]
    loss = in_batch_contrast(a, b, torch.tensor([7, 8, 7]), 0.1)
    cosine = torch.nn.functional.normalize(a, dim=1) @ torch.nn.functional.normalize(b, dim=1).T
    s = cosine / 0.1
    rows = [torch.stack([s[0, 0], s[0, 1]]), torch.stack([s[1, 1], s[1, 0], s[1, 2]])]
    rows.append(torch.stack([s[2, 2], s[2, 1]]))
    expected = torch.stack([row.logsumexp(0) - row[0] for row in rows]).mean()
    torch.testing.assert_close(loss, expected)


def test_no_pairs_cost_nothing() -> None:
    a = torch.zeros(0, 4, requires_grad=True)
    loss = in_batch_contrast(a, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 0.1)
    loss.backward()
    assert loss.item() == 0.0


def _one_of_two(rank: int, directory: str, pairs: Tensor, items: Tensor) -> None:
    distributed.init_process_group(
        "gloo", init_method=f"file://{directory}/meeting", rank=rank, world_size=2
    )
    torch.set_num_threads(1)
    mine = slice(4 * rank, 4 * rank + 4)
    weight = torch.eye(5).requires_grad_()
    a, b = (part[mine] @ weight for part in pairs)
    loss = in_batch_contrast(a, b, items[mine], 0.1)
    loss.backward()
    assert weight.grad is not None
    distributed.all_reduce(weight.grad)
    torch.save((loss.detach(), weight.grad / 2), f"{directory}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_two_processes_have_the_loss_and_the_gradient_of_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    pairs, items = torch.randn(2, 8, 5), torch.tensor([1, 2, 3, 4, 5, 1, 7, 8])
    torch.multiprocessing.spawn(_one_of_two, (str(tmp_path), pairs, items), nprocs=2)  # type: ignore[no-untyped-call]
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    weight = torch.eye(5).requires_grad_()
    loss = in_batch_contrast(pairs[0] @ weight, pairs[1] @ weight, items, 0.1)
    loss.backward()
    torch.testing.assert_close((found[0][0] + found[1][0]) / 2, loss.detach())
    torch.testing.assert_close(found[0][1], weight.grad, atol=1e-6, rtol=1e-5)


def gradients(cached: bool, **settings: Any) -> tuple[Tensor, list[Tensor]]:
    torch.manual_seed(2)
    config = TextEncoderConfig(width=16, heads=2, inner=24, max_tokens=32, **settings)
    encoder = TextEncoder(config, 40)
    lengths = torch.randint(2, 33, (24,))
    parts = []
    for seed in (1, 2):
        rng = torch.Generator().manual_seed(seed)
        ids = torch.randint(3, 40, (24, 32), generator=rng)
        ones = torch.ones_like(ids)
        parts.append(
            encoder.encode(SentenceBatch(ids, ones, ones, ones.bool(), lengths), cached=cached)
        )
    loss = in_batch_contrast(*parts, torch.arange(24), 0.05)
    loss.backward()
    return loss.detach(), [p.grad for p in encoder.parameters() if p.grad is not None]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_grad_cache_has_the_gradients_of_the_whole_batch(checkpointing: bool) -> None:
    loss, expected = gradients(False, dropout=0.0)
    again, found = gradients(True, dropout=0.0, bucket_tokens=64, checkpointing=checkpointing)
    torch.testing.assert_close(again, loss)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_grad_cache_draws_the_same_dropout_twice() -> None:
    settings: dict[str, Any] = {"dropout": 0.3, "bucket_tokens": 64}
    loss, expected = gradients(False, **settings)  # the same buckets, kept in memory
    again, found = gradients(True, **settings)
    torch.testing.assert_close(again, loss)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
