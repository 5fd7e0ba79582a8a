from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from live_client import live
from tiny_bundle import make_bundle

from recsys.config import DataConfig
from recsys.data.readers import read_events
from recsys.errors import ArtifactError
from serving.export import write_events, write_impressions


def test_live_events_become_a_file_for_the_next_training(tmp_path: Path) -> None:
    with live(make_bundle(tmp_path), tmp_path / "state") as endpoint:
        shown = endpoint.ask(user_id="u07")["request_id"]
        endpoint.happen(("u07", "i05", 100), request_id=shown)
        endpoint.happen(("new", "i09", 50), ("new", "i09", 50))
        endpoint.happen(("gone", "i01", 7))
        endpoint.client.delete("/v1/users/gone")
        assert write_events(tmp_path / "state", tmp_path / "out" / "events.parquet") == 2
    found = pl.read_parquet(tmp_path / "out" / "events.parquet").rows()
    assert found == [("u07", "i05", 100, "click", shown), ("new", "i09", 50, "event", None)]


def test_what_was_shown_says_what_was_clicked(tmp_path: Path) -> None:
    with live(make_bundle(tmp_path), tmp_path / "state") as endpoint:
        answer = endpoint.ask(user_id="u07", k=3)
        items = [row["item_id"] for row in answer["items"]]
        endpoint.ask(history=["i05"], k=3)  # nobody's
        body = {"user_id": "u08", "steps": 2, "groups": 2, "beams": 1}
        longer = endpoint.client.post("/v1/playlists/continue", json=body).json()
        endpoint.happen(("u07", items[1], 100), request_id=answer["request_id"])
        endpoint.happen(("u07", items[0], 101))
    output = tmp_path / "shown.parquet"
    assert write_impressions(tmp_path / "state", output) == 3 + 4
    found = pl.read_parquet(output)
    mine = found.filter(user_id="u07")
    assert mine["item_id"].to_list() == items and mine["rank"].to_list() == [1, 2, 3]
    assert mine["clicked"].to_list() == [False, True, False]
    lists = [[row["item_id"] for row in one["items"]] for one in longer["lists"]]
    other = found.filter(request_id=longer["request_id"])
    assert other["item_id"].to_list() == [*lists[0], *lists[1]]
    assert other["rank"].to_list() == [1, 2, 1, 2]
    assert set(found["event_type"]) == {"impression"}


def test_both_files_train_together(tmp_path: Path) -> None:
    """The next training lists both files and takes what happened, each event once."""
    with live(make_bundle(tmp_path), tmp_path / "state") as endpoint:
        shown = endpoint.ask(user_id="u07", k=3)["request_id"]
        endpoint.happen(("u07", "i05", 100), request_id=shown)
        endpoint.happen(("u08", "i06", 101))
    files = [tmp_path / "events.parquet", tmp_path / "shown.parquet"]
    write_events(tmp_path / "state", files[0])
    write_impressions(tmp_path / "state", files[1])
    data = DataConfig.model_validate(
        {"events": list(map(str, files)), "filters": {"event_types": ["event", "click"]}}
    )
    kept = read_events(data)[0].select("user_id", "item_id", "timestamp").rows()
    assert kept == [("u07", "i05", 100), ("u08", "i06", 101)]


def test_nothing_makes_an_empty_file(tmp_path: Path) -> None:
    with live(make_bundle(tmp_path), tmp_path / "state"):
        pass
    assert write_impressions(tmp_path / "state", tmp_path / "none.parquet") == 0
    assert pl.read_parquet(tmp_path / "none.parquet").is_empty()


def test_another_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is no state directory"):
        write_events(tmp_path, tmp_path / "x.parquet")
