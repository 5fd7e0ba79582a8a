"""Start the dashboard: Streamlit with its options said here, so that no file of the user's is needed."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, Final

from recsys.errors import MissingExtraError, RecsysError

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
    bootstrap.run(str(APP), False, [str(output), tracking or ""], options)


def _check_port(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        raise RecsysError(
            f"{host}:{port} cannot be listened on ({error}); choose another with --port or --host"
        ) from error
