"""`warm_start`: which runs it is part of, what it refuses, and that training goes on from the bundle."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from pipelines.fitting import fit_model
from pipelines.run_keys import run_key
from pipelines.warm_start import (
    LEARNED_UNTIL,
    check_warm_start,
    first_held_out,
    newest_learned,
    read_facts,
    warm_bundle,
)
from recsys.bundle import write_bundle
from recsys.config import (
    ExperimentConfig,
    GlobalTimeSplit,
    MarkovConfig,
    SASRecConfig,
    UniRecConfig,
    parse_config,
)
from recsys.data.sequences import SequenceStore, Split, TrainingData
from recsys.errors import ConfigError, DataError
from recsys.models import EncoderModel, build_model
from recsys.retrieval.index import build_index

Write = Callable[..., Path]


def bundle_of(folder: Path, items: pl.DataFrame, config: Any, **info: Any) -> Path:
    """Write the bundle of a model of some of the tiny log's items, with seeded weights."""
    torch.manual_seed(5)
    model = build_model(config, len(items))
    index = None
    if isinstance(model, EncoderModel):
        with torch.no_grad():
            index = build_index(parse_index(), model.eval().encode_items())
    return write_bundle(
        folder,
        name="earlier",
        model=model,
        model_config=config,
        items=items.with_columns(item=np.arange(1, len(items) + 1, dtype=np.int32)),
        users=None,
        store=None,
        index=index,
        popularity=np.arange(len(items) + 1),
        info=info,
    )


def parse_index() -> Any:
    from recsys.config import IndexConfig

    return IndexConfig()


@pytest.fixture
def bundle(fitted_experiment: ExperimentConfig, tiny_items: pl.DataFrame, tmp_path: Path) -> Path:
    """Of the experiment's SASRec, without the last five items."""
    return bundle_of(tmp_path / "old", tiny_items.head(20), fitted_experiment.models["sasrec"])


def warm(config: ExperimentConfig, bundle: Path, **changes: Any) -> ExperimentConfig:
    raw = config.model_dump(mode="json") | {"warm_start": str(bundle)}
    raw["models"]["sasrec"].update(changes.pop("sasrec", {}))
    return parse_config({**raw, **changes})


def test_it_is_part_of_the_key_of_what_it_concerns(
    fitted_experiment: ExperimentConfig, bundle: Path
) -> None:
    config = warm(fitted_experiment, bundle)
    assert run_key(config, "pop") == run_key(fitted_experiment, "pop")
    assert run_key(config, "sasrec") != run_key(fitted_experiment, "sasrec")
    assert warm_bundle(config, "sasrec") == bundle and warm_bundle(config, "pop") is None
    for refit in (False, True):
        check_warm_start(config, "sasrec", "main", refit=refit)


def test_training_goes_on_from_the_bundle(
    fitted_experiment: ExperimentConfig, bundle: Path, tmp_path: Path
) -> None:
    """With next to no learning rate the trained model is the bundle's, with new items placed."""
    training = {"epochs": 1, "lr": 1e-12, "batch_size": 16, "device": "cpu"}
    config = warm(fitted_experiment, bundle, sasrec={"training": training})
    fit_model(config, "sasrec", "main", tmp_path / "fit")
    found = load_file(tmp_path / "fit" / "model.safetensors")
    before = load_file(bundle / "model.safetensors")
    torch.testing.assert_close(
        found["item_table.weight"][:21], before["item_table.weight"], atol=1e-6, rtol=0
    )
    torch.testing.assert_close(
        found["blocks.0.attention.qkv.weight"], before["blocks.0.attention.qkv.weight"],
        atol=1e-6, rtol=0,
    )  # fmt: skip
    facts = read_facts(tmp_path / "fit")
    assert facts is not None and facts["bundle"] == bundle.name.split("@")[1]
    # Five are new; the last has no event, and no word that tells it from the others.
    assert facts["items"] == {
        "learned": 20, "unchanged": 0, "by_events": 4, "by_texts": 0, "drawn": 1, "dropped": 0,
    }  # fmt: skip


def test_a_directory_of_bundles_is_no_bundle(
    fitted_experiment: ExperimentConfig, bundle: Path
) -> None:
    with pytest.raises(ConfigError, match=r"is no bundle .* not a directory of them"):
        warm_bundle(warm(fitted_experiment, bundle.parent), "sasrec")


