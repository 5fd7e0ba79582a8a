"""A request that breaks a rule is told the place, the value, what is allowed and what to do."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from tiny_bundle import make_bundle

from serving.app import create_app
from serving.errors import BODIES, MAX_PROBLEMS
from serving.problems import NESTED
from serving.rules import ALLOWED, ALLOWED_INSIDE, MAX_IDS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # newer Starlette would have httpx2; httpx serves both
    from fastapi.testclient import TestClient

ID = "a text of 1 to 512 characters, or a whole number"
IDS = f"a list of at most 10000 ids, each {ID}"
LISTS = "a list of at most 100 lists, oldest first, each of 1 or more ids, 10000 ids in all"
EVENT = '{"item": "a", "time": 1767225600}'
KEYS = (
    "history, baskets, previous, user_id, exclude, allow, exclude_seen, repeat_window, k, strategy, "
    "diversity, groups, beams, candidates, steps"
)
LIMIT = 9007199254740992
TIME = f"seconds since 1970, a whole number from {-LIMIT} to {LIMIT}"
NEAR = "did you mean 'time'?"
MANY = ["x"] * (MAX_IDS + 1)
HEADER = "with the header content-type: application/json"
INSIDE = ("pydantic", "Input should", "str-", "int-", "function-", "tagged", "loc", ".py", "Extra")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    bundle = make_bundle(tmp_path_factory.mktemp("bundles"))
    with TestClient(create_app(bundle), raise_server_exceptions=False) as client:
        yield client


def problems(client: TestClient, path: str = "/v1/recommend", **sent: Any) -> list[dict[str, Any]]:
    response = client.post(path, **sent)
    assert response.status_code == 422, response.text
    assert set(response.json()) == {"error", "problems"}
    assert response.json()["error"].startswith("the request is not valid")
    assert len(response.text) < 6000
    assert not [word for word in INSIDE if word in response.text]
    found: list[dict[str, Any]] = response.json()["problems"]
    return found


def problem(place: str, what: str, got: str | None, allowed: str, fix: str) -> dict[str, Any]:
    return {"place": place, "problem": what, "got": got, "allowed": allowed, "fix": fix}


@pytest.mark.parametrize(
    ("body", "place", "what", "got", "allowed", "fix"),
    [
        (
            {"history": [None]},
            "history.0",
            "is no id",
            "null",
            ID,
            "send such an id, or leave it o",
        ),
        ({"history": ["a", True]}, "history.1", "is no id", "true", ID, "send such an id"),
        ({"history": [["a"]]}, "history.0", "is no id", '["a"]', ID, "send such an id"),
        ({"history": [""]}, "history.0", "is an id of 0 char", '""', ID, "send the id as it is"),
        ({"allow": ["x" * 513]}, "allow.0", "is an id of 513", '"xx', ID, "send the id as it is"),
        ({"user_id": 2.5}, "user_id", "is no id", "2.5", ID, "send such an id"),
        ({"k": 0}, "k", "is less than 1", "0", "a whole number from 1 to 1000", "or leave k out"),
        ({"k": 1001}, "k", "is more than 1000", "1001", "a whole number from 1 to 1000", "send"),
        ({"k": "ten"}, "k", "is no whole number", '"ten"', "a whole number from 1 to", "send"),
        ({"k": 2.5}, "k", "is no whole number", "2.5", "a whole number from 1 to", "send"),
        (
            {"repeat_window": 0},
            "repeat_window",
            "is less than 1",
            "0",
            "a whole number from 1",
            "s",
        ),
        ({"K": 5}, "K", "is a key that is not known", "5", KEYS, "did you mean 'k'?"),
        ({"histroy": []}, "histroy", "is a key that", "[]", KEYS, "did you mean 'history'?"),
        ({"verbose": 1}, "verbose", "is a key that", "1", KEYS, "leave it out"),
        ({"history": "i01"}, "history", "is no list", '"i01"', IDS, "or leave history out"),
        ({"history": [{"item": "a"}]}, "history.0.time", "is missing", None, TIME, "add time"),
        (
            {"history": [{"item": "a", "time": "x"}]},
            "history.0.time",
            "is no whole",
            '"x"',
            TIME,
            "s",
        ),
        (
            {"history": [{"item": "a", "tme": 1}]},
            "history.0.tme",
            "is a key",
            "1",
            "item, time",
            NEAR,
        ),
        (
            {"history": [{"item": None, "time": 1}]},
            "history.0.item",
            "is no id",
            "null",
            ID,
            "send",
        ),
        (
            {"history": [{"item": "a", "time": 1}, "b"]},
            "history",
            "has times for 1 of 2",
            "[",
            EVENT,
            "give",
        ),
        (
            {"exclude": MANY},
            "exclude",
            "holds 10001 values, more than 10000",
            '["x"',
            IDS,
            "or leave",
        ),
        (
            {"exclude_seen": "yes"},
            "exclude_seen",
            "is neither true nor",
            '"yes"',
            "true, false",
            "s",
        ),
        ({"baskets": "a"}, "baskets", "is no list", '"a"', "one label for each item", "send"),
        ({"baskets": [None]}, "baskets.0", "is no id", "null", ID, "send"),
        ({"previous": "a"}, "previous", "is no list", '"a"', LISTS, "or leave previous out"),
        ({"previous": ["a"]}, "previous.0", "is no list", '"a"', "a list of 1 or", "take this one"),
        ({"previous": [["a", {}]]}, "previous.0.1", "is no id", "{}", ID, "send such an id"),
        ({"previous": [["a"], []]}, "previous", "has no ids in list 1", "[[", LISTS, "leave empty"),
        ({"previous": [["a"]] * 101}, "previous", "holds 101 values", "[[", LISTS, "or leave"),
        ({"previous": [MANY]}, "previous.0", "holds 10001 values", "[", "a list of 1", "take this"),
        ({"previous": [MANY[:6000]] * 2}, "previous", "has 12000 ids", "[", LISTS, "the oldest"),
    ],
)
def test_each_rule_names_place_value_what_is_allowed_and_what_to_do(
    client: TestClient, body: Any, place: str, what: str, got: str, allowed: str, fix: str
) -> None:
    full = body if "user_id" in body else {"history": ["i01"], **body}
    content = json.dumps(full).encode()
    headers = {"content-type": "application/json"}
    all_found = problems(client, content=content, headers=headers)
    found = {p["place"]: p for p in all_found}[f"body.{place}"]
    assert found["problem"].startswith(what)
    assert found["got"] == got or found["got"].startswith(got)
    assert len(found["got"] or "") <= 80
    assert allowed in found["allowed"]
    assert fix in found["fix"]


@pytest.mark.parametrize(
    ("body", "what", "allowed"),
    [
        ({"\ud800": 1}, "has a key with half a character", f"the keys {KEYS}"),
        ({}, "has neither of history and user_id", "exactly one of history and user_id"),
        ({"history": [], "user_id": "u"}, "has both of history", "exactly one of history and user"),
        (
            {"user_id": "u", "baskets": ["a"]},
            "has baskets, but no history",
            "together with history",
        ),
        ({"history": ["i01"], "baskets": []}, "has 0 baskets for a history of 1", "one label for"),
        ({"history": [], "baskets": ["a"]}, "has 1 baskets for a history of 0", "one label for"),
        (
            {"history": [], "repeat_window": 2, "exclude_seen": False},
            "has repeat_window and exclude_seen: false",
            "one of the two",
        ),
    ],
)
def test_rules_between_keys(client: TestClient, body: Any, what: str, allowed: str) -> None:
    content = json.dumps(body).encode()  # not by the client, which cannot send half a character
    headers = {"content-type": "application/json"}
    [found] = problems(client, content=content, headers=headers)
    assert found["place"] == "body"
    assert found["problem"].startswith(what)
    assert allowed in found["allowed"]
    assert found["got"] is not None and found["fix"]


def test_a_null_in_a_history_is_one_problem_and_not_three(client: TestClient) -> None:
    assert problems(client, json={"history": [None]}) == [
        problem("body.history.0", "is no id", "null", ID, "send such an id, or leave it out")
    ]


def test_likeness_has_keys_of_its_own(client: TestClient) -> None:
    allowed = f"a list of 1 to 100 ids, each {ID}"
    few, many, unknown = (
        problems(client, "/v1/similar", json=body)
        for body in ({"items": []}, {"items": ["i01"] * 101}, {"items": ["i01"], "history": []})
    )
    what = "holds 0 values, fewer than 1"
    assert few == [problem("body.items", what, "[]", allowed, "send such a value")]
    assert many[0]["problem"] == "holds 101 values, more than 100"
    assert unknown == [
        problem(
            "body.history", "is a key that is not known", "[]", "the keys items, k", "leave it out"
        )
    ]
    assert problems(client, "/v1/similar", json={})[0]["fix"] == "add items"


SEND = f"send a JSON object {HEADER}"
VALID = f"send a valid JSON object {HEADER}"
END = "the end of the body"
UTF8 = "JSON text in UTF-8"


@pytest.mark.parametrize(
    ("content", "what", "got", "allowed", "fix"),
    [
        (b"", "is missing", None, f"an object with the keys {KEYS}", SEND),
        (b"null", "is no JSON object", "null", f"an object with the keys {KEYS}", SEND),
        (b'["i01"]', "is no JSON object", '["i01"]', f"an object with the keys {KEYS}", SEND),
        (b"{", "is no JSON from character 1 on (expecting prop", END, "a JSON object", VALID),
        (b"{'k': 1}", "is no JSON from character 1 on", "\"'k': 1}\"", "a JSON object", VALID),
        (
            b'{"a": "\xff"}',
            "is not UTF-8 at byte 7",
            "b'\\xff\"}'",
            UTF8,
            "encode the body as UTF-8",
        ),
        (b"[" * 100_000, "is nested too deeply", None, UTF8, "send lists and objects as the docu"),
        (b'{"k": ' + b"9" * 5000 + b"}", "has a number of too many digits", None, UTF8, "send num"),
    ],
)
def test_a_body_that_is_no_json_object(
    client: TestClient, content: bytes, what: str, got: str | None, allowed: str, fix: str
) -> None:
    headers = {"content-type": "application/json"}
    [found] = problems(client, content=content, headers=headers)
    assert (found["place"], found["got"], found["allowed"]) == ("body", got, allowed)
    assert found["problem"].startswith(what)
    assert found["fix"].startswith(fix)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe",
        b'{"history": ["\\ud800"]}',
        b'{"history": ["i01"], "k": NaN}',
        b'{"history": ["i01"], "k": 1e999}',
        b'{"history": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"history": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    ],
)
def test_what_is_odd_is_refused_politely(client: TestClient, content: bytes) -> None:
    assert problems(client, content=content, headers={"content-type": "application/json"})


def test_another_type_of_content_is_told_which(client: TestClient) -> None:
    headers = {"content-type": "text/plain"}
    [found] = problems(client, content=b'{"history": []}', headers=headers)
    assert found["problem"] == "is no JSON object"
    assert found["fix"] == SEND


def test_many_problems_are_counted_and_the_first_told(client: TestClient) -> None:
    response = client.post("/v1/recommend", json={"history": [None] * 35})
    assert response.json()["error"] == "the request is not valid; the first 20 of 35 problems"
    assert len(response.json()["problems"]) == MAX_PROBLEMS


def test_every_key_says_what_is_allowed() -> None:
    fields = {
        name: field
        for model in (*BODIES.values(), *NESTED.values())
        for name, field in model.model_fields.items()
    }
    assert set(ALLOWED) == {*fields, "q"}
    lists = {name for name, field in fields.items() if "list[" in str(field.annotation)}
    assert set(ALLOWED_INSIDE) == lists
