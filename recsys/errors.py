"""The five errors a user can meet; each message says what was wrong, what is allowed, what to do."""

from __future__ import annotations


class RecsysError(Exception):
    """Base of every error that is the caller's to mend; the command line prints it without a trace."""


class ConfigError(RecsysError):
    """A configuration value or key is not allowed."""


class DataError(RecsysError):
    """Input data break a rule; the message names the file and the first bad rows."""


class ArtifactError(RecsysError):
    """A stage directory, checkpoint, index or bundle is missing, damaged or foreign."""


class MissingExtraError(RecsysError):
    """An optional dependency is needed and not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; get it with: pip install 'recsys[{extra}]'")
