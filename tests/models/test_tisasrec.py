"""TiSASRec: attention against the formula with a vector for every pair, and intervals by hand."""

from __future__ import annotations

import pytest
import torch

from recsys.config import TiSASRecConfig
from recsys.data.batches import batch_from_lists
from recsys.errors import DataError
from recsys.models.tisasrec import Relations, TiSASRec, personal_intervals


def model(**changes: object) -> TiSASRec:
    torch.manual_seed(0)
    settings = {"width": 8, "heads": 2, "max_length": 6, "dropout": 0.0, "intervals": 5} | changes
    return TiSASRec(TiSASRecConfig(**settings), 20).double().eval()  # type: ignore[arg-type]


def test_intervals_are_in_units_of_the_shortest_gap_until_then() -> None:
    times = torch.tensor([[100, 100, 110, 145, 150, 7, 7, 0]])
    segments = torch.tensor([[1, 1, 1, 1, 1, 2, 2, 0]])
    got = personal_intervals(times, segments, 20)[0]
    seen = [got[i, : i + 1].tolist() for i in range(5)]  # what a place's own past is to it
    assert seen == [[0], [0, 0], [1, 1, 0], [4, 4, 3, 0], [10, 10, 8, 1, 0]]
    assert got[5:7, 5:7].tolist() == [[0, 0], [0, 0]]  # no positive gap at all
    assert personal_intervals(times, segments, 4)[0].max() == 4


def test_attention_by_hand() -> None:
    net = model()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn_like(parameter))
    attention, length, heads = net.blocks[0].attention, 4, 2
    x = torch.randn(1, length, 8, dtype=torch.float64)
    intervals = torch.randint(0, 6, (1, length, length))
    mask = torch.ones(1, 1, length, length, dtype=torch.bool).tril()
    places = torch.arange(length)[None]
    keys, values = net.place_keys(places), net.place_values(places)
    tables = (net.interval_keys.weight, net.interval_values.weight)
    got = attention(x, Relations(mask, intervals, *tables, keys, values))[0]
    q, k, v = (x[0] @ attention.qkv.weight.T).chunk(3, dim=-1)
    expected = torch.zeros(length, 8, dtype=torch.float64)
    for head in range(heads):
        part = slice(4 * head, 4 * head + 4)
        for i in range(length):
            near = intervals[0, i, : i + 1]
            key = k[: i + 1] + keys[0, : i + 1] + tables[0][near]
            value = v[: i + 1] + values[0, : i + 1] + tables[1][near]
            weights = (key[:, part] @ q[i, part] / 4**0.5).softmax(0)
            expected[i, part] = weights @ value[:, part]
    torch.testing.assert_close(got, expected @ attention.out.weight.T, rtol=0, atol=1e-12)


@pytest.mark.parametrize("block", ["prenorm", "ligr"])
def test_sharing_a_row_changes_nothing(block: str) -> None:
    net = model(block=block)
    histories, times = [[1, 2, 3], [4], [5, 6]], [[0, 60, 300], [9], [50, 20000]]
    together = net.encode_sequences(batch_from_lists(histories, times, 6))
    for i, (history, when) in enumerate(zip(histories, times, strict=True)):
        alone = net.encode_sequences(batch_from_lists([history], [when], 6))
        torch.testing.assert_close(together[i], alone[0], rtol=0, atol=1e-12)


def test_times_matter_by_their_proportions_alone() -> None:
    net = model()
    first = net.encode_sequences(batch_from_lists([[1, 2, 3]], [[0, 60, 180]], 6))
    slower = net.encode_sequences(batch_from_lists([[1, 2, 3]], [[7, 607, 1807]], 6))
    other = net.encode_sequences(batch_from_lists([[1, 2, 3]], [[0, 60, 120]], 6))
    torch.testing.assert_close(first, slower, rtol=0, atol=1e-12)
    assert (first - other).abs().max() > 1e-9


def test_a_batch_without_times_is_an_error() -> None:
    with pytest.raises(DataError, match="reads times"):
        model().encode_sequences(batch_from_lists([[1]], None, 6))
