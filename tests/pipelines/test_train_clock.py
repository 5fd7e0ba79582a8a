"""A training that reads times is refused where the clock, or the times themselves, do not carry it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from features.clock import judge, observe
from pipelines.statistics import NEIGHBOURS
from pipelines.train import train
from pipelines.training_times import check_training_times
from recsys.config import parse_config
from recsys.errors import ConfigError
from recsys.manifest import write_manifest


@pytest.mark.parametrize("clock", ["relative", "none"])
def test_recency_needs_an_absolute_clock(tmp_path: Path, clock: str) -> None:
    config = parse_config(
        {
            "name": "shop",
            "output": str(tmp_path),
            "data": {"events": ["events.csv"], "clock": clock},
            "split": {"kind": "leave_one_out"},
            "models": {"sasrec": {"kind": "sasrec", "training": {"recency_half_life": 30}}},
        }
    )
    for stage in ("prepared", "features"):
        (config.workspace / stage).mkdir(parents=True)
        facts = {"key": "k", "config": {"data": {"clock": clock}}}
        write_manifest(config.workspace / stage, facts)
    with pytest.raises(ConfigError) as caught:
        train(config, "sasrec")
    assert "models.sasrec.training.recency_half_life is 30 days" in str(caught.value)
    assert f"data.clock is {clock}" in str(caught.value)
    assert not (config.workspace / "runs").exists()


@pytest.mark.parametrize(
    ("times", "refused"),
    [
        ([5, 5, 5, 5], ["calendar", "frequency_by", "interval", "sequence_enhancement"]),
        ([5, 5, 9, 9], ["interval", "sequence_enhancement"]),
        ([5, 7, 9, 12], []),
    ],
)
def test_times_that_say_nothing_carry_nothing(
    tmp_path: Path, times: list[int], refused: list[str]
) -> None:
    """Two users with two events each, whose training is asked for by the clock that they really have."""
    model = {"kind": "unirec", "width": 8, "heads": 2}
    config = parse_config(
        {
            "name": "shop",
            "output": str(tmp_path),
            "data": {"events": ["events.csv"], "clock": "absolute"},
            "split": {"kind": "leave_one_out"},
            "models": {"unirec": model},
        }
    )
    report = judge("absolute", observe(np.array([0, 0, 1, 1]), np.array(times, dtype=np.int64)))
    for stage in ("prepared", "features", NEIGHBOURS):
        (config.workspace / stage).mkdir(parents=True)
        facts = {"key": "k", "config": {"data": {"clock": "absolute"}}}
        write_manifest(config.workspace / stage, facts | {"clock": {"main": report.to_dict()}})
    if not refused:
        check_training_times(config, "unirec", "main")
        return
    with pytest.raises(ConfigError) as caught:
        train(config, "unirec")
    first, *lines = str(caught.value).splitlines()
    assert first.endswith(", which cannot carry:")
    assert ("one and the same time" in first) == (len(set(times)) == 1)
    assert sorted(line.split()[0].removeprefix("models.unirec.") for line in lines) == refused
    assert not (config.workspace / "runs").exists()
