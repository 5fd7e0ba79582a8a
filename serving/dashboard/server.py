"""Start the dashboard: Streamlit with its options said here, so that no file of the user's is needed."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from recsys.errors import ArtifactError, MissingExtraError, RecsysError
from recsys.evaluation.names import PREFERRED_K
from serving.dashboard.registry import READER, read_registry, tracking_uri

READ_AHEAD: Final = 4
"""Runs of the newest report whose rows are read before a page asks for them."""
DRAWN_WITH: Final = ("pandas", "plotly.graph_objs", "plotly.io", "pyarrow.parquet")
"""What Streamlit imports when it first draws a table or a chart."""
APP: Final = Path(__file__).with_name("app.py")
COLOURS: Final = ["#3b7dd8", "#e0702f", "#12a07a", "#b552a3", "#b8860b", "#6b7f94"]
OPTIONS: Final[dict[str, Any]] = {
    "browser_gatherUsageStats": False,
    "server_headless": True,  # opens no browser, asks for no e-mail address
    "server_fileWatcherType": "none",
    "server_runOnSave": False,
    "runner_magicEnabled": False,
    "client_toolbarMode": "viewer",
    "client_showErrorDetails": "type",
    "logger_level": "warning",
    "theme_primaryColor": "#3b7dd8",
    "theme_chartCategoricalColors": COLOURS,
    "theme_baseFontSize": 15,
    "theme_showWidgetBorder": True,
    "theme_light_backgroundColor": "#ffffff",
    "theme_light_secondaryBackgroundColor": "#f3f5f8",
    "theme_dark_backgroundColor": "#14191f",
    "theme_dark_secondaryBackgroundColor": "#1c232b",
}
"""Streamlit's settings, the section before the underscore. Nothing is asked of a network."""


def serve_dashboard(output: Path, host: str, port: int, tracking: str | None = None) -> None:
    """Serve the dashboard of an output directory until interrupted.

    Args:
        output: the directory of the experiments; it need not exist yet.
        host: address to listen on.
        port: port to listen on.
        tracking: MLflow's address; the output's own database by default.

    Raises:
        MissingExtraError: Streamlit is not installed.
        RecsysError: the port is taken, or the address is not this machine's.
    """
    try:
        from streamlit.web import bootstrap
    except ImportError as error:
        raise MissingExtraError("streamlit", "dashboard") from error
    _check_port(host, port)
    options = {
        **OPTIONS,
        "server_address": host,
        "server_port": port,
        "browser_serverAddress": host,
    }
    bootstrap.load_config_options(flag_options=options)
    print(f"dashboard of {output} on http://{host}:{port} (Ctrl+C ends it)", flush=True)
    _import_pages()
    READER.ask(read_registry, tracking_uri(output, tracking))
    threading.Thread(target=_read_ahead, args=(output,), daemon=True).start()
    bootstrap.run(str(APP), False, [str(output), tracking or ""], options)


def _import_pages() -> None:
    """Import what the pages need before anybody can ask for one.

    A page that is drawn while another thread imports would find modules half made: Streamlit looks
    into `sys.modules` for pandas whenever it is handed a value.
    """
    from serving.dashboard.app import PAGES

    for module in (*DRAWN_WITH, *(f"serving.dashboard.views.{page}" for page, _, _ in PAGES)):
        import_module(module)


def _read_ahead(output: Path) -> None:
    """Read the reports, and the rows of the newest, while the first visitor's browser still loads."""
    from recsys.evaluation.measured import values_of
    from serving.dashboard.sources import choices, datasets_of, measured, open_library

    library = open_library(output)
    measured(library)
    for report in library.reports[:1]:
        for run in choices(library, datasets_of(report)[0], "test")[:READ_AHEAD]:
            # The page that needs the rows says what is wrong with them.
            with suppress(ArtifactError):
                values_of(run, ("ndcg", PREFERRED_K))


def _check_port(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        raise RecsysError(
            f"{host}:{port} cannot be listened on ({error}); choose another with --port or --host"
        ) from error
