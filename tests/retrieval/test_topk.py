from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import DataError
from recsys.retrieval import Exclusion, Histories, exact_topk, topk_rows
from recsys.retrieval.topk import CHUNK, TILE, _largest, _largest_by_key


def by_sorting(scores: torch.Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """All columns, sorted by score downwards, then by column."""
    values = scores.numpy()
    order = np.lexsort((np.tile(np.arange(values.shape[1]), (len(values), 1)), -values), axis=1)
    return order[:, :k], np.take_along_axis(values, order[:, :k], axis=1)


@settings(deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 20 * CHUNK),
    st.integers(1, 6),
    st.integers(1, 400),
    st.integers(0, 2**32 - 1),
)
def test_rows_equal_a_full_sort_with_ties(
    rows: int, width: int, k: int, levels: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(-levels, levels, (rows, width), generator=generator).float()
    columns, best = topk_rows(scores, k)
    expected, values = by_sorting(scores, k)
    kept = min(k, width)
    assert columns[:, :kept].tolist() == expected.tolist()
    assert best[:, :kept].tolist() == values.tolist()
    assert (columns[:, kept:] == -1).all()


@pytest.mark.parametrize("order", ["ascending", "descending", "constant", "signed zeros"])
def test_wide_rows_equal_a_full_sort(order: str) -> None:
    width = 4096 + 7
    scores = {
        "ascending": torch.arange(width).float(),
        "descending": -torch.arange(width).float(),
        "constant": torch.full((width,), 2.5),
        "signed zeros": torch.tensor([0.0, -0.0] * (width // 2) + [-1.0]),
    }[order].repeat(2, 1)
    assert topk_rows(scores, 40)[0].tolist() == by_sorting(scores, 40)[0].tolist()


def test_forbidden_scores_are_no_results() -> None:
    scores = torch.full((1, 5000), -torch.inf)
    scores[0, [4999, 17, 3000]] = torch.tensor([1.0, 2.0, 1.0])
    columns, best = topk_rows(scores, 5)
    assert columns.tolist() == [[17, 3000, 4999, -1, -1]]
    assert best.tolist() == [[2.0, 1.0, 1.0, -torch.inf, -torch.inf]]


@given(st.integers(1, 30), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_selection_by_key_equals_selection_by_partition(width: int, levels: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(-levels, levels + 1, (3, width), generator=generator) / 2.0
    scores[torch.rand(3, width, generator=generator) < 0.2] = -torch.inf
    scores[torch.rand(3, width, generator=generator) < 0.2] *= -0.0
    scores = scores.nan_to_num(nan=-0.0, neginf=-torch.inf)
    k = min(width, 4)
    assert _largest_by_key(scores, k).tolist() == _largest(scores, k).tolist()


@pytest.mark.parametrize("blocks", [(None, None), (3, 500), (1, 37), (64, 5000)])
@pytest.mark.parametrize(
    "rule",
    [
        Exclusion(),
        Exclusion(seen=False),
        Exclusion(window=3, blocked=[1, 2, 900]),
        Exclusion(blocked=[5], allowed=range(1, 2000, 3)),
    ],
    ids=repr,
)
def test_exact_topk_equals_a_full_sort(
    rule: Exclusion, blocks: tuple[int | None, int | None]
) -> None:
    generator = torch.Generator().manual_seed(3)
    table = torch.randint(
        -3, 4, (2001, 4), generator=generator
    ).float()  # exact products, many ties
    queries = torch.randint(-3, 4, (7, 4), generator=generator).float()
    lists = torch.randint(1, 2001, (7, 30), generator=generator).tolist()
    packed = Histories.from_lists(lists)
    full = rule.mask_(queries @ table.T, packed)
    items, scores = exact_topk(
        queries, table, 20, rule, packed, user_block=blocks[0], item_block=blocks[1]
    )
    expected, values = by_sorting(full, 20)
    assert items.tolist() == expected.tolist()
    assert scores.tolist() == values.tolist()


@pytest.mark.parametrize("item_block", [None, 5000])
@pytest.mark.parametrize("k", [1, 30, 90])
def test_tiles_equal_a_full_sort_with_ties(k: int, item_block: int | None) -> None:
    """Three tiles and a bit, scores of small whole numbers; seen, blocked, and a row of nothing else."""
    generator = torch.Generator().manual_seed(k)
    table = torch.randint(-2, 3, (3 * TILE + 77, 4), generator=generator).float()
    queries = torch.randint(-2, 3, (70, 4), generator=generator).float()
    draw = np.random.default_rng(k)
    seen = [draw.integers(1, len(table), size=n % 9) for n in range(70)]
    seen[3] = np.arange(1, len(table) - 5)  # five items are left
    rule = Exclusion(blocked=[1, TILE, TILE + 1, len(table) - 1])
    items, scores = exact_topk(
        queries, table, k, rule, Histories.from_lists(seen), item_block=item_block
    )
    whole = rule.mask_(queries @ table.T, Histories.from_lists(seen))
    expected, values = by_sorting(whole, k)
    expected[values == -np.inf] = -1
    assert items.tolist() == expected.tolist() and scores.tolist() == values.tolist()
    assert (items[3] >= 0).sum() == min(k, 4)


def test_no_queries_give_no_lists() -> None:
    items, scores = exact_topk(torch.empty(0, 2), torch.ones(4, 2), 3)
    assert items.shape == scores.shape == (0, 3)


def test_wrong_inputs_are_refused() -> None:
    table = torch.ones(4, 2)
    broken = torch.tensor([[1.0, 1.0], [torch.nan, 1.0]])
    with pytest.raises(DataError, match=r"queries: 1 of 2 rows hold NaN or infinity.*row 1"):
        exact_topk(broken, table, 2)
    with pytest.raises(DataError, match="needs the histories"):
        exact_topk(table, table, 2, Exclusion())
    with pytest.raises(DataError, match="4 queries, but 1 histories"):
        exact_topk(table, table, 2, Exclusion(), Histories.from_lists([[1]]))
    with pytest.raises(DataError, match="at least 1"):
        exact_topk(table, table, 0)
