from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.registry import TRACKING, registry_address
from recsys.errors import ConfigError


def test_the_registry_is_that_of_the_environment_or_of_the_output_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(TRACKING, raising=False)
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI does not say where"):
        registry_address()
    database = tmp_path / "out" / "mlflow.db"
    database.parent.mkdir()
    database.touch()
    assert registry_address() == f"sqlite:///{database}"
    monkeypatch.setenv(TRACKING, "http://127.0.0.1:5000")
    assert registry_address() == "http://127.0.0.1:5000"
