"""Names that more than one file writes or reads: columns, reserved ids, file names."""

from __future__ import annotations

from typing import Final, Literal

PAD: Final = 0
"""The reserved item index; real items are 1..n_items, so an item table has n_items + 1 rows."""

USER: Final = "user_id"
ITEM: Final = "item_id"
TIMESTAMP: Final = "timestamp"
POSITION: Final = "position"
BASKET: Final = "basket_id"
WEIGHT: Final = "weight"
EVENT_TYPE: Final = "event_type"

EVENT_COLUMNS: Final = (USER, ITEM, TIMESTAMP, POSITION, BASKET, WEIGHT, EVENT_TYPE)

Kind = Literal["users", "lists"]
Clock = Literal["absolute", "relative", "none"]
TargetKind = Literal["next_event", "next_basket", "rest"]
SplitName = Literal["validation", "test"]
