from __future__ import annotations

import numpy as np
import pytest
import torch

from recsys.losses import NegativeSampler
from recsys.losses.negatives import SamplerName

COUNTS = np.array([0, 8, 1, 0, 27])


@pytest.mark.parametrize(
    ("name", "probability"),
    [
        ("uniform", [1 / 4] * 4),
        ("popularity", [2 / 7, 1 / 7, 1 / 7, 3 / 7]),  # cube roots of 8, 1, max(0, 1), 27
    ],
)
@pytest.mark.parametrize("shared", [True, False])
def test_draws_follow_the_stated_probability(
    name: SamplerName, probability: list[float], shared: bool
) -> None:
    sampler = NegativeSampler(name, COUNTS, 20_000, shared=shared, alpha=1 / 3, seed=7)
    negatives, log_count = sampler(torch.tensor([1, 2]))
    assert negatives.shape == ((20_000,) if shared else (2, 20_000))
    share = torch.bincount(negatives.flatten(), minlength=5) / negatives.numel()
    assert share.tolist() == pytest.approx([0, *probability], abs=0.015)
    expected = 20_000 * torch.tensor([0, *probability])[negatives]
    torch.testing.assert_close(log_count.exp(), expected, rtol=1e-4, atol=0)


def test_in_batch_gives_the_targets_whatever_the_count() -> None:
    sampler = NegativeSampler("in_batch", COUNTS, 5, shared=False)
    negatives, log_count = sampler(torch.tensor([4, 1, 4]))
    assert negatives.tolist() == [4, 1, 4]
    assert log_count.exp().tolist() == pytest.approx([3 * 27 / 36, 3 * 8 / 36, 3 * 27 / 36])


@pytest.mark.parametrize("name", ["uniform", "popularity"])
def test_reseed_repeats_the_stream(name: SamplerName) -> None:
    sampler = NegativeSampler(name, COUNTS, 50, shared=False, seed=1)
    targets = torch.tensor([1, 2, 3])
    torch.manual_seed(0)
    first, second = sampler(targets)[0], sampler(targets)[0]
    torch.manual_seed(99)  # the global generator has no part in it
    sampler.reseed(1)
    assert torch.equal(sampler(targets)[0], first)
    assert not torch.equal(first, second)
    sampler.reseed(2)
    assert not torch.equal(sampler(targets)[0], first)


def test_never_draws_pad_or_beyond_the_catalogue() -> None:
    counts = np.concatenate([[10**6], np.full(999, 1)])  # a count at PAD is ignored
    sampler = NegativeSampler("popularity", counts, 100_000, shared=True, alpha=1.0)
    negatives, _ = sampler(torch.tensor([1]))
    assert (int(negatives.min()), int(negatives.max())) == (1, 999)


def test_state_holds_no_tensors() -> None:
    assert not NegativeSampler("popularity", COUNTS, 5, shared=True).state_dict()
