"""The script that Streamlit runs for every visitor: the pages and what they are called.

Its arguments are the output directory and MLflow's address (empty: the default).
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal

import polars as pl

from serving.dashboard.address import (
    EVERYWHERE,
    PAGE,
    chosen,
    follow_address,
    keep,
    remember_address,
)
from serving.dashboard.registry import tracking_uri
from serving.dashboard.scope import Setting, tell_problems
from serving.dashboard.show import missing
from serving.dashboard.sources import open_library

log = logging.getLogger(__name__)

ODD: Final = (pl.exceptions.PolarsError,)
"""What columns of another type raise."""

PAGES: Final = (
    ("overview", "Overview", ":material/leaderboard:"),
    ("compare", "Compare", ":material/compare_arrows:"),
    ("beyond", "Beyond accuracy", ":material/diversity_2:"),
    ("retrieval", "Retrieval", ":material/manage_search:"),
    ("data", "Data", ":material/database:"),
    ("embedding", "Embedding map", ":material/scatter_plot:"),
    ("inside", "Look inside", ":material/person_search:"),
    ("training", "Training", ":material/trending_up:"),
)
"""The module of `serving.dashboard.views`, which is also the address; the title; the icon."""

ICON: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32" fill="#3b7dd8">'
    '<path d="M3 18h8v11H3zM12 11h8v18h-8zM21 4h8v25h-8z"/></svg>'
)
"""Three rising bars; a named icon would be fetched from a font server."""

STYLE: Final = """<style>
[data-testid="stMainBlockContainer"] { padding-top: 2.6rem; padding-bottom: 3rem; max-width: 84rem; }
[data-testid="stMetricValue"] { font-variant-numeric: tabular-nums; }
[data-testid="stMain"] [data-testid="stDownloadButton"] { margin-top: -.6rem; opacity: .75; }
[data-testid="stMain"] [data-testid="stDownloadButton"]:hover { opacity: 1; }
.st-key-pages { gap: .15rem; padding-bottom: .8rem; }
.st-key-pages button { justify-content: flex-start; min-height: 2rem; padding: .15rem .6rem; }
.st-key-pages button > div { justify-content: flex-start; }
</style>"""


def main() -> None:
    """Draw the page that the address names."""
    import streamlit as st

    output, address = (*sys.argv[1:], "", "")[:2]
    folder = Path(output or "out")
    setting = Setting(folder, tracking_uri(folder, address or None))
    st.set_page_config(page_title="recsys", page_icon=ICON, layout="wide")
    st.html(STYLE)
    follow_address()
    page = _page()
    # Its code is imported when a page is first opened.
    draw_safely(import_module(f"serving.dashboard.views.{page}").draw, setting)
    tell_problems(open_library(folder))


def draw_safely(draw: Callable[[Setting], None], setting: Setting) -> None:
    """Draw a page; where a file has not the form that is written today, say so below what was drawn.

    Files that are missing or no JSON are told by the sections that want them. What a file of other
    code holds cannot be foreseen, and a page must not end in an exception for it.
    """
    try:
        draw(setting)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, *ODD) as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        log.exception("a page could not be drawn")
        missing(
            "The rest of this page cannot be drawn",
            f"A file of this report or run has not the form that this version writes "
            f"({type(error).__name__}: {error}, at {Path(place.filename).name}:{place.lineno}). Run "
            "`recsys evaluate` again, or choose another report.",
        )


def _page() -> str:
    """Show the pages in the sidebar and return the one that is open.

    Streamlit's own pages are paths, for each of which a browser that follows a link first asks for
    resources below it that do not exist, and says so in its console.
    """
    import streamlit as st

    modules = [module for module, _, _ in PAGES]
    if st.session_state.get(PAGE) not in modules:
        asked = chosen(PAGE)
        st.session_state[PAGE] = asked if asked in modules else modules[0]
    current = str(st.session_state[PAGE])
    with st.sidebar.container(key="pages"):
        for module, title, icon in PAGES:
            kind: Literal["secondary", "tertiary"] = (
                "secondary" if module == current else "tertiary"
            )
            more: dict[str, Any] = {
                "icon": icon,
                "width": "stretch",
                "on_click": _open,
                "args": (module,),
            }
            st.button(title, key=f"open {module}", type=kind, **more)
    keep(PAGE, current)
    return current


def _open(module: str) -> None:
    """Open another page; what belongs to the old one alone leaves the address."""
    import streamlit as st

    st.session_state[PAGE] = module
    for name in set(st.query_params) - set(EVERYWHERE):
        del st.query_params[name]
    remember_address()


if __name__ == "__main__":
    main()
