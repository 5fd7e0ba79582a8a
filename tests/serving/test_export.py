from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from live_client import live
from tiny_bundle import make_bundle

from recsys.errors import ArtifactError
from serving.export import write_events


def test_live_events_become_a_file_for_the_next_training(tmp_path: Path) -> None:
    with live(make_bundle(tmp_path), tmp_path / "state") as endpoint:
        shown = endpoint.ask(user_id="u07")["request_id"]
        endpoint.happen(("u07", "i05", 100), request_id=shown)
        endpoint.happen(("new", "i09", 50), ("new", "i09", 50))
        endpoint.happen(("gone", "i01", 7))
        endpoint.client.delete("/v1/users/gone")
        assert write_events(tmp_path / "state", tmp_path / "out" / "events.parquet") == 2
    found = pl.read_parquet(tmp_path / "out" / "events.parquet").rows()
    assert found == [("u07", "i05", 100, shown), ("new", "i09", 50, None)]


def test_another_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is no state directory"):
        write_events(tmp_path, tmp_path / "x.parquet")
