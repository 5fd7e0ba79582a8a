"""What the training of every learned model took, as the report and the summary show it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def training_facts(manifests: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return a row for every learned model, heading -> text.

    Training and validation are the seconds of all epochs, padding the share of a batch's places that
    hold no event, the best epoch, counted from one, is the one whose weights were kept; a refit is not
    validated and keeps its last.

    Args:
        manifests: name to show -> manifest of the model's run; counted models have no epochs and no
            row.
    """
    rows = []
    for name, manifest in manifests.items():
        if not manifest.get("epochs"):
            continue
        found = manifest["metrics"]
        rows.append(
            {
                "model": name,
                "epochs": f"{manifest['epochs']}",
                "best epoch": f"{found['best_epoch'] + 1:.0f}" if "best_epoch" in found else "-",
                "training": f"{found['train_seconds']:,.1f} s",
                "validation": f"{found['validation_seconds']:,.1f} s",
                "padding": f"{found['padding_share']:.1%}",
            }
        )
    return rows


def shown_name(title: str) -> str:
    """Return how a run is named that a report calls `fold/model` or `fold/model/refit`.

    By its model, with the fold where there are several.
    """
    fold, name, *refit = title.split("/")
    return " ".join([name, *([] if fold == "main" else [fold]), *(["(refit)"] if refit else [])])
