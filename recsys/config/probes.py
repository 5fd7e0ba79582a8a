"""What frozen vectors of lists are asked: `recsys probe`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from recsys.config.section import Section

Share = Annotated[float, Field(gt=0, le=1)]
Change = Literal["shuffle", "block", "reverse"]


class ProbeConfig(Section):
    """The lists that are asked about, and the questions."""

    models: list[str] | None = None
    """Which learned models; by default all."""
    lists: Literal["unseen", "all"] = "unseen"
    """Lists of which no model of the configuration has learned anything, or all of them."""
    min_songs: int = Field(10, ge=2)
    """Shorter lists are left out."""
    max_lists: int = Field(3000, ge=20)
    """A seeded sample of so many lists, if there are more."""
    folds: int = Field(5, ge=2)
    """Every list is judged by a classifier that was fitted on the other folds."""
    classifier: Literal["logistic", "mlp"] = "logistic"
    strength: float = Field(1.0, gt=0)
    """Inverse of the classifier's L2 penalty, as in scikit-learn's `C`."""
    label_file: Path | None = None
    """Parquet of `user_id` and labels of lists; by default the preset's own lists.parquet."""
    labels: list[str] = []
    """Columns of it. Numbers are cut into `bands` of equal size."""
    bands: int = Field(4, ge=2)
    min_class: int = Field(10, ge=2)
    """Lists of classes with fewer lists are left out, and counted."""
    item_label: str | None = None
    """Attribute of items: the most frequent value in a list is a label, the number of different values
    a measure of its diversity."""
    songs: int = Field(20, ge=2)
    """Song content: which one of so many songs a list holds."""
    changes: list[Change] = ["shuffle", "block", "reverse"]
    """Permutation: of all places, inside one run of places, one run turned around."""
    shares: list[Share] = [0.2, 0.4, 0.6, 0.8, 1.0]
    """Of the songs that a change moves."""
    queries: int = Field(500, ge=1)
    """Lists that retrieval is asked with, drawn by the seed."""
    bootstrap: int = Field(2000, ge=100)
    level: float = Field(0.95, gt=0, lt=1)
