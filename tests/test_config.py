from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from recsys.config import (
    ContinuationSplit,
    ExperimentConfig,
    GlobalTimeSplit,
    LeaveOneOutSplit,
    MarkovConfig,
    ModelConfig,
    PopularityConfig,
    RollingSplit,
    SASRecConfig,
    UniRecConfig,
    dump_config,
    load_config,
    parse_config,
)
from recsys.errors import ConfigError

MINIMAL: dict[str, Any] = {
    "name": "mine",
    "data": {"events": ["events.csv"]},
    "models": {"pop": {"kind": "pop"}},
}


def raw_with(path: str, value: Any) -> dict[str, Any]:
    """Return MINIMAL with one value set at a dotted place."""
    raw = copy.deepcopy(MINIMAL)
    node = raw
    *parents, leaf = path.split(".")
    for parent in parents:
        node = node.setdefault(parent, {})
    node[leaf] = value
    return raw


def write(tmp_path: Path, raw: Any) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(raw if isinstance(raw, str) else yaml.safe_dump(raw), encoding="utf-8")
    return path


def test_the_least_configuration_has_all_defaults() -> None:
    config = parse_config(MINIMAL)
    assert isinstance(config.split, GlobalTimeSplit)
    assert config.models == {"pop": PopularityConfig()}
    assert config.evaluation.ks == [1, 5, 10, 20]
    assert config.data.target == "next_event"


@pytest.mark.parametrize(
    ("place", "near"),
    [
        ("sed", "seed"),
        ("data.evnts", "events"),
        ("data.filters.min_user_event", "min_user_events"),
        ("data.on_problem.bad_time", "bad_times"),
        ("evaluation.bootstraps", "bootstrap"),
        ("ray.worker", "workers"),
        ("tracking.url", "uri"),
    ],
)
def test_an_unknown_key_names_the_nearest_valid_one(place: str, near: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(raw_with(place, 1), "mine.yaml")
    message = str(caught.value)
    assert message.startswith("mine.yaml is not valid:")
    assert f"{place}: unknown key; did you mean '{near}'?" in message


@pytest.mark.parametrize(
    ("section", "key", "near"),
    [
        ("split", "tests", "test"),
        ("models.deep", "widht", "width"),
        ("models.deep", "training.epoch", "epochs"),
        ("models.deep", "training.loss.negative", "negatives"),
        ("models.flat", "half_lif", "half_life"),
    ],
)
def test_an_unknown_key_inside_a_union_names_that_kinds_keys(
    section: str, key: str, near: str
) -> None:
    raw = copy.deepcopy(MINIMAL)
    raw["split"] = {"kind": "global_time"}
    raw["models"] = {"deep": {"kind": "sasrec"}, "flat": {"kind": "markov"}}
    node = raw
    for part in f"{section}.{key}".split(".")[:-1]:
        node = node.setdefault(part, {})
    node[key.rsplit(".", maxsplit=1)[-1]] = 1
    with pytest.raises(ConfigError, match=f"did you mean '{near}'"):
        parse_config(raw)


def test_every_problem_is_listed_at_once() -> None:
    raw = copy.deepcopy(MINIMAL)
    raw |= {"sede": 1, "index": {"kind": "magic"}, "seed": -1}
    with pytest.raises(ConfigError) as caught:
        parse_config(raw)
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert any("index.kind" in line and "'magic'" in line and "'hnsw'" in line for line in lines)
    assert any("seed" in line and "-1" in line for line in lines)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("models", {}),
        ("models.pop.kind", "popular"),
        ("split.kind", "random"),
        ("name", "with space"),
        ("name", "../elsewhere"),
        ("split", {"kind": "global_time", "test": 1.5}),
        ("data.time_unit", "minutes"),
        ("evaluation.level", 1.0),
        ("models.deep", {"kind": "sasrec", "width": 65, "heads": 2}),
        *(("evaluation.ks", value) for value in ([], [0], [5, 5, -1], [5, 5], [True], [2.5])),
        *(("evaluation.exclude", value) for value in (0, -3, True, 1.5, "sen")),
        *(("evaluation.splits", value) for value in ([], ["test", "test"], ["train"])),
        *((f"ray.{key}", value) for key in ("workers", "partitions") for value in (0, -2, True)),
        *(("models", {name: {"kind": "pop"}}) for name in ("a/b", "../x", "", "a b", ".a")),
        ("evaluation.baseline", "nope"),
        ("publish.model", "nope"),
    ],
)
def test_values_that_are_not_allowed(place: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(raw_with(place, value))
    first, *lines = str(caught.value).splitlines()
    assert first == "configuration is not valid:"
    for line in lines:  # the place is as the file says it, down to the part that is wrong
        assert line.startswith(f"  {place}") and "Value error" not in line


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("evaluation.ks", [10, 1]),
        ("evaluation.exclude", 3),
        ("evaluation.exclude", "none"),
        ("evaluation.baseline", "pop"),
        ("publish.model", "pop"),
        ("ray.workers", 2),
        ("ray.partitions", "auto"),
    ],
)
def test_values_at_the_edge_of_what_is_allowed(place: str, value: Any) -> None:
    section, key = place.split(".")
    assert getattr(getattr(parse_config(raw_with(place, value)), section), key) == value


