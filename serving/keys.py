"""API keys: made at random, shown once, kept as salted hashes in a file, several at a time.

    rk_<id>_<secret>        id: 8 hex digits, in the clear; secret: 256 random bits

The file holds for each key its id, name, salt and sha256(salt + secret). A secret of 256 random bits
needs no slow hash: there is nothing to guess. The file is read again when it changes, so keys are added
and revoked without a restart.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from recsys.errors import ArtifactError, ConfigError
from recsys.lock import locked

FORM: Final = re.compile(r"rk_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True)
class Key:
    """What is kept of a key."""

    id: str
    name: str
    salt: str
    hash: str
    created: str


def add_key(file: Path, name: str) -> str:
    """Add a key to the file, which is made if missing, and return it: it cannot be shown again."""
    secret, salt = secrets.token_urlsafe(32), secrets.token_hex(16)
    key = Key(secrets.token_hex(4), name, salt, _hash(salt, secret), _now())
    with locked(file.with_name(f".{file.name}.lock"), file, "then try again"):
        _write(file, [*read_keys(file), key])
    return f"rk_{key.id}_{secret}"


def revoke_key(file: Path, id: str) -> None:
    """Take a key out of the file; `ConfigError` if it is not there."""
    with locked(file.with_name(f".{file.name}.lock"), file, "then try again"):
        keys = read_keys(file)
        left = [key for key in keys if key.id != id]
        if len(left) == len(keys):
            there = ", ".join(f"{key.id} ({key.name})" for key in keys) or "none"
            raise ConfigError(f"{file} has no key {id!r}; there are: {there}")
        _write(file, left)


def read_keys(file: Path) -> list[Key]:
    """Return the keys of a file; none if it does not exist."""
    if not file.is_file():
        return []
    try:
        return [Key(**row) for row in json.loads(file.read_text(encoding="utf-8"))]
    except (ValueError, TypeError) as error:
        raise ArtifactError(f"{file} is no readable file of keys; restore or delete it") from error


class KeyRing:
    """The keys of a file, as they are now."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stamp: tuple[int, int] | None = None
        self._keys: dict[str, Key] = {}
        self._refresh()

    def __len__(self) -> int:
        self._refresh()
        return len(self._keys)

    def owner(self, presented: str) -> str | None:
        """Return the id of the key that was presented, None if it is not one of these."""
        self._refresh()
        form = FORM.fullmatch(presented)
        if form is None or (key := self._keys.get(form[1])) is None:
            return None
        return key.id if hmac.compare_digest(key.hash, _hash(key.salt, form[2])) else None

    def _refresh(self) -> None:
        """Read the file if it changed. One that cannot be read now leaves the keys as they were."""
        try:
            found = self._file.stat()
            stamp = (found.st_mtime_ns, found.st_ino)
        except FileNotFoundError:
            self._stamp, self._keys = None, {}
            return
        if stamp != self._stamp:
            self._keys = {key.id: key for key in read_keys(self._file)}
            self._stamp = stamp


def _write(file: Path, keys: list[Key]) -> None:
    """Write the file whole, for its owner's eyes only."""
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.new")
    text = json.dumps([asdict(key) for key in keys], indent=2) + "\n"
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
        handle.write(text)
    aside.replace(file)


def _hash(salt: str, secret: str) -> str:
    return hashlib.sha256(f"{salt}{secret}".encode()).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
