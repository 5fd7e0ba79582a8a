"""Every YAML in configs/: it loads, means what it says, and the data of the small ones run through."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from pipelines.stages import run_experiment
from pipelines.study_cells import Study
from recsys.bundle import load_bundle
from recsys.config import (
    ExperimentConfig,
    RayConfig,
    RecformerConfig,
    dump_config,
    is_study,
    load_config,
    load_pretrain_config,
    load_study_config,
    parse_config,
    parse_pretrain_config,
    parse_study_config,
)
from recsys.data.catalogue import find_preset
from recsys.published import find_bundle

PRETRAININGS = ("recformer_base", "recformer_pretrain")
STUDIES = ("unirec_study", "unirec_searched")
FILES = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
CONFIGS = [path for path in FILES if path.stem not in (*PRETRAININGS, *STUDIES)]
NAMES = [path.stem for path in CONFIGS]


@pytest.mark.parametrize("path", CONFIGS, ids=NAMES)
def test_it_loads_and_is_named_like_its_file(path: Path) -> None:
    config = load_config(path)
    expected = "mine" if path.stem == "own_data" else path.stem
    assert config.name == expected  # so that results of two files never share a directory


@pytest.mark.parametrize("path", CONFIGS, ids=NAMES)
def test_it_survives_being_stored_with_an_output(path: Path) -> None:
    config = load_config(path)
    again = parse_config(yaml.safe_load(dump_config(config)))
    assert again == config
    assert isinstance(again, ExperimentConfig)


@pytest.mark.parametrize("path", CONFIGS, ids=NAMES)
def test_its_preset_exists_and_its_clock_fits_the_split(path: Path) -> None:
    config = load_config(path)
    if config.data.preset is None:
        assert config.data.events, "without a preset the files must be named"
        return
    fields = find_preset(config.data.preset).fields
    if config.split.kind in ("global_time", "rolling"):
        assert fields["clock"] == "absolute"
    target = config.data.target if "target" in config.data.model_fields_set else None
    objectives = {
        model.training.objective for model in config.models.values() if hasattr(model, "training")
    }
    if (target or fields.get("target")) == "next_basket":
        assert "next_basket" in objectives


@pytest.mark.parametrize("path", CONFIGS, ids=NAMES)
def test_it_measures_what_the_house_reports(path: Path) -> None:
    config = load_config(path)
    assert 10 in config.evaluation.ks, "HR@10 and NDCG@10 are the figures of every table"
    learned = any(hasattr(model, "training") for model in config.models.values())
    floors = learned and not path.stem.startswith("continuation")
    assert {"pop", "markov", *(["sasrec"] if floors else [])} <= config.models.keys()
    baseline = config.evaluation.baseline
    assert baseline is None or baseline in config.models


@pytest.mark.parametrize("name", PRETRAININGS)
def test_a_pretraining_loads_and_its_domains_exist(name: str) -> None:
    [path] = [path for path in FILES if path.stem == name]
    config = load_pretrain_config(path)
    assert config.name == name
    for domain in config.domains:
        assert path.parents[1] / domain in FILES
    again = parse_pretrain_config(yaml.safe_load(dump_config(config)))
    assert again == config


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_loads_and_its_experiments_fit(name: str) -> None:
    [path] = [path for path in FILES if path.stem == name]
    config = load_study_config(path)
    assert (config.name, is_study(path)) == (name, True)
    assert not any(is_study(other) for other in CONFIGS)
    assert all(path.parents[1] / experiment in FILES for experiment in config.sets.values())
    assert parse_study_config(yaml.safe_load(dump_config(config))) == config
    assert Study(config).cells()


def test_what_is_tuned_has_the_shape_of_what_was_pretrained() -> None:
    by_name = {path.stem: path for path in FILES}
    encoder = load_pretrain_config(by_name["recformer_pretrain"]).encoder
    found = []
    for name in ("recformer_scientific", "recformer_zero_shot", "recformer_movielens"):
        model = load_config(by_name[name]).models["recformer"]
        assert isinstance(model, RecformerConfig)
        assert model.encoder.model_copy(update={"item_tokens": None}) == encoder
        found.append(model.lexical)
    assert found[0] is not None and found[0] == found[1] == found[2]


def test_the_names_are_all_different() -> None:
    names = [load_config(path).name for path in CONFIGS]
    assert len(set(names)) == len(names) == len(CONFIGS)


SMALL = {"width": 16, "heads": 1, "blocks": 1, "max_length": 8}
SIZES: dict[str, dict[str, Any]] = {
    "seq2seq": {"width": 16, "hidden": 16, "max_length": 8},
    "set": {"encoder": {"kind": "sif", "width": 16}, "max_length": 8},
}
LEARNED = {
    "continuation_grateful_dead": ["sasrec_set"],
    "grateful_dead": ["sasrec"],
    "online_retail": ["sasrec"],
    "unirec_30music": ["unirec_published"],
    "playlists_grateful_dead": ["bow_sif", "bi_seq2seq"],
}
"""Whose learned models are trained here as well: lists, baskets, times. tests/test_readme.py trains the
demo's."""
RUN = [
    path
    for path in CONFIGS
    if not path.stem.startswith(("unirec", "playlists", "continuation", "30music_", "recformer"))
    or path.stem in LEARNED
]
"""The others mean data that another configuration means as well, or go on from a pre-training, which
tests/pipelines tests."""


