"""Splits: which events of a user (or list) train, and what validation and test ask for.

Every split comes down to three windows of each run of events: what trains (always a prefix of the
run), what validates, what tests; the kind of target then says how a window is asked for. All functions
work on the users of one partition, with positions counted from the partition's first event; only the
cuts (`plan_folds`) are taken over all partitions.

What is what:

- `global_time`, `rolling` with `kind: users`: an event belongs to the window its moment falls into, so
  nothing trains that is as new as the cut. The moment of an event is its time; with
  `target: next_basket`, where baskets stay whole, the newest time of its basket.
- the same with `kind: lists`, and `continuation`: a list trains, validates or tests as a whole, by its
  first moment (`continuation` without an absolute clock: by a seeded draw). The first event of a
  held-out list (for `continuation`: its visible part) is given, the rest is asked for.
- `leave_one_out`, `last_n`: the last n targets (events, or baskets) test, the n before validate; users
  with fewer than 2n + 1 only train. With `target: rest` the n events are one target.

The catalogue and, where they are on, the k-core filters (`min_user_events`, `min_item_events`) are
made of all events, test included, before the split; the field `chosen_over_all_events_test_included`
of `leakage.json` names them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.config import ContinuationSplit, GlobalTimeSplit, LastNSplit, RollingSplit, SplitConfig
from recsys.data.ordering import places, run_starts, seeded_hash, stable_order
from recsys.data.quantile import Distribution
from recsys.data.sequences import Int32, Int64, Split, Targets
from recsys.data.times import moment
from recsys.errors import ConfigError
from recsys.schema import Clock, Kind, TargetKind


@dataclass(frozen=True)
class Runs:
    """The events of a partition's users, user-major and oldest first.

    Attributes:
        offsets: int64 [U + 1], local: user u owns `offsets[u]:offsets[u + 1]`, at least one event.
        first_user: dense index of the partition's first user.
        timestamps: int64 [E] seconds, or None.
        baskets: int32 [E], contiguous and numbered within a user, or None.
    """

    offsets: Int64
    first_user: int = 0
    timestamps: Int64 | None = None
    baskets: Int32 | None = None

    @property
    def users(self) -> Int64:
        """Dense indices of the users, int64 [U]."""
        return np.arange(len(self.offsets) - 1, dtype=np.int64) + self.first_user

    def owner(self) -> Int64:
        """Return the local user of every event, int64 [E]."""
        return np.repeat(np.arange(len(self.offsets) - 1, dtype=np.int64), np.diff(self.offsets))

    def basket_starts(self) -> Int64:
        """Return the positions where a basket begins, ascending."""
        if self.baskets is None:
            raise ValueError("the events have no baskets")
        return np.flatnonzero(run_starts([self.owner(), self.baskets])).astype(np.int64)

    def times(self) -> Int64:
        """Return the times; an error where there are none."""
        if self.timestamps is None:
            raise ValueError("the events have no times")
        return self.timestamps

    def moments(self, whole_baskets: bool) -> Int64:
        """Return the moment of every event, int64 [E]; it never falls within a run.

        It is the event's time (its basket's newest time, if `whole_baskets`), or that of an event
        before it, where baskets that overlap in time brought a newer one to the front.
        """
        times = self.times()
        if whole_baskets:
            starts = self.basket_starts()
            lengths = np.diff(np.append(starts, len(times)))
            times = np.repeat(np.maximum.reduceat(times, starts), lengths) if len(times) else times
        falls = times[1:] < times[:-1]
        falls[self.offsets[1:-1] - 1] = False  # from one user to the next
        if not falls.any():
            return times
        frame = pl.DataFrame({"user": self.owner(), "time": times})
        newest: Int64 = frame.select(pl.col("time").cum_max().over("user")).to_series().to_numpy()
        return newest


@dataclass(frozen=True)
class Fold:
    """Where the keys (see `cut_keys`) are cut: validation is `validation_from <= key < test_from`,
    test is `test_from <= key` and, in a rolling fold, `key < test_until`.
    """

    name: str
    validation_from: int = 0
    test_from: int = 0
    test_until: int | None = None


@dataclass(frozen=True)
class Windows:
    """Local positions [U]: `offsets:train_end` trains, `validation` and `test` are (from, to).

    `offsets:refit_end` trains when a model is fitted again for the test.
    """

    train_end: Int64
    refit_end: Int64
    validation: tuple[Int64, Int64]
    test: tuple[Int64, Int64]


def check_split(split: SplitConfig, clock: Clock, has_baskets: bool = False) -> None:
    """Raise `ConfigError` where the split cannot be made of data with this clock and baskets."""
    if split.kind in ("global_time", "rolling") and clock != "absolute":
        raise ConfigError(
            f"split.kind {split.kind} compares times between users, but data.clock is {clock}; "
            "use leave_one_out, last_n or continuation"
        )
    if isinstance(split, RollingSplit) and (split.folds + 1) * split.window >= 1:
        raise ConfigError(
            f"split: {split.folds} folds of {split.window} and a window to validate the first leave "
            "nothing to train on; (folds + 1) * window must be below 1"
        )
    if isinstance(split, RollingSplit) and split.cold_items:
        raise ConfigError(
            "split.cold_items drops the events before the test, which in rolling folds are another "
            "fold's test; use another split.kind"
        )
    if isinstance(split, ContinuationSplit) and split.hide == "random" and has_baskets:
        raise ConfigError(
            "split.hide random would tear baskets apart; use hide: last, or leave the baskets out"
        )


def cuts_by(split: SplitConfig, kind: Kind, clock: Clock) -> str | None:
    """Return what the cuts are made of: `moments`, `starts` (of lists), `draws`, or None for no cuts."""
    if isinstance(split, GlobalTimeSplit | RollingSplit):
        return "moments" if kind == "users" else "starts"
    if isinstance(split, ContinuationSplit):
        return "starts" if clock == "absolute" else "draws"
    return None


def cut_keys(runs: Runs, by: str, target: TargetKind, seed: int) -> Int64:
    """Return the numbers that are cut: one per event (`moments`) or one per list."""
    if by == "draws":
        return seeded_hash(seed, runs.users)
    if by == "starts":
        return runs.times()[runs.offsets[:-1]]
    return runs.moments(whole_baskets=target == "next_basket")


def plan_folds(split: SplitConfig, keys: Distribution | None, time_unit: str) -> list[Fold]:
    """Return the folds with their cuts; shares are taken exactly, over the keys of all partitions."""
    if keys is None:
        return [Fold("main")]
    if isinstance(split, RollingSplit):
        back = [keys.newest(split.window * j) for j in range(split.folds + 1, 0, -1)]
        until = [*back[2:], None]
        return [Fold(f"fold{f}", back[f], back[f + 1], until[f]) for f in range(split.folds)]
    if not isinstance(split, GlobalTimeSplit | ContinuationSplit):
        raise ValueError(f"split {split.kind} has no cuts")
    given_test = getattr(split, "test_from", None)
    given_validation = getattr(split, "validation_from", None)
    test = (
        keys.newest(split.test)
        if given_test is None
        else moment(given_test, time_unit, "split.test_from")
    )
    if keys.below(test) == 0:
        raise ConfigError(
            f"split: nothing lies before the test cut; the data begin at {keys.low} s"
        )
    if given_validation is None:
        return [Fold("main", keys.newest(split.validation, before=test), test)]
    validation = moment(given_validation, time_unit, "split.validation_from")
    if validation > test:
        raise ConfigError(f"split.validation_from {given_validation!r} lies after the test cut")
    return [Fold("main", validation, test)]


def windows(
    runs: Runs,
    fold: Fold,
    split: SplitConfig,
    kind: Kind,
    target: TargetKind,
    by: str | None,
    seed: int,
) -> Windows:
    """Return what trains, validates and tests of every user in this fold."""
    if by is None:
        n = split.n if isinstance(split, LastNSplit) else 1
        return _last_windows(runs, n, target)
    keys = cut_keys(runs, by, target, seed)
    if by == "moments":
        return _time_windows(runs, fold, keys)
    begin, end = runs.offsets[:-1], runs.offsets[1:]
    if isinstance(split, ContinuationSplit):
        given = given_counts(end - begin, split)
    else:
        given = np.minimum(1, end - begin)
    tests = keys >= fold.test_from
    if fold.test_until is not None:
        tests &= keys < fold.test_until
    validates = (keys >= fold.validation_from) & (keys < fold.test_from)

    def held_out(chosen: npt.NDArray[np.bool_]) -> tuple[Int64, Int64]:
        return np.where(chosen, begin + given, end), end

    train_end = np.where(keys < fold.validation_from, end, begin)
    refit_end = np.where(keys < fold.test_from, end, begin)
    return Windows(train_end, refit_end, held_out(validates), held_out(tests))


def _time_windows(runs: Runs, fold: Fold, moments: Int64) -> Windows:
    def position(cut: int) -> Int64:
        before = np.concatenate([[0], np.cumsum(moments < cut)])
        inside: Int64 = before[runs.offsets[1:]] - before[runs.offsets[:-1]]
        return runs.offsets[:-1] + inside

    validation, test = position(fold.validation_from), position(fold.test_from)
    until = runs.offsets[1:] if fold.test_until is None else position(fold.test_until)
    return Windows(validation, test, (validation, test), (test, until))


def _last_windows(runs: Runs, n: int, target: TargetKind) -> Windows:
    end = runs.offsets[1:]
    if target == "next_basket":
        starts = np.append(runs.basket_starts(), runs.offsets[-1])
        unit_end = np.searchsorted(starts, end)
        units = np.diff(np.searchsorted(starts, runs.offsets))
        enough = units >= 2 * n + 1
        test = starts[np.where(enough, unit_end - n, unit_end)]
        validation = starts[np.where(enough, unit_end - 2 * n, unit_end)]
    else:
        enough = np.diff(runs.offsets) >= 2 * n + 1
        test, validation = np.where(enough, end - n, end), np.where(enough, end - 2 * n, end)
    return Windows(validation, test, (validation, test), (test, end))


def given_counts(lengths: Int64, split: ContinuationSplit) -> Int64:
    """Return how many events of each held-out list are given: `split.given`, or what is not hidden."""
    if split.given is None:
        return lengths - hidden_counts(lengths, split.hidden)
    given: Int64 = np.minimum(split.given, lengths)
    return given


def hidden_counts(lengths: Int64, share: float) -> Int64:
    """Return how many events of each list are hidden: `share` rounded, at least one, leaving one.

    A list of one event cannot be continued: nothing of it is hidden.
    """
    rounded = np.floor(lengths * share + 0.5).astype(np.int64)
    most = np.maximum(lengths - 1, 0)
    hidden: Int64 = np.minimum(np.maximum(rounded, np.minimum(1, most)), most)
    return hidden


def visible_first(runs: Runs, hidden: Int64, seed: int) -> Int64:
    """Return the order of events in which a seeded choice of `hidden` [U] events of each run is last.

    Otherwise the order stays.
    """
    owner = runs.owner()
    draw = seeded_hash(
        seed + 1, owner + runs.first_user, places(owner)
    )  # + 1: not the draw of lists
    by_draw = stable_order([owner, draw])
    is_hidden = np.empty(len(owner), dtype=np.int8)
    is_hidden[by_draw] = places(owner) < hidden[owner]
    return stable_order([owner, is_hidden])


def targets_of(runs: Runs, window: tuple[Int64, Int64], target: TargetKind) -> Targets:
    """Return what is asked for in a window (from, to) of each user, by user, then time.

    `next_event`: every event; `next_basket`: every basket that begins in the window; `rest`: the
    window as a whole, unless it is empty.
    """
    begin, end = window
    if target == "rest":
        return _targets(runs, np.flatnonzero(end > begin), begin[end > begin], end[end > begin])
    starts = runs.basket_starts() if target == "next_basket" else None
    low, high = (begin, end) if starts is None else np.searchsorted(starts, [begin, end])
    number = np.maximum(high - low, 0)
    user = np.repeat(np.arange(len(number)), number)
    place = places(user) + np.repeat(low, number)
    if starts is None:
        return _targets(runs, user, place, place + 1)
    return _targets(runs, user, starts[place], np.append(starts, runs.offsets[-1])[place + 1])


def _targets(runs: Runs, local_user: Int64, start: Int64, end: Int64) -> Targets:
    return Targets((local_user + runs.first_user).astype(np.int32), start, end)


def make_split(runs: Runs, chosen: Windows, target: TargetKind) -> Split:
    """Return the partition's part of a fold, positions local."""
    validation, test = (targets_of(runs, w, target) for w in (chosen.validation, chosen.test))
    return Split(chosen.train_end, validation, test, chosen.refit_end)


def join_splits(parts: Iterable[tuple[Split, int]]) -> Split:
    """Return the whole fold of `(part, position of its first event in the store)`, in order."""
    shifted = [
        Split(
            part.train_end + base,
            _shift(part.validation, base),
            _shift(part.test, base),
            None if part.refit_end is None else part.refit_end + base,
        )
        for part, base in parts
    ]
    refit_ends = [part.refit_end for part in shifted if part.refit_end is not None]
    return Split(
        np.concatenate([part.train_end for part in shifted]),
        _join([part.validation for part in shifted]),
        _join([part.test for part in shifted]),
        np.concatenate(refit_ends) if len(refit_ends) == len(shifted) else None,
    )


def _shift(targets: Targets, base: int) -> Targets:
    return Targets(targets.user, targets.start + base, targets.end + base)


def _join(parts: list[Targets]) -> Targets:
    return Targets(
        np.concatenate([part.user for part in parts]),
        np.concatenate([part.start for part in parts]),
        np.concatenate([part.end for part in parts]),
    )
