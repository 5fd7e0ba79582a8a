"""Keys, headers, logs, deadlines: what the endpoint lets in, and what it lets out."""

from __future__ import annotations

import io
import json
import logging
import stat
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live_client import live
from tiny_bundle import make_bundle

from recsys.errors import ArtifactError, ConfigError
from serving.app import create_app
from serving.keys import FORM, KeyRing, add_key, read_keys, revoke_key
from serving.logs import JsonLines
from serving.settings import ServingSettings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # newer Starlette would have httpx2; httpx serves both
    from fastapi.testclient import TestClient

EVENT = {"events": [{"user_id": "u", "item": "i01", "event_id": "e"}]}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def client(bundle: Path, keys: Path, tmp_path: Path) -> Iterator[TestClient]:
    settings = ServingSettings(state=tmp_path / "state", keys=keys)
    with TestClient(create_app(bundle, settings)) as client:
        yield client


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_writes_need_a_key_and_reads_do_not(client: TestClient, keys: Path) -> None:
    assert client.post("/v1/recommend", json={"history": []}).status_code == 200
    none = client.post("/v1/events", json=EVENT)
    assert none.status_code == 403 and "recsys keys add" in none.json()["error"]
    key = add_key(keys, "shop")
    missing = client.post("/v1/events", json=EVENT)
    assert missing.status_code == 401 and "is missing" in missing.json()["error"]
    assert missing.headers["www-authenticate"] == "Bearer"
    for header in (bearer(key), {"x-api-key": key}):
        assert client.post("/v1/events", json=EVENT, headers=header).status_code == 200
    wrong = [
        key[:-1] + ("A" if key[-1] != "A" else "B"),
        key.upper(),
        "",
        "rk_",
        "ä" * 9,
        key + "x",
    ]
    for presented in wrong:
        header = {"authorization": f"Bearer {presented}".encode()}
        assert client.post("/v1/events", json=EVENT, headers=header).status_code == 401
    assert "recsys_denied_total 7.0" in client.get("/metrics").text


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/events", EVENT),
        ("POST", "/v1/items", {"item_id": "n", "like": ["i01"]}),
        ("DELETE", "/v1/items/i01", None),
        ("DELETE", "/v1/users/u", None),
        ("POST", "/v1/model/reload", None),
    ],
)
def test_every_write_asks(
    client: TestClient, keys: Path, method: str, path: str, body: Any
) -> None:
    key = add_key(keys, "shop")
    assert client.request(method, path, json=body).status_code == 401
    assert client.request(method, path, json=body, headers=bearer(key)).status_code < 300


def test_reads_may_be_closed(bundle: Path, keys: Path) -> None:
    key = add_key(keys, "shop")
    with TestClient(create_app(bundle, keys=keys, closed_reads=True)) as client:
        for path in ("/v1/recommend", "/v1/similar"):
            assert client.post(path, json={"history": [], "items": ["i01"]}).status_code == 401
        assert client.get("/v1/model").status_code == 401
        assert client.get("/v1/items", params={"q": "x"}).status_code == 401
        answer = client.post("/v1/recommend", json={"history": []}, headers=bearer(key))
        assert answer.status_code == 200
        assert client.get("/healthz").status_code == 200


def test_keys_come_and_go_while_it_runs(client: TestClient, keys: Path) -> None:
    first, second = add_key(keys, "one"), add_key(keys, "two")
    for key in (first, second):
        assert client.post("/v1/events", json=EVENT, headers=bearer(key)).status_code == 200
    revoke_key(keys, read_keys(keys)[0].id)
    assert client.post("/v1/events", json=EVENT, headers=bearer(first)).status_code == 401
    assert client.post("/v1/events", json=EVENT, headers=bearer(second)).status_code == 200


def test_the_file_keeps_no_secret(keys: Path) -> None:
    key = add_key(keys, "shop")
    form = FORM.fullmatch(key)
    assert form is not None
    assert form[2] not in keys.read_text()
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    assert add_key(keys, "shop") != key
    one, other = read_keys(keys)
    assert one.salt != other.salt and one.name == other.name == "shop"
    assert KeyRing(keys).owner(key) == one.id == form[1]
    with pytest.raises(ConfigError, match=rf"no key 'x'.*{one.id} \(shop\)"):
        revoke_key(keys, "x")
    keys.write_text("{")
    with pytest.raises(ArtifactError, match="no readable file of keys"):
        read_keys(keys)


def test_browsers_are_held_short(client: TestClient) -> None:
    answer = client.post(
        "/v1/recommend", json={"history": []}, headers={"origin": "http://other.example"}
    )
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert client.options("/v1/recommend").status_code == 405


def test_origins_can_be_let_in(bundle: Path) -> None:
    with TestClient(create_app(bundle, cors=("http://shop.example",))) as client:
        for origin, allowed in (("http://shop.example", True), ("http://other.example", False)):
            answer = client.post("/v1/recommend", json={"history": []}, headers={"origin": origin})
            assert (answer.headers.get("access-control-allow-origin") == origin) == allowed


def test_a_request_that_takes_too_long_is_given_up(bundle: Path) -> None:
    with live(bundle, None, deadline=0.05) as endpoint:
        recommender = endpoint.service.model.recommender
        inner = recommender.recommend

        def slow(requests: Any) -> Any:
            time.sleep(0.3)
            return inner(requests)

        recommender.recommend = slow  # type: ignore[method-assign]
        answer = endpoint.client.post("/v1/recommend", json={"history": []})
        assert answer.status_code == 504
        assert answer.json()["error"] == "the answer took longer than 0.05 seconds; try again"
        assert answer.headers["retry-after"] == "1"
        assert endpoint.metric("recsys_late_total") == 1


def test_logs_are_json_and_tell_stages(bundle: Path, tmp_path: Path) -> None:
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("serving")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        with live(bundle, tmp_path, log_requests=True) as endpoint:
            endpoint.ask(user_id="u07")
        logger.error("x", exc_info=RuntimeError("secret"))
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    lines = [json.loads(line) for line in said.getvalue().splitlines()]
    [request] = [line for line in lines if line["event"] == "request"]
    assert (request["route"], request["status"]) == ("/v1/recommend", 200)
    assert {"features", "encode", "search"} <= set(request["stages_ms"])
    assert lines[-1]["error"] == "RuntimeError"
    assert "secret" not in said.getvalue() and str(tmp_path) not in said.getvalue()


def test_not_ready_while_it_drains(bundle: Path) -> None:
    with live(bundle, None) as endpoint:
        endpoint.service.draining = True
        assert endpoint.client.get("/readyz").status_code == 503
        assert endpoint.ask(history=[])["items"]
