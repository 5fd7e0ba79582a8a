"""A lock on a directory: one process at a time works in it, and who comes second learns who is there.

The operating system holds the lock and not the file, so that of a killed process is gone with it.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Final

from recsys.errors import RecsysError

PATIENCE: Final = 0.2
"""Seconds in which a lock that is just being given back may become free."""


@contextmanager
def locked(file: Path, place: Path, remedy: str) -> Iterator[None]:
    """Hold the lock `file` alone for the length of a block; the file is gone afterwards.

    Args:
        file: made with its directory; it says who holds the lock.
        place: what the lock guards, for the message.
        remedy: what to do besides waiting, for the message: "or ...".

    Raises:
        RecsysError: another process holds the lock, and is named; or locks do not work here.
    """
    from filelock import FileLock, Timeout

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file)
        lock.acquire(timeout=PATIENCE)
    except Timeout as error:
        raise RecsysError(
            f"another process is at work in {place} ({_holder(file)}); wait until it has ended, {remedy}"
        ) from error
    except OSError as error:
        raise RecsysError(
            f"{file} cannot be locked ({error}); results must lie where you may write, on a file "
            "system that has locks"
        ) from error
    try:
        file.write_text(json.dumps(_about_this_process()), encoding="utf-8")
        yield
    finally:
        with suppress(OSError):  # where an open file cannot be deleted it stays, which does no harm
            file.unlink()
        lock.release()


def _about_this_process() -> dict[str, str | int]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200],
    }


def _holder(file: Path) -> str:
    """Return who holds a lock; it may not have written so yet, or be on a system that hides it."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return f"pid {found['pid']} on {found['host']} since {found['since']}: {found['command']}"
    except (OSError, ValueError, KeyError, TypeError):
        return f"{file} does not say which"
