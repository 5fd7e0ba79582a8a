from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from recsys.config import IndexConfig
from recsys.retrieval.index import build_index
from recsys.retrieval.layout import neighbourhood_map, principal
from recsys.retrieval.tradeoff import measure_kinds, memory_bytes


def clusters(n: int, width: int = 8, groups: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `(vectors [n, width] around some centres, the centre of each)`."""
    generator = torch.Generator().manual_seed(0)
    centres = 4 * torch.randn(groups, width, generator=generator)
    which = torch.arange(n) % groups
    return centres[which] + 0.3 * torch.randn(n, width, generator=generator), which


@pytest.mark.skipif(find_spec("faiss") is None, reason="needs the extra 'ann'")
def test_every_kind_is_measured_and_the_chosen_one_is_marked() -> None:
    vectors = torch.cat([torch.zeros(1, 8), clusters(3000)[0]])
    chosen = build_index(IndexConfig(), vectors)
    rows = measure_kinds(chosen, vectors[1:101], 10)
    assert {row["kind"] for row in rows} == {"exact", "flat", "hnsw", "ivf_flat"}
    assert [row["kind"] for row in rows if row["chosen"]] == ["exact"]
    by_kind = {row["kind"]: row for row in rows}
    assert by_kind["exact"]["recall"] == by_kind["flat"]["recall"] == 1.0
    probes = [row["recall"] for row in rows if row["kind"] == "ivf_flat"]
    assert probes == sorted(probes)  # the wider the search, the more it finds
    assert all(0 < row["p50_ms"] <= row["p95_ms"] for row in rows)
    assert by_kind["exact"]["memory_mb"] == pytest.approx(3001 * 8 * 4 / 1e6)
    assert by_kind["hnsw"]["memory_mb"] > by_kind["flat"]["memory_mb"]
    assert chosen.recall is None  # measuring others leaves the index as it was
    assert memory_bytes(chosen) == 3001 * 8 * 4


@pytest.mark.skipif(find_spec("faiss") is None, reason="needs the extra 'ann'")
def test_a_chosen_scan_of_codes_is_measured_by_how_much_it_scores_exactly() -> None:
    vectors = torch.cat([torch.zeros(1, 8), clusters(3000)[0]])
    rows = measure_kinds(build_index(IndexConfig(kind="pq_scan"), vectors), vectors[1:101], 30)
    scans = [row for row in rows if row["kind"] == "pq_scan"]
    assert [row["setting"] for row in scans] == [f"scan_rerank {n}" for n in (16, 8, 64)]
    assert [row["chosen"] for row in scans] == [True, False, False]
    chosen, few, many = (row["recall"] for row in scans)
    assert 0.5 < few <= chosen <= many


def test_the_principal_directions_are_those_of_the_variance() -> None:
    generator = torch.Generator().manual_seed(1)
    plane = torch.randn(500, 2, generator=generator) * torch.tensor([5.0, 2.0])
    places, share = principal(torch.nn.functional.pad(plane, (0, 3)))
    assert share == pytest.approx(1.0)
    expected = torch.linalg.svdvals(plane - plane.mean(0))
    assert torch.allclose(places.norm(dim=0), expected, rtol=1e-4)


def test_neighbours_lie_together_on_the_map() -> None:
    vectors, which = clusters(400)
    places = neighbourhood_map(vectors, torch.ones(400), seed=0)
    centres = torch.stack([places[which == g].mean(0) for g in range(4)])
    nearest = torch.cdist(places, centres).argmin(1)
    assert (nearest == which).float().mean() > 0.95
    assert torch.equal(places, neighbourhood_map(vectors, torch.ones(400), seed=0))


def test_items_beyond_the_first_are_placed_amid_their_neighbours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("recsys.retrieval.layout.MOST", 200)
    vectors, which = clusters(400)
    weight = torch.cat([torch.ones(200), torch.zeros(200)])
    places = neighbourhood_map(vectors, weight, seed=0)
    centres = torch.stack([places[:200][which[:200] == g].mean(0) for g in range(4)])
    assert (torch.cdist(places[200:], centres).argmin(1) == which[200:]).float().mean() > 0.9


@pytest.mark.parametrize("n", [1, 2])
def test_hardly_any_items_have_places_too(n: int) -> None:
    assert neighbourhood_map(torch.ones(n, 4), torch.ones(n), seed=0).shape == (n, 2)
