"""Look inside: one user, what was held out, and what each model put where."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from recsys.errors import ArtifactError
from recsys.evaluation.examples import best_rank, rank_text
from recsys.evaluation.inside import Case, by_gain, first_hit, targets_of
from recsys.evaluation.measured import RunChoice, values_of
from recsys.evaluation.metrics import Float64
from serving.dashboard import figures
from serving.dashboard.address import chosen, keep, pick
from serving.dashboard.lookup import Lookup, case_of, open_lookup
from serving.dashboard.scope import Scope, Setting, choose
from serving.dashboard.show import chart, missing, table
from serving.dashboard.sources import choices

SHOWN = 10
TARGETS_LISTED = 200


def draw(setting: Setting) -> None:
    """Draw the page."""
    import streamlit as st

    st.title("Look inside")
    scope = choose(setting, accuracy=True)
    if scope is None:
        return
    runs = choices(scope.library, scope.dataset, scope.split)
    runs = [run for run in runs if run.report == runs[0].report]
    try:
        _look(scope, {run.model: run for run in runs})
    except ArtifactError as error:
        missing("This user cannot be shown", str(error))


def _look(scope: Scope, runs: dict[str, RunChoice]) -> None:
    import streamlit as st

    models = list(runs)
    left, right, *rest = st.columns([2, 2, 1, 1, 1], vertical_alignment="bottom")
    with left:
        one = pick("Model", "model", models, models[-1])
    with right:
        others = [model for model in models if model != one] or models
        other = pick("beside", "beside", others, others[0])
    users, gain = by_gain(values_of(runs[one], scope.key), values_of(runs[other], scope.key))
    _buttons(rest, users)
    lookup = open_lookup(runs[one])
    user = _user(lookup, users)
    if user is None:
        return
    _one_user(scope, runs, lookup, user, _gain_of(user, users, gain), (one, other))


def _buttons(places: list[Any], users: Any) -> None:
    """Offer a user at random and the next ones from each end of the gains."""
    import streamlit as st

    def go(where: str) -> None:
        at = {"random": int(np.random.default_rng().integers(len(users))), "gained": 0, "lost": -1}
        step = st.session_state.get("step", {"gained": 0, "lost": 0})
        index = at[where]
        if where in step:
            n = step[where] % len(users)
            index = n if where == "gained" else -1 - n
            st.session_state["step"] = {**step, where: n + 1}
        st.session_state["user"] = str(int(users[index]))
        for name in ("target", "who"):
            st.session_state.pop(name, None)
            keep(name, None)

    words = (("random", "Random"), ("gained", "Best gained"), ("lost", "Worst lost"))
    for place, (where, text) in zip(places, words, strict=True):
        place.button(text, on_click=go, args=(where,), width="stretch")


def _user(lookup: Lookup, users: Any) -> int | None:
    """Return the user to show: typed by its id, of the address, or the one that gained most."""
    import streamlit as st

    typed = st.text_input(
        f"Find a {lookup.what} by its id", key="who", placeholder="an id of the data set"
    )
    if typed:
        found = lookup.user(typed.strip())
        if found is None:
            missing(f"No {lookup.what} {typed!r}", "The id must be one of the data set.")
            return None
        st.session_state["user"] = str(found)
    if "user" not in st.session_state:
        asked = chosen("user")
        known = asked is not None and asked.isdigit() and np.isin(int(asked), users)
        st.session_state["user"] = asked if known else str(int(users[0]))
    user = int(st.session_state["user"])
    if not np.isin(user, users):
        missing(f"{lookup.name(user)} has no target here", "Choose another, or another split.")
        return None
    keep("user", str(user))
    return user


def _gain_of(user: int, users: Any, gain: Float64) -> float:
    return float(gain[np.flatnonzero(users == user)[0]])


def _one_user(
    scope: Scope,
    runs: dict[str, RunChoice],
    lookup: Lookup,
    user: int,
    gain: float,
    pair: tuple[str, str],
) -> None:
    import streamlit as st

    targets = targets_of(runs[pair[0]].targets, user)
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    left.subheader(f"{lookup.what.capitalize()} {lookup.name(user)}")
    first = first_hit(runs[pair[0]].targets, user)
    listed = dict.fromkeys([*targets[:TARGETS_LISTED].tolist(), first])
    options = [str(row) for row in listed if row is not None]
    place = {str(row): i + 1 for i, row in enumerate(targets.tolist())}
    with right:
        target = pick(
            "Target",
            "target",
            options,
            str(first),
            show=lambda row: f"{place[row]} of {len(targets)}",
        )
    case = case_of(runs, lookup, int(target))
    cards = st.columns(2 + min(4, len(case.answers)))
    cards[0].metric("events before", f"{case.history_length:,}")
    cards[1].metric(f"{pair[0]} - {pair[1]}", f"{gain:+.4f}", help=f"{scope.label} of this user")
    for card, (model, answer) in zip(cards[2:], case.answers.items(), strict=False):
        card.metric(f"rank by {model}", rank_text(best_rank(answer)))
    held = ", ".join(lookup.text(int(item)) for item in case.relevant)
    st.markdown(f"Held out: **{held}**")
    _timeline(lookup, case)
    _lists(lookup, case)


def _timeline(lookup: Lookup, case: Case) -> None:
    """Show the newest events on a line of time, or of places where there are no times."""
    import streamlit as st

    items = [*case.history.tolist(), *case.relevant.tolist()]
    n, held = len(case.history), len(case.relevant)
    timed = False
    if lookup.clock == "absolute" and case.times is not None and case.asked_at is not None:
        timed = len({*case.times.tolist(), case.asked_at}) > 1  # songs of a show have one time
    if timed and case.times is not None:
        stamps = pl.Series([*case.times.tolist(), *[case.asked_at] * held], dtype=pl.Int64)
        when = pl.from_epoch(stamps, time_unit="s").dt.strftime("%Y-%m-%d %H:%M:%S").to_list()
    else:
        first = case.history_length - n + 1
        when = list(range(first, first + len(items)))
    frame = pl.DataFrame(
        {
            "when": when,
            "item": items,
            "text": [lookup.text(item) for item in items],
            "group": [lookup.group(item) for item in items],
            "part": ["history"] * n + ["held out"] * held,
        },
        strict=False,
    )
    if not len(frame):
        return
    figure = _timeline_figure(frame, "time" if timed else "place in the history")
    chart("History", figure, frame, alt="Events of the history and the held-out items over time")
    if case.history_length > n:
        st.caption(f"The newest {n:,} of {case.history_length:,} events.")


def _timeline_figure(frame: pl.DataFrame, axis: str) -> figures.Figure:
    traces = []
    styles = {
        "history": {"color": figures.PALETTE[0], "size": 9, "opacity": 0.75},
        "held out": {"color": figures.PALETTE[1], "size": 15, "symbol": "star"},
    }
    for part, marker in styles.items():
        mine = frame.filter(pl.col("part") == part)
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": part,
                "x": mine["when"].to_list(),
                "y": mine["group"].to_list(),
                "text": mine["text"].to_list(),
                "marker": marker,
                "hovertemplate": "%{text}<br>%{x}<extra></extra>",
            }
        )
    shape = figures.layout(x=axis, height=170 + 20 * frame["group"].n_unique())
    shape["yaxis"] |= {"type": "category"}
    return {"data": traces, "layout": shape}


def _lists(lookup: Lookup, case: Case) -> None:
    """Show the first places of every model's list side by side, hits and repeats marked."""
    import streamlit as st

    st.subheader("What each model recommends")
    held, seen = set(case.relevant.tolist()), set(case.history.tolist())
    columns: dict[str, list[str]] = {"place": [str(i + 1) for i in range(SHOWN)]}
    for model, answer in case.answers.items():
        texts = []
        for item in answer.top[:SHOWN].tolist():
            mark = "★ " if item in held else "↺ " if item in seen else ""
            texts.append(mark + lookup.text(item))
        columns[model] = texts + [""] * (SHOWN - len(texts))
    table("Lists", pl.DataFrame(columns))
    st.caption("★ held out, so a hit · ↺ already in the history")
    ranks = [
        {"model": model, "item": lookup.text(item), "rank": rank}
        for model, answer in case.answers.items()
        for item, rank in answer.ranks.items()
    ]
    table("Ranks of the held-out items", pl.DataFrame(ranks))
    recent = case.history[::-1][:50].tolist()
    listed = lookup.items.filter(pl.col("item").is_in([*held, *recent]))
    with st.expander("Texts of the held-out and the newest items"):
        table("Texts", listed)
