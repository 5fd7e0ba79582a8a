"""The global term: the oracle of the specification, the formula written out, and the newest items."""

from __future__ import annotations

import pytest
import torch

from recsys.data.batches import batch_from_lists
from recsys.models import global_term
from recsys.models.global_term import history_part, newest_distinct, own_part


def test_own_part_by_hand() -> None:
    table = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    one = torch.tensor([[1]])
    # x = [1, 0] and F = [[1, 0], [0, 0]]: the second row is padding and is not attended to.
    got = own_part(torch.tensor([1]), torch.tensor([[1, 0]]), torch.tensor([[1, 0]]), table)
    assert got.item() * 2 == pytest.approx(1.0)  # n + 1 = 2
    attended = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    x = table[1]
    unmasked = 0.5 * x @ x + 0.5 * x @ (x * ((attended @ x).softmax(0) @ attended))
    assert unmasked.item() == pytest.approx(0.86553, abs=1e-5)  # what padding would make of it
    assert own_part(one[0], one * 0, one * 0, table).item() == pytest.approx(0.5)  # no history


def written_out(item: int, history: list[int], kept: list[int], table: torch.Tensor) -> float:
    rows = table[kept]

    def g(x: torch.Tensor) -> torch.Tensor:
        return 0.5 * x + 0.5 * x * ((rows @ x).softmax(0) @ rows)

    whole = g(table[item]) + torch.stack([g(table[event]) for event in history]).sum(0)
    return float(table[item] @ whole) / (len(history) + 1)


@pytest.mark.parametrize("block", [1, 1 << 24])
def test_both_parts_are_the_formula(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(global_term, "BLOCK_VALUES", block)
    torch.manual_seed(0)
    table = torch.randn(9, 4, dtype=torch.float64)
    histories = [[3, 1, 3, 5], [7], [2, 2, 8, 4, 6]]
    kept = [[5, 3, 1], [7], [6, 4, 8]]  # the three newest distinct ones
    events, distinct = newest_distinct(batch_from_lists(histories, None, 6), 6, 3)
    assert [row[row > 0].tolist() for row in distinct] == kept
    items = torch.arange(9)
    got = history_part(events, distinct, table) @ table.T + own_part(items, events, distinct, table)
    for row, (history, some) in enumerate(zip(histories, kept, strict=True)):
        for item in items.tolist():
            expected = written_out(item, history, some, table)
            assert got[row, item].item() == pytest.approx(expected, abs=1e-12)


def test_candidates_of_each_sequence() -> None:
    torch.manual_seed(0)
    table = torch.randn(9, 4)
    events, distinct = newest_distinct(batch_from_lists([[3, 1], [7]], None, 6), 6, 3)
    own = torch.tensor([[8, 1, 2], [2, 2, 7]])
    whole = own_part(torch.arange(9), events, distinct, table)
    torch.testing.assert_close(own_part(own, events, distinct, table), whole.gather(1, own))
