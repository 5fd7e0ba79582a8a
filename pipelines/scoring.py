"""A bundle as an MLflow model: `mlflow models serve` and batch jobs answer without our service.

A published bundle carries a file `MLmodel`, so the directory is a model of the `pyfunc` flavour as it
lies there: nothing is copied and nothing pickled. MLflow calls `_load_pyfunc` with the directory. It
needs this package where it runs (`--env-manager local`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipelines.environment import set_environment
from recsys import __version__

if TYPE_CHECKING:
    import pandas

    from recsys.recommender import Query

MLMODEL: Final = "MLmodel"
REQUIREMENTS: Final = "requirements.txt"
LENGTH: Final = 10
"""Items of a list, where the request names no `k`."""


class BundleModel:
    """What MLflow asks for predictions: one list for each row.

    A row has a `history` (item ids, oldest first) or a `user_id` of the bundle, and may have `times`, the
    seconds of its history's items (needed where the model reads times), and `exclude`, item ids that are
    not wanted. Rows of both kinds in one table have an empty list for what they have
    not, and None for no user. The parameter `k` is the length of the lists.
    """

    def __init__(self, path: Path) -> None:
        from recsys.bundle import load_bundle
        from recsys.recommender import Recommender

        self.recommender = Recommender(load_bundle(path))

    def predict(
        self, model_input: pandas.DataFrame, params: Mapping[str, Any] | None = None
    ) -> pandas.DataFrame:
        """Return, for each row, `items`, their `scores`, and `fallback`: why a list is the default one."""
        import pandas as pd

        k = int((params or {}).get("k") or LENGTH)
        queries = [_query(row, k) for row in model_input.to_dict("records")]
        answers = self.recommender.recommend(queries)
        return pd.DataFrame(
            {
                "items": [answer.items for answer in answers],
                "scores": [[float(score) for score in answer.scores] for answer in answers],
                "fallback": [answer.fallback for answer in answers],
            },
            index=model_input.index,
        )


def _load_pyfunc(path: str) -> BundleModel:
    """Return the model in a bundle's directory (MLflow's loader)."""
    return BundleModel(Path(path))


def _query(row: Mapping[str, Any], k: int) -> Query:
    from recsys.recommender import Query

    user = None if _is_missing(row.get("user_id")) else str(row["user_id"])
    history = _ids(row.get("history"))
    # MLflow takes no empty cell in a column of lists, so beside a user an empty list is no history.
    return Query(
        history=None if user is not None and not history else history,
        times=_seconds(row.get("times")),
        user_id=user,
        k=k,
        exclude=_ids(row.get("exclude")) or [],
    )


def _ids(value: Any) -> list[str] | None:
    return None if _is_missing(value) else [str(item) for item in value]


def _seconds(value: Any) -> list[int] | None:
    # An empty list beside a history is a cell that MLflow does not let be empty.
    return None if _is_missing(value) or not len(value) else [int(second) for second in value]


def _is_missing(value: Any) -> bool:
    """Tell whether a cell is empty: None, or the NaN that pandas puts there."""
    return value is None or (isinstance(value, float) and value != value)


def describe_model(bundle: Path, run_id: str | None) -> None:
    """Write `MLmodel` and the requirements into a bundle's directory, if they are not there yet.

    Raises:
        ImportError: MLflow is not installed.
    """
    if (bundle / MLMODEL).is_file():
        return
    set_environment()
    from mlflow import pyfunc
    from mlflow.models import Model

    requirements = bundle / REQUIREMENTS
    requirements.write_text(f"recsys=={__version__}\n", encoding="utf-8")
    model = Model(run_id=run_id, signature=signature())
    pyfunc.add_to_model(model, loader_module="pipelines.scoring")
    aside = bundle / f".{MLMODEL}"
    model.save(str(aside))
    aside.replace(bundle / MLMODEL)


def signature() -> Any:
    """Return what a bundle takes and gives, in MLflow's words."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array

    ids = Array(DataType.string)
    return ModelSignature(
        inputs=Schema(
            [
                ColSpec(ids, "history", required=False),
                ColSpec(Array(DataType.long), "times", required=False),
                ColSpec(DataType.string, "user_id", required=False),
                ColSpec(ids, "exclude", required=False),
            ]
        ),
        outputs=Schema(
            [
                ColSpec(ids, "items"),
                ColSpec(Array(DataType.double), "scores"),
                ColSpec(DataType.string, "fallback", required=False),
            ]
        ),
        params=ParamSchema([ParamSpec("k", DataType.long, LENGTH)]),
    )