def test_another_kind_is_refused(
    fitted_experiment: ExperimentConfig, tiny_items: pl.DataFrame, tmp_path: Path
) -> None:
    other = bundle_of(tmp_path, tiny_items, MarkovConfig())
    with pytest.raises(ConfigError, match=r"kind markov, but .* are sasrec \(kind sasrec\)"):
        run_key(warm(fitted_experiment, other), "sasrec")


def test_other_settings_are_named(fitted_experiment: ExperimentConfig, bundle: Path) -> None:
    config = warm(fitted_experiment, bundle, sasrec={"width": 32, "heads": 2, "dropout": 0.5})
    with pytest.raises(
        ConfigError, match=r"width is 32 instead of 16, heads is 2 instead of 1; give"
    ):
        check_warm_start(config, "sasrec", "main", refit=False)


@pytest.mark.parametrize(
    ("had", "wanted"),
    [("neighbours", "own_and_neighbours"), ("own_and_neighbours", "neighbours")],
)
def test_a_setting_that_a_dump_leaves_out_is_named(
    fitted_experiment: ExperimentConfig,
    tiny_items: pl.DataFrame,
    tmp_path: Path,
    had: str,
    wanted: str,
) -> None:
    small: dict[str, Any] = {"width": 8, "heads": 2, "blocks": 1, "max_length": 6}
    one, other = (UniRecConfig(**small, item_teacher=which) for which in (had, wanted))  # type: ignore[arg-type]
    config = fitted_experiment.model_copy(
        update={"models": fitted_experiment.models | {"unirec": other}}
    )
    config = warm(config, bundle_of(tmp_path, tiny_items, one))
    with pytest.raises(ConfigError, match=f"item_teacher is '{wanted}' instead of '{had}'; give"):
        check_warm_start(config, "unirec", "main", refit=False)


def test_a_bundle_that_learned_what_is_held_out_is_refused(
    fitted_experiment: ExperimentConfig,
    tiny_items: pl.DataFrame,
    tiny_store: SequenceStore,
    tmp_path: Path,
) -> None:
    times = np.asarray(tiny_store.timestamps)
    cut = int(np.quantile(times, 0.8))
    ends = tiny_store.offsets[:-1] + np.array(
        [int((times[a:b] < cut).sum()) for a, b in pairwise(tiny_store.offsets)]
    )
    users = np.arange(tiny_store.n_users, dtype=np.int32)
    there = ends < tiny_store.offsets[1:]
    from recsys.data.sequences import Targets

    held = Targets(users[there], ends[there], ends[there] + 1)
    split = Split(ends, held, held, ends)
    split.save(fitted_experiment.workspace / "prepared" / "splits" / "main")
    config = fitted_experiment.model_copy(update={"split": GlobalTimeSplit()})
    newest = newest_learned(config, tiny_store, ends)
    first = first_held_out(config, tiny_store, split, refit=False)
    assert newest == times[times < cut].max() and first is not None and first >= cut
    sasrec = fitted_experiment.models["sasrec"]
    for name, until in (("honest", newest), ("leaky", first)):
        path = bundle_of(tmp_path / name, tiny_items, sasrec, **{LEARNED_UNTIL: until})
        asked = warm(config, path)
        if name == "honest":
            check_warm_start(asked, "sasrec", "main", refit=False)
        else:
            with pytest.raises(
                DataError, match=r"learned from events until .* validation begins at"
            ):
                check_warm_start(asked, "sasrec", "main", refit=False)


def test_where_moments_do_not_compare_it_is_said(
    fitted_experiment: ExperimentConfig, bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    check_warm_start(warm(fitted_experiment, bundle), "sasrec", "main", refit=False)
    assert "cannot be told" in caplog.text
    store = fitted_experiment.workspace / "features" / "sequences"
    loaded = SequenceStore.load(store)
    data = TrainingData(loaded, loaded.offsets[1:])
    assert newest_learned(fitted_experiment, loaded, data.train_end) is None  # leave_one_out
    assert isinstance(fitted_experiment.models["sasrec"], SASRecConfig)
