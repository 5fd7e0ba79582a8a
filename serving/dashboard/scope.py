"""What a page is about: the data set, split, metric and cut-off that its reader chose."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from recsys.evaluation.metrics import ACCURACY, Key
from recsys.evaluation.names import label, nearest_k
from recsys.schema import SplitName
from serving.dashboard.address import pick
from serving.dashboard.sources import Library, ks_of, measured, open_library

SPLITS: Final[tuple[SplitName, ...]] = ("test", "validation")


@dataclass(frozen=True)
class Setting:
    """What the dashboard was started with.

    Attributes:
        output: the directory of the experiments.
        tracking: MLflow's address.
    """

    output: Path
    tracking: str


@dataclass(frozen=True)
class Scope:
    """What was chosen.

    Attributes:
        library: all reports.
        rows: every metric row.
        dataset: the data set.
        split: test or validation.
        metric: its name.
        k: its cut-off, None for a metric without.
    """

    library: Library
    rows: pl.DataFrame
    dataset: str
    split: SplitName
    metric: str
    k: int | None

    @property
    def key(self) -> Key:
        """The metric with its cut-off."""
        return self.metric, self.k

    @property
    def label(self) -> str:
        """The metric with its cut-off, in words."""
        return label(self.metric, self.k)


def choose(setting: Setting, *, accuracy: bool = False, dataset: bool = True) -> Scope | None:
    """Show the filters in the sidebar and return what they say; None when nothing was measured.

    Args:
        setting: where to look.
        accuracy: only metrics that every user has a value of.
        dataset: offer the choice of a data set.
    """
    import streamlit as st

    from serving.dashboard.show import missing

    library = open_library(setting.output)
    rows = measured(library)
    if not len(rows):
        missing(
            f"No report below {library.output}",
            "`make demo` runs the first experiment; `recsys dashboard --output DIRECTORY` looks elsewhere.",
        )
        return None
    names = rows["dataset"].unique(maintain_order=True).to_list()
    with st.sidebar:
        name = pick("Data set", "dataset", names) if dataset else names[0]
        mine = rows.filter(pl.col("dataset") == name) if dataset else rows
        known = mine["split"].unique().to_list()
        split = pick("Split", "split", [s for s in SPLITS if s in known] or known, flat=True)
        mine = mine.filter(pl.col("split") == split)
        metric, k = _metric(mine, accuracy)
    chosen: SplitName = "validation" if split == "validation" else "test"
    return Scope(library, rows, name, chosen, metric, k)


def _metric(rows: pl.DataFrame, accuracy: bool) -> Key:
    metrics = rows["metric"].unique(maintain_order=True).to_list()
    offered = [m for m in ACCURACY if m in metrics]
    offered += [] if accuracy else [m for m in metrics if m not in ACCURACY]
    metric = pick("Metric", "metric", offered, show=label)
    cuts = rows.filter(pl.col("metric") == metric)["k"]
    ks = ks_of(cuts.to_list())
    if not ks:
        return metric, None
    options = [str(k) for k in ks] + (["all"] if cuts.null_count() else [])
    default = str(nearest_k(ks))
    k = pick("k", "k", options, default, flat=True)
    return metric, None if k == "all" else int(k)


def tell_problems(library: Library) -> None:
    """Name what could not be read, in a part that opens on a click."""
    import streamlit as st

    if not library.problems:
        return
    n = len(library.problems)
    title = f"{n} {'directory' if n == 1 else 'directories'} cannot be shown"
    with st.expander(title, icon=":material/warning:"):
        for problem in library.problems:
            st.markdown(f"**{problem.where}**  \n{problem.why}")
