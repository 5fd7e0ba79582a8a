"""The search finds what the group beam search of `transformers` 4.56.2 found (see `golden/`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from table_decoder import PLAIN

from recsys.config import IndexConfig, SASRecConfig
from recsys.data.batches import batch_from_lists
from recsys.decoding import Catalogue, SearchSettings, search
from recsys.models.sasrec import SASRec
from recsys.retrieval.index import build_index

GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parent / "golden" / "golden.json").read_text(encoding="utf-8")
)


@pytest.fixture(scope="module")
def model() -> SASRec:
    built = SASRec(SASRecConfig(**GOLDEN["config"]), GOLDEN["n_items"]).eval()
    built.load_state_dict({n: torch.tensor(values) for n, values in GOLDEN["weights"].items()})
    return built


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("number", range(len(GOLDEN["cases"])))
@torch.no_grad()
def test_equals_the_search_of_transformers(model: SASRec, number: int, indexed: bool) -> None:
    case = dict(GOLDEN["cases"][number])
    items, scores, steps = case.pop("items"), case.pop("scores"), case.pop("steps")
    index = build_index(IndexConfig(), model.encode_items()) if indexed else None
    batch = batch_from_lists(GOLDEN["histories"], None, model.max_length)
    settings = SearchSettings(**{**PLAIN, "candidates": 12, **case})
    found = search(Catalogue(model, index), batch, steps, settings)
    for row in range(len(GOLDEN["histories"])):
        # They sort the lists of all groups by score; ours stand side by side.
        ours = [
            (list_, score)
            for list_, score in zip(found.items[row].tolist(), found.score[row], strict=True)
            if list_[0]
        ]
        ours.sort(key=lambda pair: -pair[1])
        theirs = [
            (ended(list_, case.get("end"), steps), score)
            for list_, score in zip(items[row], scores[row], strict=True)
        ]
        assert sorted(one for one, _ in ours) == sorted(one for one, _ in theirs)
        assert [score for _, score in ours] == pytest.approx([s for _, s in theirs], abs=1e-5)


def ended(items: list[int], end: int | None, steps: int) -> list[int]:
    """Cut what follows the end token (with a PAD of 0 they fill up with more of it), pad with 0."""
    kept = items[: items.index(end) + 1] if end in items else items
    return kept + [0] * (steps - len(kept))
