"""Blocks on several threads give what one thread gives, in every mode of the caller."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from recsys.config import IndexConfig
from recsys.retrieval.blocks import map_blocks
from recsys.retrieval.index import build_index, recall_check
from recsys.retrieval.topk import exact_topk


@pytest.fixture
def two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("two_threads")
def test_search_in_inference_mode_is_the_same_on_several_threads() -> None:
    torch.manual_seed(0)
    queries, table = torch.randn(300, 8), torch.randn(500, 8)
    plain = exact_topk(queries, table, 10)
    with torch.inference_mode():
        inside = exact_topk(queries, table, 10)
    for one, other in zip(plain, inside, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.usefixtures("two_threads")
def test_recall_is_checked_in_inference_mode_as_the_index_stage_does() -> None:
    torch.manual_seed(0)
    with torch.inference_mode():
        vectors = torch.randn(500, 8)
        index = build_index(IndexConfig(), vectors)
        assert recall_check(index, vectors, torch.randn(300, 8), 10)["recall"] == 1.0


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("inference", [True, False])
def test_blocks_run_in_the_callers_mode_without_gradients(workers: int, inference: bool) -> None:
    def modes(_: int) -> tuple[bool, bool]:
        return torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    with torch.inference_mode(inference):
        assert list(map_blocks(modes, [0, 1, 2], workers)) == [(inference, False)] * 3
