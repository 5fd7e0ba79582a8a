"""Embedding map: items and histories in the plane, coloured, searchable; neighbours of the one clicked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import polars as pl

from recsys.errors import ArtifactError
from recsys.evaluation.inside import telling_attributes
from serving.dashboard import figures
from serving.dashboard.address import chosen, keep, pick
from serving.dashboard.indexes import indexed, open_vectors, read_map
from serving.dashboard.lookup import Lookup, open_lookup
from serving.dashboard.scope import Scope, Setting, choose
from serving.dashboard.show import chart, missing, table
from serving.dashboard.sources import choices

MOST_POINTS: Final = 10_000
MANY_POINTS: Final = 1500
GROUPS: Final = 9
NEIGHBOURS: Final = 12
HISTORIES: Final = "histories"
FREQUENCY: Final = "frequency"
OTHER: Final = "other"
LAYOUTS: Final = {"map": ("x", "y"), "principal": ("pca_x", "pca_y")}
LAYOUT_WORDS: Final = {"map": "neighbourhoods", "principal": "two widest directions"}
SELECTED: Final = "selected on the map"
"""What the chart last called selected."""


def draw(setting: Setting) -> None:
    """Draw the page."""
    import streamlit as st

    st.title("Embedding map")
    scope = choose(setting)
    if scope is None:
        return
    directories = indexed(scope.library, scope.dataset, scope.split)
    if not directories:
        missing(
            "No model of this data set has vectors",
            "Learned models have; `recsys index` stores them.",
        )
        return
    try:
        _draw_map(scope, directories)
    except ArtifactError as error:
        missing("The map cannot be named", str(error))


def _draw_map(scope: Scope, directories: dict[str, Path]) -> None:
    import streamlit as st

    columns = st.columns(4)
    with columns[0]:
        model = pick("Model", "model", list(directories))
    directory = directories[model]
    places = read_map(directory)
    if places is None:
        missing("No map was laid out", f"`recsys index` writes one; {directory} has none.")
        return
    run = next(r for r in choices(scope.library, scope.dataset, scope.split) if r.model == model)
    lookup = open_lookup(run)
    attributes = telling_attributes(lookup.items)
    with columns[1]:
        colour = pick("Colour", "colour", [*attributes, FREQUENCY])
    with columns[2]:
        layout = pick("Layout", "layout", list(LAYOUTS), show=LAYOUT_WORDS.__getitem__)
    with columns[3]:
        sought = _search()
    frame = map_frame(places, lookup, colour, LAYOUTS[layout])
    hits = find(frame, sought)
    if sought and not len(hits):
        missing(f"Nothing called {sought!r}", "The search looks for a part of a title or an id.")
    _show(model, directory, frame, hits, colour, lookup)


def _search() -> str:
    import streamlit as st

    if "find" not in st.session_state:
        st.session_state["find"] = chosen("find") or ""
    # Who searches anew wants to see what is found, not what was chosen before.
    text = st.text_input(
        "Search",
        key="find",
        placeholder="part of a title",
        on_change=keep,
        args=("point", None),
    )
    keep("find", text or None)
    return text.strip()


def map_frame(
    places: pl.DataFrame, lookup: Lookup, colour: str, axes: tuple[str, str]
) -> pl.DataFrame:
    """Return what is drawn: `x, y, kind, item, user, row, events, text, series`.

    `row` numbers the histories. Of many items the most frequent are kept. A group of the colouring
    attribute beyond the largest nine is `other`.
    """
    attributes = telling_attributes(lookup.items)
    group = attributes.get(colour, pl.lit(None, pl.String))
    named = lookup.items.select("item", "item_id", "text", series=group)
    items = places.filter(pl.col("kind") == "item").join(named, on="item", how="left")
    items = items.sort("events", descending=True, maintain_order=True).head(MOST_POINTS)
    known = items["series"].drop_nulls().value_counts(sort=True)["series"].head(GROUPS)
    known_groups = known.to_list()
    items = items.with_columns(
        series=pl.when(pl.col("series").is_in(known_groups))
        .then("series")
        .otherwise(pl.lit(OTHER)),
        row=pl.lit(-1, pl.Int64),
    )
    histories = places.filter(pl.col("kind") == "history").with_row_index("row")
    names = [lookup.name(int(user)) for user in histories["user"]]
    histories = histories.with_columns(
        pl.col("row").cast(pl.Int64),
        pl.Series("item_id", names, dtype=pl.String),
        series=pl.lit(HISTORIES),
        text=pl.format("{} {}", pl.lit(lookup.what), pl.Series("name", names, dtype=pl.String)),
    )
    columns = ("kind", "item", "user", "row", "events", "item_id", "text", "series")
    both = pl.concat([f.select(*columns, x=axes[0], y=axes[1]) for f in (items, histories)])
    order = {name: i for i, name in enumerate([*known_groups, OTHER, HISTORIES])}
    rank = pl.col("series").replace_strict(order, return_dtype=pl.Int64)
    return both.sort(rank, maintain_order=True)


def find(frame: pl.DataFrame, text: str) -> pl.DataFrame:
    """Return the rows whose text has the words, or whose id is them; none for no words."""
    if not text:
        return frame.clear()
    return frame.filter(
        pl.col("text").str.to_lowercase().str.contains(text.lower(), literal=True)
        | (pl.col("item_id") == text)
    )


def _show(
    model: str,
    directory: Path,
    frame: pl.DataFrame,
    hits: pl.DataFrame,
    colour: str,
    lookup: Lookup,
) -> None:
    import streamlit as st

    left, right = st.columns([3, 2])
    with left:
        event = chart(
            f"Items of {model}",
            _figure(frame, hits, colour),
            frame,
            alt="Items and histories in the plane",
            key=f"map of {model}",
            words="Click a point for its neighbours; distances between far groups mean little.",
        )
    with right:
        clicked = _clicked(event, frame, hits)
        if clicked is None:
            missing("Nothing is chosen", "Click a point of the map, or search.")
        else:
            _neighbours(directory, clicked, lookup)
        if len(hits):
            table("Found", hits.select("text", "item_id", "kind", "events").head(200), height=240)


def _figure(frame: pl.DataFrame, hits: pl.DataFrame, colour: str) -> figures.Figure:
    if colour == FREQUENCY:
        traces = [_by_frequency(frame.filter(pl.col("kind") == "item"))]
        traces += [_group(frame.filter(pl.col("kind") == "history"), HISTORIES, "#9aa7b6")]
    else:
        names = frame["series"].unique(maintain_order=True).to_list()
        paint = {**figures.colours(names), OTHER: "#b8c0c9", HISTORIES: "#6b7f94"}
        traces = [_group(frame.filter(pl.col("series") == n), n, paint[n]) for n in names]
    if len(hits):
        traces.append(_group(hits, "found", "#c0392b", size=13))
        traces[-1]["marker"] |= {"symbol": "circle-open", "opacity": 1.0, "line": {"width": 3}}
    shape = figures.layout(height=620)
    for axis in ("xaxis", "yaxis"):
        shape[axis] |= {"showticklabels": False, "showgrid": False, "zeroline": False}
    shape["legend"] = {"orientation": "h", "y": -0.02, "yanchor": "top", "x": 0}
    return {"data": traces, "layout": shape | {"dragmode": "pan", "clickmode": "event+select"}}


def _group(frame: pl.DataFrame, name: str, colour: str, size: int = 5) -> dict[str, Any]:
    history = name == HISTORIES
    return {
        # Few points are drawn sharper and sooner without the graphics processor.
        "type": "scattergl" if len(frame) > MANY_POINTS else "scatter",
        "mode": "markers",
        "name": name,
        "x": frame["x"].to_numpy(),
        "y": frame["y"].to_numpy(),
        "text": frame["text"].to_list(),
        "customdata": frame.select("item", "row").rows(),
        "marker": {
            "color": colour,
            "size": size + history,
            "opacity": 0.75,
            "symbol": "diamond-open" if history else "circle",
        },
        "hovertemplate": "%{text}<extra>" + name + "</extra>",
        "visible": "legendonly" if history else True,
    }


def _by_frequency(frame: pl.DataFrame) -> dict[str, Any]:
    trace = _group(frame, "items", figures.PALETTE[0])
    shade = (pl.col("events") + 1).log(10)
    trace["marker"] |= {
        "color": frame.select(shade).to_series().to_list(),
        "colorscale": "Viridis",
        "colorbar": {"title": {"text": "log10 events"}, "thickness": 10},
    }
    return trace


def _clicked(event: Any, frame: pl.DataFrame, hits: pl.DataFrame) -> dict[str, Any] | None:
    """Return the point that was clicked last, or the first that was found; the address names it.

    A click counts once: what the chart still calls selected must not undo a step back.
    """
    import streamlit as st

    selected = [p["customdata"][:2] for p in (event.selection.points if event is not None else [])]
    mine = _named(frame, chosen("point"))
    if selected and st.session_state.get(SELECTED) != selected:
        item, row = selected[0]
        mine = frame.filter((pl.col("item") == item) & (pl.col("row") == row))
    st.session_state[SELECTED] = selected
    if mine.is_empty():
        mine = hits
    if mine.is_empty():
        keep("point", None)
        return None
    point = mine.row(0, named=True)
    keep("point", f"{point['kind']}:{point['item_id']}" if point["item_id"] is not None else None)
    return point


def _named(frame: pl.DataFrame, name: str | None) -> pl.DataFrame:
    """Return the point that an address calls `item:ID` or `history:ID`, no row if there is none."""
    kind, _, name_there = (name or "").partition(":")
    return frame.filter((pl.col("kind") == kind) & (pl.col("item_id") == name_there))


def _neighbours(directory: Path, point: dict[str, Any], lookup: Lookup) -> None:
    import streamlit as st

    vectors = open_vectors(directory)
    st.subheader(str(point["text"]))
    if vectors is None:
        missing("The vectors are gone", f"`recsys index` writes them into {directory}.")
        return
    if point["kind"] == "item":
        st.caption(f"{point['events']:,} training events; its neighbours by cosine")
        items, values = vectors.like_item(int(point["item"]), NEIGHBOURS)
        measure = "cosine"
    else:
        st.caption(f"{point['events']:,} events; the items that it scores highest")
        items, values = vectors.after_history(int(point["row"]), NEIGHBOURS)
        measure = "score"
    rows = pl.DataFrame(
        {
            "item": [lookup.text(int(item)) for item in items],
            measure: values.astype(float),
            "group": [lookup.group(int(item)) for item in items],
        }
    )
    table("Neighbours", rows, columns={measure: st.column_config.NumberColumn(format="%.3f")})
