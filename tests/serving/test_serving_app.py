from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_client import live
from tiny_bundle import N_ITEMS, SASREC, events, item_name, make_bundle

from recsys.bundle import load_bundle
from recsys.config import TrainingConfig
from recsys.errors import ArtifactError
from recsys.recommender import Query, Recommender
from serving.app import create_app
from serving.limits import MAX_BODY
from serving.routes.recommend import to_query
from serving.rules import MAX_K
from serving.schemas import MAX_HISTORY, RecommendRequest
from serving.service import Service

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # newer Starlette would have httpx2; httpx serves both
    from fastapi.testclient import TestClient


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture
def client(bundle: Path) -> Iterator[TestClient]:
    with TestClient(create_app(bundle), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def recommender(bundle: Path) -> Recommender:
    return Recommender(load_bundle(bundle))


def ask(client: TestClient, **body: Any) -> Any:
    """Return the answer without its id, which no two have in common."""
    response = client.post("/v1/recommend", json=body)
    assert response.status_code == 200, response.text
    return {key: value for key, value in response.json().items() if key != "request_id"}


def refused(client: TestClient, body: Any, path: str = "/v1/recommend") -> str:
    response = client.post(path, json=body)
    assert response.status_code == 422, response.text
    assert set(response.json()) == {"error", "problems"}
    return response.text


def test_recommends_for_a_history(client: TestClient, recommender: Recommender) -> None:
    answer = ask(client, history=["i05", "nope", "i09"], k=4)
    (expected,) = recommender.recommend([Query(history=["i05", "i09"], k=4)])
    assert [row["item_id"] for row in answer["items"]] == expected.items
    assert [row["score"] for row in answer["items"]] == pytest.approx(expected.scores, rel=1e-5)
    assert [row["rank"] for row in answer["items"]] == [1, 2, 3, 4]
    assert answer["items"][0]["title"] == f"Title {expected.items[0]}"
    bundle = recommender.bundle
    assert answer["model"] == {"name": bundle.name, "version": bundle.version}
    assert answer["unknown"] == ["nope"]
    assert answer["fallback"] is None
    assert answer["dropped_history"] == 0


def test_defaults_are_ten_items_without_the_seen(client: TestClient) -> None:
    answer = ask(client, history=["i05", "i09"])
    items = [row["item_id"] for row in answer["items"]]
    assert len(items) == 10
    assert not {"i05", "i09"} & set(items)


def test_exclude_allow_and_repeats(client: TestClient) -> None:
    allowed = ["i05", "i06", "i07", "ghost"]
    answer = ask(client, history=["i05"], allow=allowed, exclude=["i06"], exclude_seen=False)
    assert {row["item_id"] for row in answer["items"]} == {"i05", "i07"}
    assert answer["unknown_allowed"] == ["ghost"]
    assert ask(client, history=["i05"], exclude=["i06", "x", "x"])["unknown_excluded"] == ["x"]


def test_events_may_carry_times(client: TestClient) -> None:
    timed = [{"item": "i03", "time": 30}, {"item": "i01", "time": 10}, {"item": "i02", "time": 20}]
    sorted_ = [
        {"item": "i01", "time": 10},
        {"item": "i02", "time": 20},
        {"item": "i03", "time": 30},
    ]
    assert ask(client, history=timed) == ask(client, history=sorted_)


def test_baskets_reach_the_model(tmp_path: Path) -> None:
    training = TrainingConfig(objective="next_basket")
    config = SASREC.model_copy(update={"baskets": "set", "training": training})
    store = replace(events(), baskets=np.arange(events().n_events, dtype=np.int32) // 3)
    path = make_bundle(tmp_path, config, store=store)
    labels = Query(history=["i01", "i02", "i03"], baskets=["a", "a", "b"], k=5)
    (expected,) = Recommender(load_bundle(path)).recommend([labels])
    with TestClient(create_app(path)) as client:
        answers = [
            ask(client, history=["i01", "i02", "i03"], baskets=baskets, k=5)["items"]
            for baskets in (["a", "a", "b"], [7, 7, 8], ["a", "a", "a"])
        ]
        assert ask(client, user_id="u07")["fallback"] is None
    scores = [[row["score"] for row in answer] for answer in answers]
    assert scores[0] == scores[1] == pytest.approx(expected.scores, rel=1e-5)
    assert scores[0] != pytest.approx(scores[2], rel=1e-4)


def test_baskets_move_with_their_items() -> None:
    timed = [{"item": "b", "time": 30}, {"item": "a", "time": 10}, {"item": "c", "time": 20}]
    body = RecommendRequest.model_validate({"history": timed, "baskets": [3, 1, "two"]})
    query, _ = to_query(body)
    assert (query.history, query.baskets) == (["b", "a", "c"], ["3", "1", "two"])
    assert query.times == [30, 10, 20]


def test_users_of_the_bundle_and_strangers(client: TestClient, recommender: Recommender) -> None:
    (expected,) = recommender.recommend([Query(user_id="u07")])
    known = ask(client, user_id="u07")
    assert [row["item_id"] for row in known["items"]] == expected.items
    assert known["fallback"] is None
    stranger = ask(client, user_id="someone else")
    assert stranger["fallback"] == "unknown_user"
    assert stranger["items"] == ask(client, history=[])["items"]
    assert ask(client, history=["x"])["fallback"] == "unknown_history"


def test_ids_may_be_whole_numbers(client: TestClient) -> None:
    assert ask(client, history=[318, "i05"])["unknown"] == ["318"]
    assert ask(client, history=["Käse", "i05"])["unknown"] == ["Käse"]


def test_all_of_a_long_history_is_excluded_though_not_read(client: TestClient) -> None:
    history = ["i01", *["i02"] * MAX_HISTORY]
    answer = ask(client, history=history, k=N_ITEMS)
    listed = {row["item_id"] for row in answer["items"]}
    assert listed == {item_name(i) for i in range(3, N_ITEMS + 1)}
    assert answer["dropped_history"] == 1
    timed = [{"item": item, "time": -place} for place, item in enumerate(history[::-1])]
    assert ask(client, history=timed, k=N_ITEMS) == answer


def test_the_bundles_rule_holds_unless_a_request_says_otherwise(tmp_path: Path) -> None:
    everything = {item_name(i) for i in range(1, N_ITEMS + 1)}
    history = ["i01", "i02", "i03"]
    bodies: list[dict[str, Any]] = [
        {},
        {"exclude_seen": None},
        {"exclude_seen": True},
        {"exclude_seen": False},
        {"repeat_window": 1},
        {"repeat_window": 1, "exclude_seen": True},
    ]
    with TestClient(create_app(make_bundle(tmp_path, info={"exclude": 2}))) as client:
        missing = [
            sorted(everything - {row["item_id"] for row in answer["items"]})
            for body in bodies
            for answer in [ask(client, history=history, k=N_ITEMS, **body)]
        ]
    newest = ["i02", "i03"]
    assert missing == [newest, newest, history, [], ["i03"], ["i03"]]


def test_dropped_history_is_reported(client: TestClient) -> None:
    assert ask(client, history=["i05"] * (MAX_HISTORY + 2))["dropped_history"] == 2


def test_large_bodies_are_refused(client: TestClient) -> None:
    body = json.dumps({"history": ["x" * 500] * (MAX_BODY // 500)}).encode()
    headers = {"content-type": "application/json"}
    announced = client.post("/v1/recommend", content=body, headers=headers)
    streamed = client.post("/v1/recommend", content=iter([body]), headers=headers)
    for response in (announced, streamed):
        assert response.status_code == 413
        assert str(MAX_BODY) in response.json()["error"]
    assert 'route="/v1/recommend",status="413"' in client.get("/metrics").text


def test_other_paths_and_methods_answer_in_the_same_form(client: TestClient) -> None:
    assert client.get("/nowhere").json() == {"error": "Not Found", "problems": []}
    assert client.get("/v1/recommend").status_code == 405


def test_similar_items(client: TestClient, recommender: Recommender) -> None:
    body = {"items": ["i04", "nope", "i09"], "k": 3}
    answer = client.post("/v1/similar", json=body).json()
    expected = recommender.similar(["i04", "i09"], 3)
    assert [row["item_id"] for row in answer["lists"]] == ["i04", "i09"]
    for row in answer["lists"]:
        assert [r["item_id"] for r in row["items"]] == expected[row["item_id"]].items
    assert answer["unknown"] == ["nope"]


def test_operation_routes(client: TestClient, bundle: Path) -> None:
    assert client.get("/healthz").json() == {"status": "alive"}
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    model = client.get("/v1/model").json()
    assert model["version"] == bundle.name.split("@")[1]
    assert model["sizes"]["items"] == N_ITEMS
    assert model["info"]["metrics"] == {"NDCG@10": 0.5}
    assert str(bundle) not in json.dumps(model)


def test_metrics_count_what_happened(client: TestClient, bundle: Path) -> None:
    ask(client, history=["i05", "x", "y"])
    ask(client, history=["i05"], exclude=["x", "i06", "y", "z"])
    ask(client, user_id="stranger")
    refused(client, {})
    client.get("/nowhere/at/all")
    lines = client.get("/metrics").text.splitlines()
    version = bundle.name.split("@")[1]
    for line in (
        'recsys_requests_total{route="/v1/recommend",status="200"} 3.0',
        'recsys_requests_total{route="/v1/recommend",status="422"} 1.0',
        'recsys_requests_total{route="other",status="404"} 1.0',
        'recsys_request_seconds_count{route="/v1/recommend"} 4.0',
        'recsys_fallbacks_total{reason="unknown_user"} 1.0',
        'recsys_unknown_ids_total{field="history"} 2.0',
        'recsys_unknown_ids_total{field="exclude"} 3.0',
        f'recsys_model_info{{name="tiny",version="{version}"}} 1.0',
        'recsys_stage_seconds_count{stage="wait"} 3.0',
        'recsys_stage_seconds_count{stage="search"} 3.0',
    ):
        assert line in lines


def test_not_ready_before_start_and_after_the_end(bundle: Path) -> None:
    app = create_app(bundle)
    waiting = TestClient(app)
    assert waiting.get("/readyz").status_code == 503
    assert waiting.post("/v1/recommend", json={"history": []}).status_code == 503
    with TestClient(app) as client:
        assert client.get("/readyz").status_code == 200
    assert waiting.get("/readyz").status_code == 503


def test_a_damaged_bundle_does_not_start(tmp_path: Path) -> None:
    path = make_bundle(tmp_path)
    (path / "popularity.npy").unlink()
    with pytest.raises(ArtifactError, match=r"popularity.npy"), TestClient(create_app(path)):
        pass


def test_an_unforeseen_error_tells_nothing_of_the_inside(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(self: Service, asked: object) -> None:
        raise RuntimeError("secret path /etc/inside")

    monkeypatch.setattr(Service, "ask", broken)
    response = client.post("/v1/similar", json={"items": ["i01"]})
    assert response.status_code == 500
    assert "internal error" in response.text
    logged = [vars(record) | {"text": record.getMessage()} for record in caplog.records]
    assert any(one.get("error") == "RuntimeError" for one in logged)
    assert "secret" not in response.text + str(logged)
    assert not any(one["exc_info"] for one in logged)
    monkeypatch.undo()
    assert ask(client, history=["i01"])["items"]


def test_a_full_queue_is_said_at_once(bundle: Path) -> None:
    with live(bundle, None, waiting=1) as endpoint:
        client, worker = endpoint.client, endpoint.service.worker
        worker.stop()  # nobody drains the queue any more
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(client.post, "/v1/recommend", json={"history": []})
            while worker._queue.empty():
                pass
            second = client.post("/v1/recommend", json={"history": []})
            assert second.status_code == 429
            assert second.headers["retry-after"] == "1"
            assert endpoint.metric("recsys_refused_total") == 1
            worker._answer_all([worker._queue.get()])
            assert first.result().status_code == 200


def test_concurrent_requests_get_what_sequential_ones_get(bundle: Path) -> None:
    bodies = [
        {
            "history": [item_name(i % N_ITEMS + 1), item_name(i % 7 + 1)],
            "k": i % 9 + 1,
            **({"allow": [item_name(j) for j in range(1, 30)]} if i % 5 == 0 else {}),
        }
        for i in range(120)
    ]
    with live(bundle, None) as endpoint:
        alone = [endpoint.ask(**body) for body in bodies]
        with ThreadPoolExecutor(16) as pool:
            together = list(pool.map(lambda body: endpoint.ask(**body), bodies))
    for one, other in zip(alone, together, strict=True):
        assert [r["item_id"] for r in one["items"]] == [r["item_id"] for r in other["items"]]
        scores = [r["score"] for r in other["items"]]
        assert [r["score"] for r in one["items"]] == pytest.approx(scores, rel=1e-5)


def test_openapi_describes_requests_answers_and_errors(client: TestClient) -> None:
    api = client.get("/openapi.json").json()
    post = api["paths"]["/v1/recommend"]["post"]
    assert set(post["responses"]) == {"200", "401", "413", "422", "429", "503", "504"}
    request = api["components"]["schemas"]["RecommendRequest"]
    for example in request["examples"]:
        RecommendRequest.model_validate(example)
    assert request["properties"]["k"]["maximum"] == MAX_K
    answer = api["components"]["schemas"]["RecommendResponse"]
    assert {"request_id", *ask(client, history=["i05"])} == set(answer["properties"])


@pytest.mark.parametrize("path", ["/", "/docs", "/page/page.js", "/page/docs.js", "/page/page.css"])
def test_pages_load_nothing_from_elsewhere(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200 and "://" not in response.text
    assert response.headers["content-security-policy"].startswith("default-src 'self'")


def test_the_frameworks_own_pages_are_off(client: TestClient) -> None:
    assert client.get("/redoc").status_code == 404
    assert "swagger" not in client.get("/docs").text.lower()
    assert client.get("/page/secret.txt").status_code == 404
