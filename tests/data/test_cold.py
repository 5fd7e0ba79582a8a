"""Items that are hidden from training: which events go, and what the windows are then."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.config import LeaveOneOutSplit, RollingSplit
from recsys.data.cold import choose_cold, events_kept, without
from recsys.data.splits import Fold, Runs, check_split, make_split, windows
from recsys.errors import ConfigError

COLD = np.array([False, False, True, False, True])  # items 2 and 4


def split_of(histories: list[list[int]]) -> tuple[list[int], Runs, object]:
    items = np.array([i for h in histories for i in h], dtype=np.int32)
    runs = Runs(np.cumsum([0, *map(len, histories)]).astype(np.int64))
    chosen = windows(runs, Fold("main"), LeaveOneOutSplit(), "users", "next_event", None, seed=0)
    kept = events_kept(runs, items, COLD, chosen.test[0])
    smaller, moved = without(runs, chosen, kept)
    return items[kept].tolist(), smaller, make_split(smaller, moved, "next_event")


def test_cold_events_stay_only_where_the_test_asks_for_them() -> None:
    left, runs, split = split_of([[1, 2, 3, 1, 4], [3, 1, 2, 1], [2, 4], [2, 4, 2]])
    # Of [2, 4], too short to be tested, nothing may train; of the last user only the test is left.
    assert left == [1, 3, 1, 4, 3, 1, 1, 2]
    assert runs.offsets.tolist() == [0, 4, 7, 7, 8]
    assert split.train_end.tolist() == [2, 6, 7, 7]  # type: ignore[attr-defined]
    assert split.test.user.tolist() == [0, 1, 3]  # type: ignore[attr-defined]
    assert split.test.start.tolist() == [3, 6, 7]  # type: ignore[attr-defined]
    # The second user's validation target was cold: they have none.
    assert split.validation.start.tolist() == [2]  # type: ignore[attr-defined]
    assert split.refit_end.tolist() == [3, 6, 7, 7]  # type: ignore[attr-defined]


def test_the_choice_is_seeded_exact_and_never_pad() -> None:
    chosen = choose_cold(1000, 0.1, seed=3)
    assert chosen.sum() == 100 and not chosen[0]
    assert (chosen == choose_cold(1000, 0.1, seed=3)).all()
    assert (chosen != choose_cold(1000, 0.1, seed=4)).any()


def test_rolling_folds_have_no_cold_items() -> None:
    with pytest.raises(ConfigError, match=r"split\.cold_items .* use another split\.kind"):
        check_split(RollingSplit(cold_items=0.1), "absolute")
