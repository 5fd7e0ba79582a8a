"""SASRec: causal, blind to neighbours in the row, equal to a plain one-sequence-a-row computation."""

from __future__ import annotations

import pytest
import torch

from recsys.config import SASRecConfig, TrainingConfig
from recsys.data.batches import batch_from_lists
from recsys.errors import DataError
from recsys.models import layers
from recsys.models.layers import causal_segment_mask
from recsys.models.order import newest_places
from recsys.models.sasrec import SASRec

BLOCKS = pytest.mark.parametrize("block", ["prenorm", "ligr"])


def model(**changes: object) -> SASRec:
    torch.manual_seed(0)
    settings = {"width": 8, "heads": 2, "max_length": 6, "dropout": 0.0} | changes
    config = SASRecConfig(**settings)  # type: ignore[arg-type]
    return SASRec(config, 20).double().eval()


@BLOCKS
def test_sharing_a_row_changes_nothing(block: str) -> None:
    net = model(block=block)
    histories = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11], [], [12, 13]]
    together = net.encode_sequences(batch_from_lists(histories, None, 6))
    for i, history in enumerate(histories):
        alone = net.encode_sequences(batch_from_lists([history], None, 6))
        torch.testing.assert_close(together[i], alone[0], rtol=0, atol=1e-12)


@BLOCKS
def test_the_future_does_not_change_the_past(block: str) -> None:
    net = model(block=block)
    first = net.hidden(batch_from_lists([[1, 2, 3, 4]], None, 6))[0, :3]
    second = net.hidden(batch_from_lists([[1, 2, 3, 9]], None, 6))[0, :3]
    torch.testing.assert_close(first, second, rtol=0, atol=1e-12)


def test_the_past_does_change_the_present() -> None:
    net = model()
    first = net.encode_sequences(batch_from_lists([[1, 2, 3]], None, 6))
    second = net.encode_sequences(batch_from_lists([[9, 2, 3]], None, 6))
    assert (first - second).abs().max() > 1e-6


def test_attention_by_hand() -> None:
    """One block, one head, against the formula written out."""
    net = model(block="prenorm", blocks=1, heads=1, positions="none")
    items = torch.tensor([3, 5, 7])
    x = net.item_table(items)
    block = net.blocks[0]
    h = block.norm1(x)
    q, k, v = (h @ block.attention.qkv.weight.T).chunk(3, dim=-1)
    logits = (q @ k.T / 8**0.5).masked_fill(~torch.ones(3, 3).tril().bool(), -torch.inf)
    x = x + logits.softmax(-1) @ v @ block.attention.out.weight.T
    h = block.norm2(x)
    up = torch.nn.functional.gelu(h @ block.feed_forward.up.weight.T + block.feed_forward.up.bias)
    x = net.norm(x + up @ block.feed_forward.down.weight.T + block.feed_forward.down.bias)
    got = net.hidden(batch_from_lists([items.tolist()], None, 6))[0, :3]
    torch.testing.assert_close(got, x, rtol=0, atol=1e-12)


def test_score_is_the_inner_product_for_any_candidates() -> None:
    net = model()
    batch = batch_from_lists([[1, 2], [3]], None, 6)
    whole = net.score(batch)
    some = net.score(batch, torch.tensor([7, 1]))
    assert whole.shape == (2, 21)
    torch.testing.assert_close(some, whole[:, [7, 1]])


def test_normalised_scores_are_cosines() -> None:
    scores = model(normalise=True).score(batch_from_lists([[1, 2], [3]], None, 6))[:, 1:]
    assert scores.abs().max() <= 1 + 1e-12


def test_an_empty_history_gets_the_default_query() -> None:
    net = model()
    net.default_query.copy_(torch.arange(8.0))
    vectors = net.encode_sequences(batch_from_lists([[], [1]], None, 6))
    assert vectors[0].tolist() == list(range(8))
    assert vectors[1].tolist() != list(range(8))
    assert net.encode_sequences(batch_from_lists([[]], None, 6))[0].tolist() == list(range(8))


def set_model() -> SASRec:
    training = TrainingConfig(objective="next_basket")
    return model(baskets="set", training=training)


def test_order_inside_a_basket_does_not_matter() -> None:
    net = set_model()
    baskets = [[1, 1, 2, 2]]
    first = net.encode_sequences(batch_from_lists([[1, 2, 3, 4]], None, 6, baskets=baskets))
    second = net.encode_sequences(batch_from_lists([[2, 1, 3, 4]], None, 6, baskets=baskets))
    third = net.encode_sequences(batch_from_lists([[3, 2, 1, 4]], None, 6, baskets=baskets))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-12)
    assert (first - third).abs().max() > 1e-6


def test_a_later_basket_is_not_seen() -> None:
    net = set_model()
    first = net.hidden(batch_from_lists([[1, 2, 3]], None, 6, baskets=[[1, 1, 2]]))[0, :2]
    second = net.hidden(batch_from_lists([[1, 2, 9]], None, 6, baskets=[[1, 1, 2]]))[0, :2]
    torch.testing.assert_close(first, second, rtol=0, atol=1e-12)


def test_a_set_model_without_baskets_says_so() -> None:
    with pytest.raises(DataError, match=r"basket_minutes"):
        set_model().encode_sequences(batch_from_lists([[1]], None, 6))


def test_mask_by_hand() -> None:
    mask = causal_segment_mask(torch.tensor([[1, 1, 2, 0]]))[0, 0]
    assert mask.int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    steps = torch.tensor([[0, 0, 0, 0]])
    assert causal_segment_mask(torch.tensor([[1, 1, 2, 0]]), steps)[0, 0].int().tolist()[0] == [
        1,
        1,
        0,
        0,
    ]


@BLOCKS
def test_a_sequences_vector_is_the_hidden_one_of_its_newest_place(block: str) -> None:
    net = model(block=block, blocks=2)
    histories = [[3, 4, 5, 6, 7, 8], [], [9], [10, 11, 12]]
    batch = batch_from_lists(histories, None, 6)
    found = net.encode_sequences(batch)
    places = net.hidden(batch).flatten(0, 1)[batch.last.clamp(min=0)]
    known = batch.last >= 0
    torch.testing.assert_close(found[known], places[known])
    torch.testing.assert_close(found[1], net.default_query)


@BLOCKS
@torch.no_grad()
def test_tiles_of_places_give_what_all_at_once_give(
    block: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = model(block=block)
    batch = batch_from_lists([[1, 2, 3, 4, 5], [6, 7], [8, 9, 1, 2], [3]], None, 6)
    monkeypatch.setattr(layers, "TILE", 3)
    assert layers._may_reuse_memory(net.default_query)
    tiled = net.hidden(batch)
    monkeypatch.setattr(layers, "_may_reuse_memory", lambda x: False)
    torch.testing.assert_close(tiled, net.hidden(batch), rtol=0, atol=1e-12)


def test_the_newest_places_are_found_in_packed_rows() -> None:
    batch = batch_from_lists([[1], [], [2, 3, 4, 5], [6, 7], [8, 9, 1, 2, 3, 4]], None, 6)
    row, slot, places = newest_places(batch)
    flat = row * batch.items.shape[1] + places[row, slot]
    live = batch.last >= 0
    assert flat[live].tolist() == batch.last[live].tolist()
    assert places.shape == (len(batch.items), int(batch.segments.max()))