DEEP = {"kind": "sasrec"}


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (
            {"models": {"deep": DEEP | {"dim": 3, "heads": 1}}},
            "models.deep.dim: unknown key. Allowed for kind sasrec: baskets, block, blocks, "
            "dropout, ffn, heads, kind, max_length, normalise, positions, text, training, width.",
        ),
        (
            {"models": {"deep": DEEP | {"training": {"loss": {"knd": 1}}}}},
            "models.deep.training.loss.knd: unknown key; did you mean 'kind'? Allowed here: "
            "against, alpha, gbce_t, kind, label_smoothing, logq, memory_mb, negatives, sampler, share, "
            "temperature.",
        ),
        (
            {"models": {"deep": DEEP | {"width": 16, "heads": 3}}},
            "models.deep: width (16) must be a multiple of heads (3)",
        ),
        (
            {"models": {"deep": DEEP | {"width": "wide"}}},
            "models.deep.width: Input should be a valid integer, unable to parse string as an "
            "integer (got 'wide')",
        ),
        (
            {"models": {"mine": {"kind": "unirec"}}, "features": {"neighbours_kept": 4}},
            "models.mine.kept_neighbours: is 10, but features.neighbours_kept makes 4 for each item; "
            "raise that, or keep fewer",
        ),
        (
            {"models": {"flat": {"history": 3}}},
            "models.flat.kind: missing; add one of pop, own_pop, markov, lag_markov, item_knn, "
            "neighbour_votes, bag_of_tokens, text_vectors, sasrec, tisasrec, unirec, seq2seq, set, "
            "recformer",
        ),
        (
            {"split": {"kind": "leave_on_out"}},
            "split.kind: 'leave_on_out' is not known; did you mean 'leave_one_out'? Allowed here: "
            "global_time, leave_one_out, last_n, rolling, continuation.",
        ),
        (
            {"split": {"n": 3}},
            "split.n: unknown key. Allowed for kind global_time: cold_items, kind, test, test_from, "
            "validation, validation_from.",
        ),
        (
            {"evaluation": {"exclude": 0}},
            "evaluation.exclude: Input should be 'seen' or 'none'; or: Input should be greater "
            "than or equal to 1 (got 0)",
        ),
        (
            {"evaluation": {"ks": [3, 5, 3]}},
            "evaluation.ks: each value once, but 3 is repeated (got [3, 5, 3])",
        ),
        (
            {"evaluation": {"baseline": "nope"}},
            "evaluation.baseline: 'nope' is no model of this configuration; it has pop",
        ),
        (
            {"data": {"events": ["a"], "clock": "none"}},
            "split.kind: global_time compares times between users, but data.clock is none; use "
            "leave_one_out, last_n or continuation",
        ),
        (
            {"data": {"filters": {"event_types": [["a"]]}}},
            "data.filters.event_types.0: Input should be a valid string (got ['a'])",
        ),
    ],
)
def test_an_error_says_the_place_the_value_and_what_is_allowed(
    raw: dict[str, Any], line: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(MINIMAL | raw)
    assert str(caught.value) == f"configuration is not valid:\n  {line}"


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


def test_overrides_are_typed_and_nested(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL)
    config = load_config(
        path,
        [
            "seed=7",
            "split.kind=leave_one_out",
            "evaluation.ks=[3, 4]",
            "models.deep={kind: sasrec, width: 32}",
            "models.deep.training.lr=3.0e-4",
            "data.filters.start=2024-01-01T00:00:00",
            "tracking.uri=sqlite:///some.db",
            f"output={tmp_path}/elsewhere",
            "publish.model=null",
        ],
    )
    assert config.seed == 7
    assert config.split == LeaveOneOutSplit()
    assert config.evaluation.ks == [3, 4]
    deep = config.models["deep"]
    assert isinstance(deep, SASRecConfig)
    assert (deep.width, deep.training.lr) == (32, 3e-4)
    assert config.tracking.uri == "sqlite:///some.db"
    assert config.workspace == tmp_path / "elsewhere" / "mine"
    assert config.publish.model is None
    assert list(config.models) == ["pop", "deep"]


def test_overrides_of_a_section_that_is_not_there_and_of_text_that_is_no_yaml(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, MINIMAL)
    config = load_config(path, ["split.test=0.2", "data.time_format=%Y: %m"])
    assert config.split == GlobalTimeSplit(test=0.2)
    assert config.data.time_format == "%Y: %m"
    assert load_config(path, ["data.time_format=%Y"]).data.time_format == "%Y"
    with pytest.raises(ConfigError, match=r"seed: .*valid integer.*got '\[1'"):
        load_config(path, ["seed=[1"])


@pytest.mark.parametrize("override", ["seed", "=3", "name.first=x"])
def test_an_override_that_says_nothing_is_refused(override: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="override"):
        load_config(write(tmp_path, MINIMAL), [override])


def test_an_override_is_checked_like_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'seed'"):
        load_config(write(tmp_path, MINIMAL), ["sead=3"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [1", "not valid YAML"),
        ("- a\n- b\n", "mapping"),
        ("", "mapping"),
        ("just text", "mapping"),
    ],
)
def test_a_file_that_is_no_configuration(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, content))


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9t\xe9\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(tmp_path / "latin.yaml")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml does not exist"):
        load_config(tmp_path / "nowhere.yaml")
    write(tmp_path, MINIMAL)
    with pytest.raises(ConfigError, match=rf"nowhere\.yaml .*; {tmp_path} holds mine\.yaml$"):
        load_config(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match=rf"{tmp_path} is a directory; name a YAML file in it"):
        load_config(tmp_path)


def test_the_file_is_never_executed(tmp_path: Path) -> None:
    path = write(tmp_path, "name: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(path)


def test_sections_cannot_be_changed() -> None:
    config = parse_config(MINIMAL)
    with pytest.raises(ValidationError):
        config.seed = 3  # type: ignore[misc]


def test_the_workspace_is_absolute_and_relative_to_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_config(MINIMAL).workspace == tmp_path / "out" / "mine"


models = st.one_of(
    st.builds(MarkovConfig, history=st.integers(1, 99), half_life=st.none() | st.floats(0.1, 9)),
    st.builds(
        SASRecConfig,
        width=st.integers(1, 32).map(lambda n: 2 * n),
        dropout=st.floats(0, 0.9),
        block=st.sampled_from(["prenorm", "ligr"]),
    ),
)
splits = st.one_of(
    st.builds(GlobalTimeSplit, test=st.floats(0.01, 0.9), test_from=st.none() | st.just("2024")),
    st.builds(RollingSplit, folds=st.integers(1, 9)),
    st.builds(LeaveOneOutSplit),
)


@given(model=models, split=splits, seed=st.integers(0, 2**40))
def test_what_is_dumped_loads_to_an_equal_configuration(
    model: ModelConfig, split: Any, seed: int
) -> None:
    base = parse_config(MINIMAL)
    config = base.model_copy(update={"models": {"m": model}, "split": split, "seed": seed})
    again = parse_config(yaml.safe_load(dump_config(config)))
    assert again == config
    assert isinstance(again, ExperimentConfig)


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
