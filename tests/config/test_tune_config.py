"""The section `tune`: what it may say of the configured models, and how settings are put into them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recsys.config import (
    Range,
    SASRecConfig,
    apply_settings,
    load_config,
    parse_config,
    setting_of,
)
from recsys.errors import ConfigError

LR = {"log_uniform": [1e-4, 1e-2]}


def parse(space: dict[str, Any], **tune: Any) -> Any:
    again = {"kind": "seq2seq", "task": "reconstruct"}
    models = {"pop": {"kind": "pop"}, "sasrec": {"kind": "sasrec"}, "again": again}
    raw = {"name": "x", "data": {"events": ["a.csv"]}, "models": models}
    return parse_config({**raw, "tune": {"space": space, **tune}})


def test_a_space_of_every_kind_of_values() -> None:
    space = {
        "training.lr": LR,
        "dropout": {"uniform": [0, 0.5]},
        "width": {"choice": [32, 64]},
        "blocks": {"integers": [1, 3]},
    }
    tune = parse({"sasrec": space}).tune
    assert tune.chosen == ["sasrec"] and tune.space["sasrec"]["width"].edges == [32, 64]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"sasrec": {"training.lrr": LR}}, r"tune\.space\.sasrec\.training\.lrr: .*mean 'lr'"),
        ({"sasrec": {"widht": {"choice": [8]}}}, r"tune\.space\.sasrec\.widht: .*mean 'width'"),
        ({"sasrec": {"width.x": {"choice": [8]}}}, r"no settings inside 64"),
        ({"sasrec": {"training.loss": {"choice": [8]}}}, r"no single value"),
        ({"sasrec": {"training.epochs": {"integers": [1, 2]}}}, r"set by tune\.epochs"),
        ({"sasrec": {"dropout": {"uniform": [0, 1]}}}, r"dropout: .*less than 1.*dropout=1\.0"),
        ({"sasrec": {"width": {"choice": [63, 64]}}}, r"width \(63\) must be a multiple"),
        (
            {"sasrec": {"width": {"choice": [64, 66]}, "heads": {"choice": [2, 4]}}},
            r"width \(66\) must be a multiple of heads \(4\) \(with width=66, heads=4\)",
        ),
        ({"sasrecc": {"width": {"choice": [8]}}}, r"no model 'sasrecc'; did you mean 'sasrec'"),
        ({"pop": {"kind": {"choice": ["pop"]}}}, r"kind pop is counted.*only learned models"),
        ({"again": {"training.lr": LR}}, r"task is reconstruct.*with task: continue or both"),
        ({"sasrec": {"width": {}}}, r"exactly one of uniform.*got none"),
        ({"sasrec": {"width": {"choice": [8], "integers": [1, 2]}}}, r"got integers, choice"),
        ({"sasrec": {"dropout": {"uniform": [0.5, 0.1]}}}, r"0\.5 must be below 0\.1"),
        ({"sasrec": {"training.lr": {"log_uniform": [0, 0.1]}}}, r"has no logarithm"),
    ],
)
def test_what_is_wrong_with_a_space_is_said_with_its_place(
    space: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(space)


def test_models_to_compare_need_a_space() -> None:
    with pytest.raises(ConfigError, match=r"tune\.models: no model 'other'"):
        parse({"sasrec": {"training.lr": LR}}, models=["other"])
    raw = {
        "name": "x",
        "data": {"events": ["a.csv"]},
        "models": {"one": {"kind": "sasrec"}, "two": {"kind": "sasrec"}},
        "tune": {"space": {"one": {"training.lr": LR}}, "models": ["one", "two"]},
    }
    with pytest.raises(ConfigError, match=r"'two' has no settings in tune\.space"):
        parse_config(raw)


def test_settings_are_put_in_their_places_and_validated() -> None:
    model = apply_settings(SASRecConfig(), {"training.loss.negatives": 7, "width": 32})
    assert isinstance(model, SASRecConfig)
    assert (model.training.loss.negatives, model.width) == (7, 32)
    assert setting_of(model, "training.loss.negatives") == 7
    assert apply_settings(model, {}) == model


def test_a_range_knows_its_values() -> None:
    assert Range(choice=["a", None]).holds(None)
    assert Range(uniform=(0, 1)).holds(0.5) and not Range(uniform=(0, 1)).holds("x")
    assert not Range(integers=(1, 3)).holds(4)


def test_on_and_off_are_words_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "words.yaml"
    path.write_text(
        "name: on\ndata: {events: [a.csv]}\nrefit: yes\nindex: {gpu: off}\n"
        "models: {s: {kind: sasrec, normalise: on, training: {compile: off}}}\n"
        "features: {neighbours: on}\n"
    )
    config = load_config(path, ["tracking.enabled=off"])
    assert (config.name, config.refit, config.index.gpu) == ("on", True, "off")
    assert config.features.neighbours == "on" and not config.tracking.enabled
    model = config.models["s"]
    assert isinstance(model, SASRecConfig) and model.normalise and model.training.compile == "off"
