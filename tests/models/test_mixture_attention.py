"""Mixture attention against the formula written out, and free of other samples and of the future."""

from __future__ import annotations

import torch

from recsys.models.layers import causal_segment_mask
from recsys.models.mixture_attention import MixtureAttention, MixtureEncoder

WIDTH, HEADS = 4, 2


def encoder(**changes: object) -> MixtureEncoder:
    torch.manual_seed(0)
    settings = {"blocks": 2, "heads": HEADS, "ffn": 1.0, "noise": 0.1, "dropout": 0.0, "passes": 2}
    return MixtureEncoder(WIDTH, **(settings | changes)).double().eval()  # type: ignore[arg-type]


def inputs(rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    seq = torch.randn(rows, length, 2 * WIDTH, dtype=torch.float64)
    return seq, torch.randn(rows, length, WIDTH, dtype=torch.float64)


def test_attention_by_hand() -> None:
    torch.manual_seed(0)
    net = MixtureAttention(WIDTH, HEADS, 0.1, 2).double().eval()
    seq, context = inputs(1, 3)
    normed = torch.nn.functional.layer_norm(seq, (2 * WIDTH,))
    mask = causal_segment_mask(torch.ones(1, 3, dtype=torch.int64))
    closed = torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, -torch.inf)
    got = net(seq, normed, context, closed, 1)[0]
    x, n, c = seq[0], normed[0], context[0]
    items = net.item_query(n) @ net.item_key(x).T
    times = net.time_query(net.time_norms[1](c)) @ net.time_key(c).T
    up, down = net.mix[1].up, net.mix[1].down
    values = net.value(x).view(3, HEADS, WIDTH)
    for place in range(3):
        weights = torch.empty(place + 1, HEADS, dtype=torch.float64)
        for key in range(place + 1):
            pair = torch.stack([items[place, key], times[place, key]])
            inner = torch.relu(up.weight @ pair + up.bias)
            weights[key] = down.weight @ inner + down.bias
        share = (weights / WIDTH**0.5).softmax(0)
        expected = [share[:, h] @ values[: place + 1, h] for h in range(HEADS)]
        torch.testing.assert_close(got[place], torch.cat(expected), rtol=0, atol=1e-12)


def test_one_sample_does_not_change_another() -> None:
    net = encoder()
    seq, context = inputs(2, 4)
    segments = torch.ones(2, 4, dtype=torch.int64)
    mask, real = causal_segment_mask(segments), torch.ones(2, 4, 1, dtype=torch.float64)
    before = net(seq, context, mask, real, 0)
    again = net(seq, context, mask, real, 0)
    assert torch.equal(before, again)  # no noise but in training
    changed, other = seq.clone(), context.clone()
    changed[1], other[1] = 3.0, -1.0
    after = net(changed, other, mask, real, 0)
    torch.testing.assert_close(after[0], before[0], rtol=0, atol=1e-12)
    assert (after[1] - before[1]).abs().max() > 1e-3
    alone = net(seq[:1], context[:1], mask[:1], real[:1], 0)  # a batch of another size
    torch.testing.assert_close(alone[0], before[0], rtol=0, atol=1e-12)


def test_the_future_and_the_neighbours_in_the_row_are_not_seen() -> None:
    net = encoder()
    seq, context = inputs(1, 5)
    segments = torch.tensor([[1, 1, 1, 2, 2]])
    mask, real = causal_segment_mask(segments), torch.ones(1, 5, 1, dtype=torch.float64)
    before = net(seq, context, mask, real, 0)
    changed, other = seq.clone(), context.clone()
    changed[0, 2], other[0, 2] = 5.0, 5.0
    after = net(changed, other, mask, real, 0)
    for place in (0, 1, 3, 4):
        torch.testing.assert_close(after[0, place], before[0, place], rtol=0, atol=1e-12)


def test_noise_is_drawn_in_training_only() -> None:
    net = encoder()
    seq, context = inputs(1, 3)
    mask = causal_segment_mask(torch.ones(1, 3, dtype=torch.int64))
    real = torch.ones(1, 3, 1, dtype=torch.float64)
    quiet = net(seq, context, mask, real, 0)
    assert not torch.equal(net.train()(seq, context, mask, real, 0), quiet)
    silent = encoder(noise=0.0)
    assert torch.equal(
        silent.train()(seq, context, mask, real, 0), silent.eval()(seq, context, mask, real, 0)
    )


def test_passes_share_all_but_norms_and_mixing() -> None:
    names = {name for name, _ in encoder().named_parameters()}
    once = {name for name, _ in encoder(passes=1).named_parameters()}
    own = {name for name in names - once}
    assert own and all("norms" in name or ".mix." in name for name in own)
