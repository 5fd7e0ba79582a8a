"""Item vectors in the plane, for the eye: the two widest directions, and a map of neighbourhoods.

The map is a small neighbour embedding in the manner of UMAP (arXiv 1802.03426): items that are close by
cosine attract each other, all others repel. It starts from the principal directions, so equal vectors
and seed give the same map. Distances between far groups mean little, as in every such map.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

MOST: Final = 20_000
"""Items that move freely; the others are placed amid their neighbours among these."""
NEIGHBOURS: Final = 12
STEPS: Final = 200
REPELLED: Final = 5
PUSH: Final = 6.0
"""How much a repelled pair counts: there are few of them beside the many that a place has."""
BLOCK: Final = 2048


def principal(vectors: Tensor, fitted_to: int | None = None) -> tuple[Tensor, float]:
    """Return the vectors along their two widest directions, float32 [N, 2], and the variance's share.

    The directions are those of the first `fitted_to` vectors, or of all. The sign of each is that its
    largest weight is positive.
    """
    known = vectors[:fitted_to]
    centred = vectors - known.mean(0)  # [N, D]
    spread = centred[:fitted_to]
    values, directions = torch.linalg.eigh(spread.T @ spread)  # ascending
    chosen = directions[:, -2:].flip(1)  # [D, 2]
    largest = chosen.gather(0, chosen.abs().argmax(0, keepdim=True))
    places = centred @ (chosen * largest.sign())  # [N, 2]
    if places.shape[1] < 2:
        places = torch.nn.functional.pad(places, (0, 2 - places.shape[1]))
    total = float(values.clamp(min=0).sum())
    return places, float(values[-2:].clamp(min=0).sum()) / total if total else 0.0


def neighbourhood_map(vectors: Tensor, weight: Tensor, seed: int) -> Tensor:
    """Return a place for every item, float32 [N, 2], neighbours by cosine near each other.

    Args:
        vectors: float32 [N, D].
        weight: [N]; of more than `MOST` items, those of greatest weight are laid out first.
        seed: of the repelled pairs.
    """
    # Without their mean, which all vectors share and which carries little but the frequency.
    unit = torch.nn.functional.normalize(vectors - vectors.mean(0))
    order = torch.argsort(weight, descending=True, stable=True)
    first = order[:MOST]
    places = torch.zeros(len(vectors), 2)
    if len(first) < 3:
        places[:, 0] = torch.arange(len(vectors))
        return places
    laid = _lay_out(unit[first], seed)
    places[first] = laid
    rest = order[MOST:]
    if len(rest):
        near, likeness = nearest(unit[rest], unit[first], NEIGHBOURS)
        places[rest] = amid(laid, near, likeness)
    return places


def amid(places: Tensor, near: Tensor, likeness: Tensor) -> Tensor:
    """Return the mean of the neighbours' places [R, 2], those most alike counting most."""
    share = torch.softmax(8.0 * likeness, dim=1)  # [R, n]
    return (places[near] * share[:, :, None]).sum(1)


def nearest(queries: Tensor, table: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return the rows of `table` most alike by inner product, int64 and float32 [Q, n], in blocks."""
    found = [(block @ table.T).topk(min(n, len(table))) for block in torch.split(queries, BLOCK)]
    return torch.cat([f.indices for f in found]), torch.cat([f.values for f in found])


def _lay_out(unit: Tensor, seed: int) -> Tensor:
    near, _ = nearest(unit, unit, NEIGHBOURS + 1)
    own = torch.arange(len(unit))[:, None]
    start = own.expand_as(near)[near != own]
    end = near[near != own]
    places, _ = principal(unit)
    places = 10.0 * places / places.std(0).clamp(min=1e-6)
    generator = torch.Generator().manual_seed(seed)
    for step in range(STEPS):
        rate = 1.0 - step / STEPS
        moved = _attraction(places, start, end)
        moved += PUSH * _repulsion(places, generator)
        places = places + rate * moved.clamp(-4.0, 4.0)
    return places


def _attraction(places: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Return the pull of neighbours on each other; with q = 1 / (1 + d^2) it is d (-2 q)."""
    gap = places[start] - places[end]  # [E, 2]
    pull = gap * (2.0 / (1.0 + gap.square().sum(1, keepdim=True))) / NEIGHBOURS
    moved = torch.zeros_like(places)
    moved.index_add_(0, start, -pull)
    moved.index_add_(0, end, pull)
    return moved


def _repulsion(places: Tensor, generator: torch.Generator) -> Tensor:
    """Return the push of a few random items on each: d 2 q / (0.1 + d^2)."""
    n = len(places)
    others = torch.randint(n, (n, REPELLED), generator=generator)
    gap = places[:, None] - places[others]  # [N, R, 2]
    square = gap.square().sum(2, keepdim=True)
    return (gap * (2.0 / ((0.1 + square) * (1.0 + square)))).sum(1)
