"""Tables and charts as the pages show them, each with its own download; words for what is missing."""

from __future__ import annotations

import re
from typing import Any

import polars as pl

from serving.dashboard.sources import frame_csv

Chart = dict[str, Any]


def table(
    name: str, frame: pl.DataFrame, *, columns: dict[str, Any] | None = None, height: Any = "auto"
) -> None:
    """Show a frame that can be sorted and searched, and offer exactly its rows as CSV."""
    import streamlit as st

    st.dataframe(frame, hide_index=True, column_config=columns, height=height, width="stretch")
    download(name, frame)


def chart(
    name: str, figure: Chart, frame: pl.DataFrame, *, alt: str, key: str = "", words: str = ""
) -> Any:
    """Show a titled Plotly figure and offer the rows it was drawn from as CSV, the picture as SVG.

    Args:
        name: its title, and that of the files.
        figure: `data` and `layout`.
        frame: what is drawn.
        alt: what it shows, for who cannot see it.
        words: a line below the title.
        key: makes points selectable under this key, and is returned with the selection.
    """
    import streamlit as st

    config = {
        "displaylogo": False,
        "toImageButtonOptions": {"format": "svg", "filename": slug(name)},
    }
    more: dict[str, Any] = {"key": key or f"chart {name}"}
    if key:
        more |= {"on_select": "rerun", "selection_mode": "points"}
    st.markdown(f"**{name}**" + (f"  \n:gray[{words}]" if words else ""))
    event = st.plotly_chart(figure, config=config, alt=alt, width="stretch", **more)
    download(name, frame)
    return event


def download(name: str, frame: pl.DataFrame) -> None:
    """Offer rows as a CSV file with every digit."""
    import streamlit as st

    st.download_button(
        f"{name} (CSV)",
        lambda: frame_csv(frame),  # made when it is asked for
        file_name=f"{slug(name)}.csv",
        mime="text/csv",
        on_click="ignore",
        type="tertiary",
        icon=":material/download:",
        key=f"download {name}",
    )


def slug(name: str) -> str:
    """Return a name for a file.

    >>> slug("NDCG@10 by user")
    'ndcg-10-by-user'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def missing(what: str, remedy: str) -> None:
    """Say what a page would show here, and how to get it."""
    import streamlit as st

    st.info(f"**{what}**  \n{remedy}", icon=":material/info:")


def figures(decimals: int = 4) -> Any:
    """Return how a column of figures is written; the rows keep every digit."""
    import streamlit as st

    return st.column_config.NumberColumn(format=f"%.{decimals}f")
