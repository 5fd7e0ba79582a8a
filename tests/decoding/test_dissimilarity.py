"""Penalties against their definitions, computed candidate by candidate."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from recsys.decoding import ItemFacts, SearchSettings
from recsys.decoding.dissimilarity import penalty
from recsys.decoding.shortlist import Shortlist

N_ITEMS, REQUESTS, OWN, EARLIER, BEFORE, CANDIDATES = 9, 3, 2, 4, 3, 6
LABELS = np.array([-1, 0, 0, 1, 1, 2, 2, -1, -1, 0])
GENERATOR = torch.Generator().manual_seed(0)
VECTORS = torch.randn(N_ITEMS + 1, 5, generator=GENERATOR)


def case(seed: int) -> tuple[Shortlist, np.ndarray, np.ndarray]:
    """Candidates in any order, few items so that lists meet often, one earlier list ended."""
    rng = np.random.default_rng(seed)
    rows = [rng.permutation(N_ITEMS)[:CANDIDATES] + 1 for _ in range(REQUESTS * OWN)]
    items = torch.from_numpy(np.array(rows))
    shortlist = Shortlist.of_found(items, torch.randn(items.shape), N_ITEMS, complete=False)
    own = rng.integers(1, 4, size=(REQUESTS, OWN, BEFORE))
    earlier = rng.integers(1, 5, size=(REQUESTS, EARLIER, BEFORE + 1))
    earlier[0, 1, -1] = 0
    return shortlist, own, earlier


def by_hand(kind: str, scope: str, item: int, own: list[int], earlier: list[list[int]]) -> float:
    scoped = [i for e in earlier for i in (e[-1:] if scope == "step" else e) if i]
    match kind:
        case "hamming":
            return scoped.count(item)
        case "presence":
            return float(item in scoped)
        case "cumulative":
            live = [e for e in earlier if e[-1]]
            differ = [sum(a != b for a, b in zip([*own, item], e, strict=True)) for e in live]
            return sum(math.exp(-d / 2.0) for d in differ)
        case "ngram":
            gram = [*own, item][-2:]
            return sum(e[i : i + 2] == gram for e in earlier for i in range(len(e) - 1))
        case "vector":
            cosine = torch.nn.functional.cosine_similarity
            return sum(max(0.0, float(cosine(VECTORS[item], VECTORS[i], dim=0))) for i in scoped)
        case "category":
            return sum(LABELS[i] == LABELS[item] for i in scoped) if LABELS[item] >= 0 else 0
    raise AssertionError(kind)


@pytest.mark.parametrize("scope", ["step", "list"])
@pytest.mark.parametrize(
    "kind", ["hamming", "presence", "cumulative", "ngram", "vector", "category"]
)
def test_every_kind_is_its_definition(kind: Any, scope: Any) -> None:
    settings = SearchSettings(dissimilarity=kind, scope=scope, decay=2.0, ngram=2)
    for seed in range(4):
        shortlist, own, earlier = case(seed)
        found = penalty(settings, shortlist, own, earlier, ItemFacts(VECTORS, LABELS))
        ids = shortlist.ids.reshape(REQUESTS, OWN, CANDIDATES)
        for n in range(REQUESTS):
            for b in range(OWN):
                expected = [
                    by_hand(kind, scope, item, own[n, b].tolist(), earlier[n].tolist())
                    for item in ids[n, b].tolist()
                ]
                assert found[n, b] == pytest.approx(expected, abs=1e-5)
        assert found.any() and (found >= 0).all()


def test_no_n_gram_ends_before_there_are_n_items() -> None:
    shortlist, own, earlier = case(0)
    settings = SearchSettings(dissimilarity="ngram", ngram=3)
    short = penalty(settings, shortlist, own[:, :, :1], earlier[:, :, :2], ItemFacts())
    assert not short.any()


def test_a_shift_by_one_place_defeats_the_scope_of_a_step() -> None:
    shortlist = Shortlist.of_found(torch.tensor([[2, 3]]), torch.zeros(1, 2), N_ITEMS, True)
    earlier = np.array([[[2, 3]]])  # the other list had 2 one place before
    own = np.array([[[1]]])
    for scope, expected in (("step", [0, 1]), ("list", [1, 1])):
        settings = SearchSettings(dissimilarity="hamming", scope=scope)  # type: ignore[arg-type]
        assert penalty(settings, shortlist, own, earlier, ItemFacts())[0, 0].tolist() == expected


def test_candidates_are_found_by_item_and_twice_found_stay_once() -> None:
    items = torch.tensor([[5, 2, -1, 5], [9, 1, 4, 3]])
    scores = torch.tensor([[1.0, 2.0, -torch.inf, 1.0], [4.0, 3.0, 2.0, 1.0]])
    shortlist = Shortlist.of_found(items, scores, N_ITEMS, complete=False)
    assert shortlist.known[0].tolist() == [2, 5, 0, 0]
    assert shortlist.known[1].tolist() == [1, 3, 4, 9]
    assert np.isfinite(shortlist.scores).sum(1).tolist() == [2, 4]
    assert shortlist.find(np.array([[5, 9, -1], [5, 9, 3]])).tolist() == [[1, -1, -1], [-1, 3, 1]]
