"""MLflow as the dashboard reads it: nothing is made, nothing is written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from serving.dashboard.registry import CHAMPION, Registry, read_registry, tracking_uri

# Of SQLAlchemy, as MLflow uses it.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output directory in whose database a model is registered and is the champion."""
    from mlflow.tracking import MlflowClient

    output = tmp_path_factory.mktemp("registered")
    uri = tracking_uri(output)
    client = MlflowClient(uri, uri)
    client.create_registered_model("music")
    made = client.create_model_version("music", str(output), tags={"bundle": str(output)})
    client.set_registered_model_alias("music", CHAMPION, made.version)
    return output


def test_a_registered_model_is_found_by_its_alias_and_no_folder_is_made(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    before = (database / "mlflow.db").read_bytes()
    found = read_registry(tracking_uri(database))
    assert found.problem is None
    champion = found.named("music", CHAMPION)
    assert champion is not None and champion.version == "1"
    assert list(tmp_path.iterdir()) == []  # MLflow makes the folder of a plain sqlite address
    assert (database / "mlflow.db").read_bytes() == before


def test_a_database_that_is_not_there_is_told_and_not_made(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    found = read_registry(uri)
    assert found == Registry(uri, problem=found.problem)
    assert "nothing was recorded there yet" in str(found.problem)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_a_problem_in_words(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"no database at all")
    found = read_registry(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert "does not answer" in str(found.problem)
    assert found.versions == ()


def test_what_pages_draw_with_is_imported_before_anybody_can_ask() -> None:
    asked = (
        "import sys; from serving.dashboard.server import _import_pages; _import_pages(); "
        "print([m for m in ('pandas', 'plotly', 'pyarrow.parquet', 'serving.dashboard.views.compare')"
        " if m not in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
