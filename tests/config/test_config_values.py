"""Keys and values: what is allowed, and what an error says."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from written_config import DEEP, MINIMAL, raw_with

from recsys.config import GlobalTimeSplit, PopularityConfig, parse_config
from recsys.errors import ConfigError


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
