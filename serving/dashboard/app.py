"""The script that Streamlit runs for every visitor: the pages and what they are called.

Its arguments are the output directory and MLflow's address (empty: the default).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Final

from serving.dashboard.registry import tracking_uri
from serving.dashboard.scope import Setting

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
[data-testid="stDownloadButton"] { margin-top: -.6rem; opacity: .75; }
[data-testid="stDownloadButton"]:hover { opacity: 1; }
</style>"""


def main() -> None:
    """Draw the page that the address names."""
    import streamlit as st

    output, address = (*sys.argv[1:], "", "")[:2]
    folder = Path(output or "out")
    setting = Setting(folder, tracking_uri(folder, address or None))
    st.set_page_config(page_title="recsys", page_icon=ICON, layout="wide")
    st.html(STYLE)
    pages = [
        st.Page(_page(module, setting), title=title, icon=icon, url_path=module, default=i == 0)
        for i, (module, title, icon) in enumerate(PAGES)
    ]
    st.navigation(pages).run()


def _page(module: str, setting: Setting) -> Callable[[], None]:
    """Return what draws a page; its code is imported when it is first opened."""

    def draw() -> None:
        import_module(f"serving.dashboard.views.{module}").draw(setting)

    return draw


if __name__ == "__main__":
    main()
