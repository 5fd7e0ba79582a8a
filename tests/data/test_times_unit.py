from __future__ import annotations

from pathlib import Path

import pytest

from recsys.config import DataConfig
from recsys.data.readers import read_events
from recsys.errors import DataError


def test_times_that_all_lie_in_1970_but_fit_another_unit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text("user_id,item_id,timestamp\na,b,1404172800\na,c,1404259200\n")
    config = DataConfig(events=[str(path)], time_unit="ms")
    with pytest.raises(DataError, match=r"before 1980.*in s they go from 2014-07-01.*time_unit=s"):
        read_events(config)
    assert len(read_events(config.model_copy(update={"time_unit": "s"}))[0]) == 2


@pytest.mark.parametrize("clock", ["absolute", "relative"])
def test_small_numbers_that_fit_no_unit_stay_as_they_are(tmp_path: Path, clock: str) -> None:
    path = tmp_path / "e.csv"
    path.write_text("user_id,item_id,timestamp\na,b,3\na,c,7\n")
    config = DataConfig.model_validate({"events": [str(path)], "clock": clock})
    assert read_events(config)[0]["timestamp"].to_list() == [3, 7]
