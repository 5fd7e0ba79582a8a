from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines import index as stage
from pipelines.index import index, item_vectors, sample_queries
from pipelines.runs import folds, is_learned, last_fold, open_run
from recsys.config import ExperimentConfig, load_config
from recsys.data.sequences import SequenceStore, Split
from recsys.errors import ArtifactError
from recsys.manifest import read_manifest
from recsys.retrieval.index import load_index


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run tasks in this process; returns the titles of what was run."""
    titles: list[str] = []

    @contextmanager
    def no_session(config: object) -> Iterator[None]:
        yield

    def run_here(function: Callable[[Any], Any], items: list[Any], **options: Any) -> list[Any]:
        titles.append(options["title"])
        return [function(item) for item in items]

    monkeypatch.setattr(stage, "ray_session", no_session)
    monkeypatch.setattr(stage, "map_partitions", run_here)
    return titles


def test_the_index_holds_the_models_item_vectors_and_knows_its_recall(
    fitted_experiment: ExperimentConfig, without_ray: list[str]
) -> None:
    directory = index(fitted_experiment, "sasrec")
    run = open_run(fitted_experiment, "sasrec", "main")
    assert directory == fitted_experiment.workspace / "index" / run.directory.name
    built = load_index(directory)
    with torch.inference_mode():
        assert torch.equal(built.vectors, run.model.encode_items())  # type: ignore[operator]
    manifest = read_manifest(directory)
    assert manifest["recall"] == {"k": 25, "queries": 40, "recall": 1.0}
    assert (manifest["kind"], manifest["items"], manifest["width"]) == ("exact", 25, 16)
    # With 25 items all are candidates, so what is summed is the exact sum.
    assert manifest["log_z"]["queries"] == 40 and manifest["log_z"]["candidates"] == 500
    assert manifest["log_z"]["max_abs"] < 1e-5 and built.log_z == manifest["log_z"]
    assert (manifest["run"], manifest["model"], manifest["fold"]) == (
        run.directory.name,
        "sasrec",
        "main",
    )


def test_a_second_call_has_nothing_to_do(
    fitted_experiment: ExperimentConfig, without_ray: list[str]
) -> None:
    first = index(fitted_experiment, "sasrec")
    assert index(fitted_experiment, "sasrec") == first
    assert without_ray == ["index sasrec"]


def test_another_kind_of_index_is_built_anew(
    fitted_experiment: ExperimentConfig,
    without_ray: list[str],
    write_config: Callable[..., Path],
) -> None:
    directory = index(fitted_experiment, "sasrec")
    before = read_manifest(directory)["key"]
    changed = load_config(write_config(index={"kind": "exact", "probes": 3}))
    assert index(changed, "sasrec") == directory
    assert read_manifest(directory)["key"] != before
    assert len(without_ray) == 2


def test_a_model_that_is_not_trained_is_named(
    fitted_experiment: ExperimentConfig, write_config: Callable[..., Path]
) -> None:
    changed = load_config(write_config(seed=99))
    with pytest.raises(ArtifactError, match="sasrec is not trained with this configuration"):
        index(changed, "sasrec")


def test_queries_are_the_histories_of_validation_targets(
    fitted_experiment: ExperimentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_run(fitted_experiment, "sasrec", "main")
    with torch.inference_mode():
        assert sample_queries(run).shape == (40, 16)
        monkeypatch.setattr(stage, "RECALL_QUERIES", 7)
        few = sample_queries(run)
        assert few.shape == (7, 16)
        assert torch.equal(few, sample_queries(run))  # seeded


def test_items_are_encoded_in_blocks(
    fitted_experiment: ExperimentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_run(fitted_experiment, "sasrec", "main")
    with torch.inference_mode():
        whole = item_vectors(run)
        monkeypatch.setattr(stage, "ITEMS_AT_ONCE", 4)
        assert torch.equal(item_vectors(run), whole)
        assert whole.shape == (26, 16)


def test_folds_and_learned_models(write_config: Callable[..., Path]) -> None:
    plain = load_config(write_config())
    assert folds(plain) == ["main"]
    assert [is_learned(plain, name) for name in plain.models] == [False, False, True]
    rolling = load_config(write_config(split={"kind": "rolling", "folds": 3}))
    assert folds(rolling) == ["fold0", "fold1", "fold2"]
    assert last_fold(rolling) == "fold2"


def test_a_score_that_is_more_than_a_product_is_measured_against_full_ranking(
    fitted_experiment: ExperimentConfig,
    without_ray: list[str],
    write_config: Callable[..., Path],
    fit_model: Callable[..., None],
    tiny_store: SequenceStore,
    tiny_split: Split,
) -> None:
    lean = {"item_enhancement": False}  # no neighbours here
    models = {"unirec": {"kind": "unirec", "width": 8, "blocks": 1, "max_length": 6, **lean}}
    config = load_config(
        write_config(
            models={"pop": {"kind": "pop"}, **models},
            tracking={"enabled": False},
            index={"shortlist": 2},
        )
    )
    fit_model(config, "unirec", tiny_store, tiny_split)
    manifest = read_manifest(index(config, "unirec"))
    found = manifest["rescored"]
    assert (found["k"], found["queries"], found["shortlist"]) == (25, 40, 25)
    assert found["recall"] == 1.0  # a list of the whole catalogue misses nothing
    assert read_manifest(index(fitted_experiment, "sasrec"))["rescored"] is None
