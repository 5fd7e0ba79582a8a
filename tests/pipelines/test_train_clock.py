"""A training that compares the times of different users is refused where the clock does not carry it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.train import train
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
