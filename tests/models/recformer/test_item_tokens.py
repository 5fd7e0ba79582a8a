"""Histories as tokens, against sequences written down by hand."""

from __future__ import annotations

import torch

from recsys.models.recformer.tokens import ItemTokens

# title red lamp, brand acme, category home; title blue chair, brand (empty), category home, color red
TOKENS = [[10, 13, 14, 11, 15, 12, 16], [10, 17, 18, 11, 12, 16]]
TYPES = [[1, 2, 2, 1, 2, 1, 2], [1, 2, 2, 1, 1, 2]]


def items(tokens: list[list[int]], types: list[list[int]]) -> ItemTokens:
    lengths = torch.tensor([0, 0, *(len(one) for one in tokens)])
    return ItemTokens(
        tokens=torch.tensor([t for one in tokens for t in one], dtype=torch.int32),
        types=torch.tensor([t for one in types for t in one], dtype=torch.uint8),
        offsets=lengths.cumsum(0),
        cls_id=0,
        pad_id=1,
        word_starts=torch.tensor([t != 14 for one in tokens for t in one]),
    )


HISTORY = torch.tensor([[2, 1]])  # newest first


def test_a_history_is_its_items_newest_first() -> None:
    found = items(TOKENS, TYPES).sequences(HISTORY, 64, 50)
    assert found.ids.tolist() == [[0, 10, 17, 18, 11, 12, 16, 10, 13, 14, 11, 15, 12, 16]]
    assert found.types.tolist() == [[0, 1, 2, 2, 1, 1, 2, 1, 2, 2, 1, 2, 1, 2]]
    assert found.item_positions.tolist() == [[0] + 6 * [1] + 7 * [2]]
    assert found.lengths.tolist() == [14]
    assert found.word_starts is not None
    assert found.word_starts[0].logical_not().nonzero().flatten().tolist() == [9]


def test_it_is_cut_to_tokens_and_items() -> None:
    catalogue = items(TOKENS, TYPES)
    assert catalogue.sequences(HISTORY, 6, 50).ids.tolist() == [[0, 10, 17, 18, 11, 12]]
    assert catalogue.sequences(HISTORY, 64, 1).ids.tolist() == [[0, 10, 17, 18, 11, 12, 16]]
    one = items([[10, 17, 18], [10, 13, 14]], [[1, 2, 2], [1, 2, 2]])
    assert one.sequences(torch.tensor([[1, 2]]), 64, 50).ids.tolist() == [
        [0, 10, 17, 18, 10, 13, 14]
    ]


def test_rows_are_filled_up_and_an_empty_history_is_cls_alone() -> None:
    rows = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 2, 0]])
    found = items(TOKENS, TYPES).sequences(rows, 64, 50)
    assert found.lengths.tolist() == [1, 8, 7]
    assert found.ids.tolist() == [[0, *7 * [1]], [0, *TOKENS[0]], [0, *TOKENS[1], 1]]
    assert found.types[0].tolist() == [0, *7 * [3]]
    assert found.item_positions[1].tolist() == [0, *7 * [1]]
    nothing = items(TOKENS, TYPES).sequences(torch.zeros(2, 0, dtype=torch.int64), 64, 50)
    assert nothing.ids.tolist() == [[0], [0]]


def test_other_items_may_be_put_behind() -> None:
    joined = items(TOKENS[:1], TYPES[:1]).joined(items(TOKENS[1:], TYPES[1:]))
    whole = items(TOKENS, TYPES)
    assert joined.n_items == 2
    assert torch.equal(joined.offsets, whole.offsets) and torch.equal(joined.tokens, whole.tokens)
