"""UniRec's two studies as they are stored: all settings by hand (`UNIREC`), and as a search found them."""

from __future__ import annotations

import json
from typing import Any

from stated import RESULTS

UNIREC, AS_SEARCHED = (
    json.loads((RESULTS / "unirec" / name).read_text(encoding="utf-8"))
    for name in ("summary.json", "searched.json")
)


def of_one_seed(name: str, model: str, seed: int = 0) -> float:
    path = RESULTS / "unirec" / "cells" / name / model / f"{seed}.json"
    return float(json.loads(path.read_text("utf-8"))["metrics"]["ndcg@10"][0])


def against(whole: str, model: str) -> dict[str, dict[str, Any]]:
    """Return the stored rows of a further comparison of the searched study, by set."""
    return {row["set"]: row for row in AS_SEARCHED["against"][whole]["by_set"][model]}


def slices_of(name: str) -> dict[str, dict[str, Any]]:
    [row] = [r for r in AS_SEARCHED["by_set"]["unirec_searched"] if r["set"] == name]
    found: dict[str, dict[str, Any]] = row["slices"]
    return found
