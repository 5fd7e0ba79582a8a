"""Which bundle an alias of the MLflow registry names: `models:/NAME@ALIAS`."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Final

from pipelines.environment import set_environment
from recsys.errors import ArtifactError, ConfigError, MissingExtraError
from recsys.published import REGISTRY

FORM: Final = re.compile(r"models:/+([^@/]+)@([^@/]+)")
TRACKING: Final = "MLFLOW_TRACKING_URI"


def alias_of(text: str) -> tuple[str, str] | None:
    """Return the name and the alias that a text means, None if it is none of that form."""
    found = FORM.fullmatch(text)
    return None if found is None else (found[1], found[2])


def bundle_of_alias(name: str, alias: str, cache: Path) -> Path:
    """Return the bundle that an alias names, fetched into `cache` if it does not lie on this machine.

    Raises:
        ConfigError: MLFLOW_TRACKING_URI does not say where the registry is, and there is none in `out/`.
        ArtifactError: the registry cannot be reached, or has no such alias.
    """
    uri = registry_address()
    set_environment()
    try:
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ModuleNotFoundError as error:
        raise MissingExtraError("mlflow", "track") from error
    for library in ("alembic", "mlflow.store.db.utils"):  # they narrate every table they look at
        logging.getLogger(library).setLevel(logging.WARNING)
    try:
        version = MlflowClient(uri, uri).get_model_version_by_alias(name, alias)
        if version.source.startswith("file:"):
            from urllib.request import url2pathname

            return Path(url2pathname(version.source.removeprefix("file://")))
        bundle = cache / Path(version.tags.get("bundle", version.source)).name
        if not bundle.exists():
            cache.mkdir(parents=True, exist_ok=True)
            download_artifacts(artifact_uri=version.source, dst_path=str(cache), tracking_uri=uri)
        return bundle
    except MlflowException as error:
        raise ArtifactError(
            f"the registry has no model {name!r} with the alias {alias!r}, or does not answer "
            f"({type(error).__name__}); `recsys publish` registers one"
        ) from error


def registry_address() -> str:
    """Return the address of the registry: of the environment, or the database where stages put it."""
    if TRACKING in os.environ:
        return os.environ[TRACKING]
    database = Path("out") / REGISTRY
    if database.is_file():
        return f"sqlite:///{database.absolute()}"
    raise ConfigError(
        f"{TRACKING} does not say where the registry is, and there is no {database}; set it, as in "
        "sqlite:////data/out/mlflow.db"
    )
