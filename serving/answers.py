"""The log of answers: which items were shown to whom, so that the next training can learn from it.

Lines of JSON in files that are closed at a size and named by the moment they were begun. A thread of its
own writes them; if it cannot keep up, answers go unlogged and are counted rather than held up.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Final

log = logging.getLogger(__name__)

WAITING: Final = 10_000
FILE_BYTES: Final = 64 << 20
FORGET: Final = "forget"


class AnswerLog:
    """The open log.

    Args:
        directory: where the files are.
        file_bytes: size at which a file is closed and another begun.
    """

    def __init__(self, directory: Path, file_bytes: int = FILE_BYTES) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.dropped = 0
        self._directory, self._file_bytes = directory, file_bytes
        self._queue: queue.Queue[Mapping[str, Any] | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._run, name="answer-log", daemon=True)
        self._file: TextIOWrapper | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def write(self, answer: Mapping[str, Any]) -> None:
        """Log an answer, soon."""
        try:
            self._queue.put_nowait({"time": int(time.time()), **answer})
        except queue.Full:
            self.dropped += 1

    def forget(self, user: str) -> None:
        """Take all lines about a user out of all files, soon."""
        self._queue.put({FORGET: user})

    def stop(self) -> None:
        """Write what is left and close the file."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join(timeout=30)

    def _run(self) -> None:
        while (answer := self._queue.get()) is not None:
            try:
                self._take(answer)
            except OSError as error:  # a full disk must not end the thread: it may have room again
                self.dropped += 1
                log.error("an answer could not be logged", extra={"error": type(error).__name__})
        self._close()

    def _take(self, answer: Mapping[str, Any]) -> None:
        if FORGET in answer:
            self._close()
            for path in self._directory.glob("*.jsonl"):
                _without_user(path, answer[FORGET])
            return
        if self._file is None:
            name = datetime.now(UTC).strftime("answers-%Y%m%dT%H%M%S%f.jsonl")
            self._file = (self._directory / name).open("a", encoding="utf-8")
        self._file.write(json.dumps(answer, separators=(",", ":")) + "\n")
        if self._queue.empty():
            self._file.flush()
        if self._file.tell() >= self._file_bytes:
            self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _without_user(path: Path, user: str) -> None:
    """Rewrite a file without the lines about a user."""
    aside = path.with_suffix(".rewritten")
    with path.open(encoding="utf-8") as lines, aside.open("w", encoding="utf-8") as kept:
        kept.writelines(line for line in lines if json.loads(line).get("user") != user)
    aside.replace(path)