def shrunk(path: Path, files: Any, output: Path) -> ExperimentConfig:
    """Return the configuration on the tiny log, meaning what its own data mean, with less to do."""
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    preset = raw["data"].get("preset")
    meaning = (dict(find_preset(preset).fields) if preset else {}) | raw["data"]
    kept = ("kind", "clock", "target", "basket_minutes")
    raw["data"] = {"events": [str(files.events)], "items": [str(files.items)]}
    raw["data"] |= {key: meaning[key] for key in kept if meaning.get(key) is not None}
    raw["output"] = str(output)
    raw["evaluation"] |= {"bootstrap": 100, "permutations": 100}
    raw["tracking"] = {"enabled": False}
    raw.pop("tune", None)  # of models that are left out below
    for name, model in list(raw["models"].items()):
        if name in LEARNED.get(path.stem, []):
            sizes = SIZES.get(model["kind"], SMALL)
            raw["models"][name] = {**model, **sizes, "training": {**model["training"], "epochs": 1}}
        elif "training" in model:
            del raw["models"][name]
        for holder in (model, model.get("text", {})):
            if (holder.get("vectors") or {}).get("width") is not None:
                holder["vectors"]["width"] = 16  # a few items have few directions
    if raw["evaluation"].get("baseline") not in raw["models"]:
        raw["evaluation"].pop("baseline", None)
    if (tested := raw.get("order_test")) and tested["model"] not in raw["models"]:
        tested["model"] = "markov"
    return parse_config(raw)


@pytest.fixture(scope="module")
def one_ray() -> Iterator[None]:
    from pipelines.ray_session import ray_session

    with ray_session(RayConfig(workers=1, object_store_mb=80)):
        yield


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("one_ray")
@pytest.mark.parametrize("path", RUN, ids=[path.stem for path in RUN])
def test_it_runs_from_raw_files_to_a_bundle(path: Path, tiny_files: Any, tmp_path: Path) -> None:
    config = shrunk(path, tiny_files, tmp_path)
    out = io.StringIO()
    run_experiment(config, Console(file=out, width=120))
    bundle = load_bundle(find_bundle(config.workspace / "bundles"))
    assert bundle.name.startswith(f"{config.name}-")
    for model in config.models:
        assert re.search(rf"^ *{model} +[01]\.\d{{4}}", out.getvalue(), re.MULTILINE)
