"""Data: how much there is and when, how users and items are distributed, how the test differs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import polars as pl

from recsys.evaluation.reports import PROFILE, Report, read_json
from serving.dashboard import figures
from serving.dashboard.scope import Setting, choose
from serving.dashboard.show import chart, missing, table
from serving.dashboard.sources import part

Profile = Mapping[str, Any]
PAINT: Final = {
    "training": figures.PALETTE[0],
    "validation": figures.PALETTE[1],
    "test": figures.PALETTE[2],
    "unused": "#9aa7b6",
}
SECONDS: Final = ((1, "1 s"), (60, "1 min"), (3600, "1 h"), (86_400, "1 d"), (604_800, "1 w"))
LONG: Final = ((2_592_000, "30 d"), (31_557_600, "1 y"))


def draw(setting: Setting) -> None:
    """Draw the page."""
    import streamlit as st

    st.title("Data")
    scope = choose(setting)
    if scope is None:
        return
    report = scope.library.of_dataset(scope.dataset)[0]
    fold = scope.dataset.removeprefix(f"{report.experiment}/")
    fold = "main" if fold == scope.dataset else fold
    if source := report.about.get("data"):
        st.caption(f"{source} · split: {report.about.get('split', '')}")
    profiles = part(report, PROFILE)
    found = profiles.get(fold) if isinstance(profiles, dict) else None
    if isinstance(found, dict):
        _profile(found)
    else:
        missing(
            "The data were not profiled",
            f"`recsys evaluate` writes {PROFILE}; this report is older or the file is damaged.",
        )
    _leakage(report, fold)


def _profile(found: Profile) -> None:
    import streamlit as st

    _volume(found)
    left, right = st.columns(2)
    with left:
        _lengths(found)
        _regularity(found)
    with right:
        _gaps(found)
        _frequency(found)
    st.subheader("Drift between training and held-out events")
    rows = pl.DataFrame(found["drift"], infer_schema_length=None)
    table("Drift", rows)
    st.caption(
        "item_divergence: Jensen-Shannon divergence of the items' shares against those of training, in "
        "bits: 0 equal, 1 nothing in common. Shares are of users and of events."
    )


def _volume(found: Profile) -> None:
    import streamlit as st

    volume = found.get("volume")
    if not volume or not volume["edges"]:
        st.caption(f"No volume over time: the data set's clock is {found.get('clock')}.")
        return
    edges = volume["edges"]
    starts = [datetime.fromtimestamp(edge, UTC).strftime("%Y-%m-%d %H:%M") for edge in edges[:-1]]
    series = {name: counts for name, counts in volume["counts"].items() if any(counts)}
    frame = pl.DataFrame({"from": starts, **series})
    figure = figures.columns(
        series, starts, title_x="", title_y="events", paint=PAINT, axes={"type": "date"}
    )
    figure["layout"]["bargap"] = 0.02
    chart("Events over time", figure, frame, alt="Events in each period by part of the split")


def histogram_frame(found: Mapping[str, Any], series: Mapping[str, list[int]]) -> pl.DataFrame:
    """Return a histogram as rows: `from`, `to`, a column for each series."""
    edges = found["edges"]
    return pl.DataFrame({"from": edges[:-1], "to": edges[1:], **series})


def _histogram(
    name: str, frame: pl.DataFrame, what: str, axis: str, words: str = "", *, timed: bool = False
) -> None:
    """Draw bins that are even in the logarithm."""
    middles = (frame["from"] * frame["to"]).sqrt()
    if not len(frame):
        return
    places = [float(x) for x in middles.log(10)]
    step = places[1] - places[0] if len(places) > 1 else 1.0
    series = {c: frame[c].to_list() for c in frame.columns if c not in ("from", "to")}
    figure = figures.columns(
        series,
        places,
        title_x=axis,
        title_y=what,
        paint=PAINT,
        stacked=False,
        widths=None if len(series) > 1 else [step * 0.94] * len(places),
        axes=_log_ticks(frame, timed=timed),
        text=[f"{a:.4g} to {b:.4g}" for a, b in frame.select("from", "to").rows()],
    )
    chart(name, figure, frame, alt=f"{name}: {what} over {axis}", words=words)


def _log_ticks(frame: pl.DataFrame, *, timed: bool) -> dict[str, Any]:
    import math

    low, high = float(frame["from"].min()), float(frame["to"].max())  # type: ignore[arg-type]
    if timed:
        marks = [(float(value), text) for value, text in (*SECONDS, *LONG) if low <= value <= high]
    else:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        factors = (1, 2, 5) if len(powers) < 4 else (1,)
        marks = [(f * 10.0**p, f"{f * 10.0**p:,g}") for p in powers for f in factors]
    return {"tickvals": [math.log10(v) for v, _ in marks], "ticktext": [t for _, t in marks]}


def _lengths(found: Profile) -> None:
    lengths = found.get("lengths")
    if lengths and lengths["edges"]:
        frame = histogram_frame(lengths, {"users": lengths["counts"]})
        _histogram("Length of histories", frame, "users", "training events of a user or list")


def _gaps(found: Profile) -> None:
    gaps = found.get("gaps")
    if not gaps or not gaps["edges"]:
        missing("No gaps between events", "The data set has no times, or events never lie apart.")
        return
    frame = histogram_frame(gaps, gaps["counts"])
    shares = frame.with_columns(
        pl.col(name) / max(1, sum(counts) + gaps["zero"][name])
        for name, counts in gaps["counts"].items()
    )
    zero = ", ".join(f"{name} {count:,}" for name, count in gaps["zero"].items())
    words = f"share of each part; not shown, gap 0: {zero}"
    _histogram(
        "Gaps between events", shares, "share", "time since the event before", words, timed=True
    )


def _regularity(found: Profile) -> None:
    regular = found.get("regularity")
    if not regular:
        return
    words = (
        f"left: even; {regular['zero']:,} wholly even, {regular['undefined']:,} with fewer than three "
        "training events"
    )
    if regular["edges"]:
        frame = histogram_frame(regular, {"users": regular["counts"]})
        axis = "standard deviation of a user's training gaps"
        _histogram("Uniformity of users", frame, "users", axis, words, timed=True)
    else:
        missing("Uniformity of users", f"No user's gaps differ ({words}).")


def _frequency(found: Profile) -> None:
    tail = found.get("frequency")
    if not tail or not tail["rank"]:
        return
    frame = pl.DataFrame({"x": tail["rank"], "y": tail["events"], "series": "items"})
    figure = figures.curves(frame, "rank of the item", "training events", {})
    figure["data"][0]["mode"] = "lines"
    for axis in ("xaxis", "yaxis"):
        figure["layout"][axis] |= {"type": "log", "dtick": 1}
    figure["layout"]["showlegend"] = False
    shares = ", ".join(f"top {name}: {share:.0%}" for name, share in tail["top_shares"].items())
    words = f"share of the training events, {shares}; {tail['cold']:,} items have none"
    chart("Frequency tail", figure, frame, alt="Training events by rank of the item", words=words)


def _leakage(report: Report, fold: str) -> None:
    import streamlit as st

    st.subheader("Leakage")
    path = report.workspace / "prepared" / "splits" / fold / "leakage.json"
    found = read_json(path)
    if not isinstance(found, dict):
        missing("No leakage table", f"{path} is missing or damaged; `recsys prepare` writes it.")
        return
    rows = [{"what": name, "value": str(value)} for name, value in leaves(found)]
    table("What the held-out part shares with training", pl.DataFrame(rows))


def leaves(found: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Return the values of nested mappings with their names in words, in order."""
    rows: list[tuple[str, Any]] = []
    for key, value in found.items():
        name = f"{before}{key}".replace("_", " ")
        rows += leaves(value, f"{name}: ") if isinstance(value, Mapping) else [(name, value)]
    return rows
