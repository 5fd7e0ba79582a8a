"""What the prepare stage refuses before it starts Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from made_log import config_of, make_log, write_log

from pipelines import prepare as stage
from pipelines.prepare import prepare
from recsys.errors import ConfigError, DataError


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a session would be opened."""

    def refuse(config: object) -> None:
        pytest.fail("Ray was started")

    monkeypatch.setattr(stage, "ray_session", refuse)


@pytest.mark.usefixtures("no_ray")
def test_empty_files_are_refused(tmp_path: Path) -> None:
    log = make_log(10).clear()
    log.write_csv(tmp_path / "events.csv")
    for file in (*write_log(log, tmp_path, 1), str(tmp_path / "events.csv")):
        with pytest.raises(DataError, match=rf"no events were read: {file} has no rows"):
            prepare(config_of(tmp_path, [file]))


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ({"columns": {"user_id": "customer"}}, DataError, "has no column 'customer'"),
        ({"time_unit": "text"}, ConfigError, "the times are numbers"),
        ({"target": "next_basket"}, ConfigError, "the events have no baskets"),
        ({"attributes": ["colour"]}, DataError, r"items\.csv has no column 'colour'"),
    ],
)
def test_what_the_first_rows_tell_is_told_before_ray_starts(
    tmp_path: Path, data: dict[str, Any], error: type[Exception], message: str
) -> None:
    (tmp_path / "items.csv").write_text("item_id,title\n1,a\n")
    files = write_log(make_log(30), tmp_path)
    config = config_of(tmp_path, files, data={"items": [str(tmp_path / "items.csv")], **data})
    with pytest.raises(error, match=message):
        prepare(config)
    assert not config.workspace.exists()


@pytest.mark.usefixtures("no_ray")
def test_a_wrong_unit_is_told_from_the_first_rows(tmp_path: Path) -> None:
    log = make_log(3000).with_columns(timestamp=pl.col("timestamp") * 1000)
    with pytest.raises(DataError) as caught:
        prepare(config_of(tmp_path, write_log(log, tmp_path, 1)))
    message = str(caught.value)
    assert "set data.time_unit=ms" in message
    assert "These are all of the first 1,000 rows" in message
