"""What is known of a user at this moment: the bundle's or the feature store's history, and live events.

A live event is in the very next answer, whether or not the feature store has it yet: the store's row
names the newest event in it, and what came later is added from the ledger.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

import numpy as np

from features.online import KEEP, UserState
from features.user_rows import UserRow
from recsys.bundle import Bundle
from serving.feature_reader import FeatureReader
from serving.ledger import Ledger

BUNDLE, STORE, LIVE = "bundle", "feature_store", "live_events"
"""Where a history comes from; live events alone are those of a user who is new."""


@dataclass(frozen=True)
class Known:
    """A user's history, in external ids.

    Attributes:
        items: the newest events, oldest first.
        times: their seconds, None where the data have no clock.
        before: items of all older events, oldest first.
        source: `bundle`, `feature_store` or `live_events`.
    """

    items: list[str]
    times: list[int] | None
    before: list[str]
    source: str


class Users:
    """The users of one endpoint.

    Args:
        ledger: of live events; None where the endpoint takes none.
        reader: of the feature store; None without one.
    """

    def __init__(self, ledger: Ledger | None, reader: FeatureReader | None) -> None:
        self._ledger = ledger
        self._reader = reader

    async def history(self, user: str, bundle: Bundle) -> Known | None:
        """Return what is known of a user beyond the bundle; None if that is nothing.

        Then the bundle's own history of the user is all there is.
        """
        live = [] if self._ledger is None else self._ledger.events_of(user)
        deleted = self._ledger is not None and self._ledger.is_deleted(user)
        stored = None
        if self._reader is not None and not deleted:
            stored = await self._reader.user(user)
        if stored is None and not live and not deleted:
            return None
        seen: list[str] = []
        row, source = UserRow(), LIVE
        if not deleted:
            row, seen = bundle_row(bundle, user)
            source = BUNDLE if row.state.items else LIVE
        if stored is not None:
            row, source = stored, STORE
        row = row.after(live, max(KEEP, len(row.state.items)))
        state, every = row.state, seen + [event.item for event in live]
        items = [str(item) for item in state.items]
        times = list(state.times) if state.times else None
        return Known(items, times, _without(every, items), source)


def bundle_row(bundle: Bundle, user: str) -> tuple[UserRow, list[str]]:
    """Return the row of a user as a bundle knows it, and the items of all its events, oldest first."""
    if bundle.user_ids is None or bundle.recent is None or bundle.seen is None:
        return UserRow(), []
    index = int(bundle.user_ids.encode([user])[0])
    if index < 0:
        return UserRow(), []
    recent, seen = bundle.recent, bundle.seen
    part = slice(int(recent.offsets[index]), int(recent.offsets[index + 1]))
    items = bundle.item_ids.decode(recent.items[part])
    times = None if recent.timestamps is None else np.asarray(recent.timestamps[part])
    whole = seen.items[int(seen.offsets[index]) : int(seen.offsets[index + 1])]
    state = UserState.of_history(items, times, keep=max(KEEP, len(items)))
    return UserRow(state), bundle.item_ids.decode(whole)


def _without(every: list[str], newest: list[str]) -> list[str]:
    """Return `every` without those of `newest`, which are taken away from its end."""
    left = Counter(newest)
    older: Final[list[str]] = []
    for item in reversed(every):
        if left[item] > 0:
            left[item] -= 1
        else:
            older.append(item)
    return older[::-1]
