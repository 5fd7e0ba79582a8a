"""Gaps: the oracle of both modes, padding, clipping, and targets."""

from __future__ import annotations

import numpy as np

from features.intervals import gap_hours, hours_between, target_gap_hours

TIMES = np.array([0, 0, 1388534400, 1388538000, 1420070400])
REAL = TIMES > 0


def test_the_first_real_event_has_no_gap() -> None:
    assert gap_hours(TIMES, REAL).tolist() == [0, 0, 0, 1, 8759]


def test_the_reference_measures_it_from_the_padding() -> None:
    assert gap_hours(TIMES, REAL, "reference").tolist() == [0, 0, 8760, 1, 8759]


def test_rows_of_a_batch_do_not_mix() -> None:
    batch = np.stack([TIMES, np.arange(5) * 7200])
    real = np.stack([REAL, np.ones(5, dtype=bool)])
    assert gap_hours(batch, real).tolist() == [[0, 0, 0, 1, 8759], [0, 2, 2, 2, 2]]
    assert gap_hours(batch[1]).tolist() == [0, 2, 2, 2, 2]


def test_an_event_at_time_zero_is_no_padding() -> None:
    times = np.array([0, 0, 3600])
    assert gap_hours(times, np.array([False, True, True])).tolist() == [0, 0, 1]


def test_hours_are_cut_before_they_are_subtracted_and_clipped_after() -> None:
    earlier = np.array([3599, 3600, 7200, 0])
    later = np.array([3600, 7199, 3600, 10**10])
    assert hours_between(earlier, later).tolist() == [1, 0, 0, 8760]


def test_a_target_is_measured_from_its_input() -> None:
    inputs, targets = np.array([0, 3600, 7200]), np.array([3600, 7200, 7200 + 10 * 3600])
    assert target_gap_hours(inputs, targets).tolist() == [1, 1, 10]
