"""Logs as lines of JSON: what happened, never a trace, a path or a key.

A message is a constant text; what varies are fields beside it, given as `extra`. An error is told by the
name of its class and the place in the code, not by its own message, which may hold anything.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON: time, level, logger, event, and its extra fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; what is attached of an exception is left out but for its class."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["event"] = "an error in a library"  # its message is not ours to vouch for
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        return json.dumps(line, default=str)


def log_json(level: int = logging.INFO) -> None:
    """Send the logs of this project and of the server to stderr as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("serving", "recsys", "features", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level if name == "serving" else logging.WARNING)


def place_of(error: BaseException) -> str:
    """Return where an error was raised, as `module:line`."""
    trace: TracebackType | None = error.__traceback__
    if trace is None:
        return "unknown"
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_globals.get('__name__', 'unknown')}:{trace.tb_lineno}"
