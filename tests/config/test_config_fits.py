"""Settings that must fit one another."""

from __future__ import annotations

from typing import Any

import pytest
from written_config import DEEP, MINIMAL, raw_with

from recsys.config import (
    ContinuationSplit,
    GlobalTimeSplit,
    LeaveOneOutSplit,
    RollingSplit,
    SASRecConfig,
    UniRecConfig,
    parse_config,
)
from recsys.errors import ConfigError


def test_what_does_not_fit_together_is_listed_at_once() -> None:
    raw = MINIMAL | {"evaluation": {"baseline": "a"}, "publish": {"model": "b"}}
    with pytest.raises(ConfigError) as caught:
        parse_config(raw)
    places = [line.split(":")[0] for line in str(caught.value).splitlines()[1:]]
    assert places == ["  evaluation.baseline", "  publish.model"]


def test_gbce_wants_negatives_that_it_can_count() -> None:
    loss = {"kind": "gbce", "sampler": "in_batch"}
    with pytest.raises(ConfigError, match=r"models\.deep\.training\.loss: kind gbce .* in_batch"):
        parse_config(raw_with("models.deep", DEEP | {"training": {"loss": loss}}))
    for allowed in ({"kind": "bce"}, {"sampler": "popularity"}):
        parse_config(raw_with("models.deep", DEEP | {"training": {"loss": loss | allowed}}))


@pytest.mark.parametrize(
    ("training", "says"),
    [
        (
            {"objective": "next_basket_set", "loss": {"kind": "bpr"}},
            r"training: objective next_basket_set learns a whole set, but loss.kind bpr .* use one of "
            r"set_softmax, set_mass, set_plackett_luce, set_bce, or objective: next_basket",
        ),
        (
            {"objective": "next_basket", "loss": {"kind": "set_mass"}},
            r"loss.kind set_mass is of sets, but objective next_basket predicts one item",
        ),
        (
            {"loss": {"against": "sampled"}},
            r"loss.against sampled is of sets, but objective next_event predicts one item",
        ),
        (
            {"objective": "rest_set", "loss": {"kind": "softmax"}},
            r"objective rest_set learns a whole set, but loss.kind softmax is of one item",
        ),
        (
            {"objective": "next_basket_set", "loss": {"kind": "set_bce", "against": "all"}},
            r"training.loss: kind set_bce draws its negatives; leave `against` out",
        ),
        (
            {"objective": "next_basket_set", "loss": {"kind": "set_mass", "sampler": "in_batch"}},
            r"training.loss: kind set_mass learns sets.*sampler: uniform or popularity",
        ),
        (
            {"objective": "next_basket_set", "loss": {"kind": "set_sofmax"}},
            r"loss.kind: .*'set_softmax'.* \(got 'set_sofmax'\)",
        ),
    ],
)
def test_a_loss_of_sets_goes_with_the_objective_of_sets(
    training: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_config(raw_with("models.deep", DEEP | {"training": training}))


def test_every_loss_of_sets_can_be_asked_for() -> None:
    for kind in ("auto", "set_softmax", "set_mass", "set_plackett_luce", "set_bce"):
        training = {"objective": "next_basket_set", "loss": {"kind": kind}}
        config = parse_config(
            raw_with("models.deep", DEEP | {"baskets": "set", "training": training})
        )
        assert config.models["deep"].training.loss.kind == kind  # type: ignore[union-attr]


@pytest.mark.parametrize("clock", ["relative", "none"])
@pytest.mark.parametrize("split", ["global_time", "rolling"])
def test_splits_by_time_need_a_clock_that_users_share(clock: str, split: str) -> None:
    raw = raw_with("data.clock", clock) | {"split": {"kind": split}}
    with pytest.raises(ConfigError, match="use leave_one_out, last_n or continuation"):
        parse_config(raw)
    parse_config(raw | {"split": {"kind": "leave_one_out"}})


@pytest.mark.parametrize(
    ("split", "kind"),
    [
        ({"kind": "leave_one_out"}, LeaveOneOutSplit),
        ({"kind": "rolling", "folds": 4}, RollingSplit),
        ({"kind": "continuation", "hide": "random"}, ContinuationSplit),
        ({"kind": "global_time", "test_from": "2024-01-01"}, GlobalTimeSplit),
        ({"test": 0.2}, GlobalTimeSplit),
    ],
)
def test_the_kind_chooses_the_section(split: dict[str, Any], kind: type) -> None:
    assert type(parse_config(MINIMAL | {"split": split}).split) is kind


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"separate_interval": True, "calendar": False}, "separate_interval: .* one branch alone"),
        ({"interval_context": "own", "block": "ligr"}, "interval_context: own is of a mixture"),
        ({"mode": "reference", "gaps": "log"}, "gaps: .*; use hours, or mode: corrected"),
        ({"calendar_features": ["hour", "day", "hour"]}, "calendar_features: hour twice"),
        ({"drawn_neighbours": 11}, "drawn_neighbours: 11 of the 10"),
    ],
)
def test_what_has_no_effect_is_refused_in_an_experiment(
    settings: dict[str, Any], says: str
) -> None:
    model = {"kind": "unirec", **settings}
    with pytest.raises(ConfigError, match=rf"models\.mine\.{says}"):
        parse_config(MINIMAL | {"models": {"mine": model}})
    UniRecConfig(**settings)  # as a bundle of before has it


@pytest.mark.parametrize(("mode", "places"), [("add", True), ("only", True), ("initialise", False)])
@pytest.mark.parametrize("kind", [SASRecConfig, UniRecConfig])
def test_a_model_of_texts_says_whether_it_places_new_ones(
    kind: type[SASRecConfig | UniRecConfig], mode: str, places: bool
) -> None:
    """A bundle takes along what that needs."""
    text = {"vectors": {"source": "tokens", "width": 64}, "mode": mode}
    assert kind(text=text).places_texts is places  # type: ignore[arg-type]
    assert not kind().places_texts
