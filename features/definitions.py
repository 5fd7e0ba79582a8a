"""The feature store's definitions: entities, views and sources, for Feast.

    entity user: views recent_history, gaps, uniformity     one row a user, as of publishing and live
    entity item: view frequency                              one row an item, as of publishing

The three views of a user have one source, so that one push of a row renews them all. `recent_history`
alone holds the state that the others follow from; a request reads this view and no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from features.user_rows import APPLIED
from recsys.schema import ITEM, USER

PUSH: Final = "user_events"
HISTORY, GAPS, UNIFORMITY, FREQUENCY = "recent_history", "gaps", "uniformity", "frequency"
COUNTS: Final = ("events", "late", "gaps", "gap_total", "gap_squares_high", "gap_squares_low")
COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    HISTORY: ("recent_items", "recent_times", APPLIED, *COUNTS),
    GAPS: ("gap_hours", "gap_median"),
    UNIFORMITY: ("gaps", "gap_variance"),
    FREQUENCY: ("events", "users"),
}
"""View -> its features."""
USER_VIEWS: Final = (HISTORY, GAPS, UNIFORMITY)
EVENT_TIME: Final = "event_timestamp"
USERS_FILE, ITEMS_FILE = "users.parquet", "items.parquet"


def definitions(offline: Path) -> list[Any]:
    """Return entities, the push source and views over the Parquet files in `offline`."""
    from feast import Entity, FeatureView, Field, FileSource, PushSource
    from feast.types import Array, Float64, Int64, String
    from feast.value_type import ValueType

    types = {"recent_items": Array(String)}
    types |= dict.fromkeys(("recent_times", "gap_hours"), Array(Int64))
    types |= dict.fromkeys(("gap_median", "gap_variance"), Float64)
    user = Entity(name="user", join_keys=[USER], value_type=ValueType.STRING)
    item = Entity(name="item", join_keys=[ITEM], value_type=ValueType.STRING)

    def source(file: str) -> Any:
        path = offline / file
        return FileSource(name=path.stem, path=str(path), timestamp_field=EVENT_TIME)

    pushed = PushSource(name=PUSH, batch_source=source(USERS_FILE))
    items = source(ITEMS_FILE)
    views = [
        FeatureView(
            name=name,
            entities=[user if name in USER_VIEWS else item],
            ttl=timedelta(0),  # a row never grows too old to be used
            schema=[Field(name=column, dtype=types.get(column, Int64)) for column in columns],
            source=pushed if name in USER_VIEWS else items,
            online=True,
        )
        for name, columns in COLUMNS.items()
    ]
    return [user, item, pushed, *views]
