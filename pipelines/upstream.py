"""Whether what training reads is of the configuration and the input files as they are now.

The stages tell by their keys; nothing is made, locked or written.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipelines import features, prepare
from pipelines.statistics import NEIGHBOURS, neighbours_key, wants_neighbours
from pipelines.text import SENTENCES, sentences_key, wants_sentences
from recsys.config import ExperimentConfig
from recsys.manifest import is_current


def stale_stage(config: ExperimentConfig, prepared_key: str) -> str | None:
    """Return the first stage before training that is missing or of something else; None if none is.

    Args:
        config: the experiment.
        prepared_key: `prepare.prepared_key` of it, which reads input files, so that it can be kept.
    """
    found = _keys(config, prepared_key)
    return next((s for s, key in found if not is_current(config.workspace / s, key)), None)


def _keys(config: ExperimentConfig, prepared_key: str) -> Iterator[tuple[str, str]]:
    """Yield stage and key; a key is of the manifest of the stage before, so only after that was seen."""
    yield prepare.DIRECTORY, prepared_key
    yield features.DIRECTORY, features.features_key(config)
    if wants_neighbours(config):
        yield NEIGHBOURS, neighbours_key(config)
    if wants_sentences(config):
        yield SENTENCES, sentences_key(config)
