"""Part of the publish stage: the features of users and items go into the feature store.

The store has a directory in the workspace, which the endpoint finds beside the bundles. It is renewed in
place, because servers may be reading from it: what is written last, the manifest, tells that it is whole.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pipelines.runs import last_fold
from recsys.config import ExperimentConfig
from recsys.errors import ArtifactError
from recsys.manifest import is_current, read_manifest, stable_hash, write_manifest

if TYPE_CHECKING:
    import polars as pl

logger = logging.getLogger(__name__)

STAGE_VERSION: Final = 2
DIRECTORY: Final = "feast"


def fill_feature_store(config: ExperimentConfig) -> Path | None:
    """Return the directory of the filled store, made anew unless it is current; None if not enabled."""
    if not config.feast.enabled:
        return None
    directory = config.workspace / DIRECTORY
    key = _key(config)
    if is_current(directory, key):
        return directory
    import polars as pl

    from features.store import StoreSettings, write_offline
    from features.user_rows import published_rows
    from recsys.data.sequences import SequenceStore

    prepared, at = config.workspace / "prepared", datetime.now(UTC)
    items = pl.read_parquet(prepared / "items.parquet", columns=["item_id", "item"]).sort("item")
    users = published_rows(
        SequenceStore.load(config.workspace / "features" / "sequences"),
        pl.read_parquet(prepared / "users.parquet")["user_id"],
        items["item_id"],
        config.publish.recent_events,
    )
    StoreSettings(
        directory,
        config.name,
        config.feast.online,
        config.feast.redis,
        config.publish.recent_events,
    ).save()
    write_offline(directory, users, _frequency(config, items), at)
    _materialise(directory, at)
    write_manifest(directory, {"key": key, "rows": {"users": len(users), "items": len(items)}})
    return directory


def _key(config: ExperimentConfig) -> str:
    return stable_hash(
        {
            "features": read_manifest(config.workspace / "features")["key"],
            "feast": config.feast.model_dump(mode="json"),
            "recent_events": config.publish.recent_events,
            "fold": last_fold(config),
            "version": STAGE_VERSION,
        }
    )


def _frequency(config: ExperimentConfig, items: pl.DataFrame) -> pl.DataFrame:
    """Return `item_id, events, users` of the training events of the last fold."""
    import polars as pl

    counted = pl.read_parquet(config.workspace / "features" / "item_frequency.parquet")
    own = counted.filter(pl.col("fold") == last_fold(config))
    return items.join(own, on="item", how="left").select(
        pl.col("item_id").cast(pl.String), pl.col("events", "users").fill_null(0)
    )


def _materialise(directory: Path, at: datetime) -> None:
    """Run the part that needs Feast in a process of its own."""
    command = [sys.executable, "-m", "features.materialise", str(directory), at.isoformat()]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        logger.debug("features.materialise said: %s", done.stderr)
        raise ArtifactError(
            f"the feature store in {directory} could not be filled: {_last_word(done.stderr)}; is "
            "Redis running (feast.redis), is the extra 'features' installed?"
        )


def _last_word(said: str) -> str:
    """Return the line in which a process names its error; what libraries say at its end is not it."""
    lines = [line for line in said.splitlines() if line and not line.startswith((" ", "nanobind"))]
    errors = [line for line in lines if "Error" in line.split(":", 1)[0]]
    return (errors or lines or ["it said nothing"])[-1][:300]
