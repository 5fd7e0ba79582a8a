"""Looking for a new model, and for changes of the catalogue that other processes made.

A bundle that is refused is not looked at again until it, or what is published, changes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from recsys.errors import RecsysError
from recsys.manifest import MANIFEST
from serving.logs import place_of
from serving.service import Service

log = logging.getLogger(__name__)

Find = Callable[[], Path]
"""Returns the bundle that should be served now."""
CATALOGUE_SECONDS: Final = 1.0


@dataclass(frozen=True)
class Reloaded:
    """What came of looking: a word, and why a bundle was refused."""

    result: Literal["loaded", "unchanged", "refused"]
    reason: str | None = None


class Reloader:
    """Finds and loads models; one at a time.

    Args:
        service: what serves them.
        find: returns the bundle that should be served.
        seconds: between two looks; 0 to look when asked only.
    """

    def __init__(self, service: Service, find: Find, seconds: float) -> None:
        self._service, self._find, self._seconds = service, find, seconds
        self._alone = threading.Lock()
        self._refused: tuple[str, int] | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reloader", daemon=True)

    def start(self) -> None:
        """Begin to look regularly."""
        self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(timeout=30)

    def reload(self, again: bool = True) -> Reloaded:
        """Load the bundle that should be served, unless it is already.

        With `again`, one that was refused before is tried once more.
        """
        with self._alone:
            try:
                path = self._find()
            except RecsysError as error:
                return self._refuse(error, None)
            current = self._service.model.base
            if path.name == f"{current.name}@{current.version}":
                return Reloaded("unchanged")
            stamp = _stamp(path)
            if path.name == self._service.given_up:  # it loads, but failed at work
                self._refused, self._service.given_up = stamp, None
            if stamp == self._refused and not again:
                return Reloaded("refused", "it was refused before")
            try:
                model = self._service.load(path)
            except RecsysError as error:
                return self._refuse(error, stamp)
            except Exception as error:  # a bundle can be damaged in ways nobody foresaw
                return self._refuse(error, stamp)
            self._refused = None
            self._service.metrics.loads.labels("loaded").inc()
            log.info("another model answers", extra={"model": model.label})
            return Reloaded("loaded")

    def _refuse(self, error: Exception, stamp: tuple[str, int] | None) -> Reloaded:
        self._refused = stamp
        self._service.metrics.loads.labels("refused").inc()
        log.error(
            "a bundle was refused", extra={"error": type(error).__name__, "at": place_of(error)}
        )
        reason = "it is damaged, or not a bundle that this version can serve"
        return Reloaded("refused", f"{reason} ({type(error).__name__})")

    def _run(self) -> None:
        waited = 0.0
        pause = min(CATALOGUE_SECONDS, self._seconds or CATALOGUE_SECONDS)
        while not self._end.wait(pause):
            waited += pause
            try:
                if 0 < self._seconds <= waited:
                    waited = 0.0
                    self.reload(again=False)
                ledger = self._service.ledger
                if ledger and ledger.living_version() != self._service.model.living.version:
                    self._service.renew_catalogue()
            except Exception as error:  # the watch must outlive whatever it meets
                log.error(
                    "the watch failed", extra={"error": type(error).__name__, "at": place_of(error)}
                )


def _stamp(path: Path) -> tuple[str, int]:
    """Return what changes when a bundle is written again."""
    manifest = path / MANIFEST
    return path.name, manifest.stat().st_mtime_ns if manifest.is_file() else 0
