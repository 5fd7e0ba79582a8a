"""Another model takes over between two answers; a damaged one never does."""

from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from live_client import Live, live
from tiny_bundle import fitted, make_bundle

from recsys.bundle import load_bundle
from recsys.errors import ArtifactError
from recsys.published import write_record
from recsys.recommender import Query, Recommender


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    return make_bundle(folder), make_bundle(folder, model=fitted(seed=9))


def expected(bundle: Path) -> list[str]:
    [answer] = Recommender(load_bundle(bundle)).recommend([Query(history=["i05"])])
    return answer.items


def reload(endpoint: Live) -> dict[str, Any]:
    response = endpoint.client.post("/v1/model/reload")
    assert response.status_code == 200
    return dict(response.json())


def test_the_newer_one_is_loaded_when_asked(two: tuple[Path, Path]) -> None:
    found = [two[0]]
    with live(two[0], None, find=lambda: found[0]) as endpoint:
        assert reload(endpoint)["result"] == "unchanged"
        found[0] = two[1]
        told = reload(endpoint)
        assert (told["result"], told["version"]) == ("loaded", two[1].name.split("@")[1])
        answer = endpoint.ask(history=["i05"])
        assert answer["model"]["version"] == told["version"]
        assert [row["item_id"] for row in answer["items"]] == expected(two[1])
        assert endpoint.client.get("/v1/model").json()["version"] == told["version"]
        text = endpoint.client.get("/metrics").text
        assert [line for line in text.splitlines() if line.startswith("recsys_model_info{")] == [
            f'recsys_model_info{{name="tiny",version="{told["version"]}"}} 1.0'
        ]


def test_a_directory_is_watched(two: tuple[Path, Path], tmp_path: Path) -> None:
    from recsys.published import find_bundle

    for bundle in two:
        shutil.copytree(bundle, tmp_path / bundle.name)
    write_record(tmp_path, {"bundle": two[0].name})
    with live(find_bundle(tmp_path), None, find=lambda: find_bundle(tmp_path), watch=0.05) as one:
        assert one.ask(history=[])["model"]["version"] == two[0].name.split("@")[1]
        write_record(tmp_path, {"bundle": two[1].name})
        until = time.monotonic() + 20
        while one.ask(history=[])["model"]["version"] != two[1].name.split("@")[1]:
            assert time.monotonic() < until, "the new bundle was never taken"


@pytest.mark.parametrize("damage", ["cut", "changed", "missing", "manifest", "nothing"])
def test_a_damaged_bundle_never_answers(
    two: tuple[Path, Path], tmp_path: Path, damage: str
) -> None:
    bad = tmp_path / two[1].name
    shutil.copytree(two[1], bad)
    file = bad / "model.safetensors"
    match damage:
        case "cut":
            file.write_bytes(file.read_bytes()[:-9])
        case "changed":
            file.write_bytes(file.read_bytes()[:-1] + b"\x00")
        case "missing":
            (bad / "items.parquet").unlink()
        case "manifest":
            (bad / "manifest.json").write_text("{")
        case "nothing":
            shutil.rmtree(bad)
    with live(two[0], None, find=lambda: bad, watch=0.05) as endpoint:
        before = endpoint.ask(history=["i05"])["items"]
        told = reload(endpoint)
        assert told["result"] == "refused" and str(tmp_path) not in str(told)
        assert told["version"] == two[0].name.split("@")[1]
        time.sleep(0.3)  # the watch looks several times, and does not try the same again
        assert endpoint.ask(history=["i05"])["items"] == before
        assert 1 <= endpoint.metric('recsys_model_loads_total{result="refused"}') <= 2


def test_a_model_that_does_not_answer_is_refused(
    two: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from serving import model as module

    with live(two[0], None, find=lambda: two[1]) as endpoint:

        def broken(self: Recommender, requests: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(module.Recommender, "recommend", broken)
        assert reload(endpoint)["reason"].endswith("(ArtifactError)")
        monkeypatch.undo()
        assert reload(endpoint)["result"] == "loaded"


def test_scores_that_are_no_numbers_are_refused(two: tuple[Path, Path]) -> None:
    from serving.ledger import Living
    from serving.model import ServedModel

    bundle = load_bundle(two[0])
    assert bundle.index is not None
    bundle.index.columns[:, 1:] = torch_nan()
    with pytest.raises(ArtifactError):
        ServedModel(bundle, Living()).check()


def torch_nan() -> float:
    return float("nan")


def test_a_model_that_fails_early_gives_way_to_the_one_before(two: tuple[Path, Path]) -> None:
    with live(two[0], None, find=lambda: two[1]) as endpoint:
        good = endpoint.ask(history=["i05"])["items"]
        assert reload(endpoint)["result"] == "loaded"

        def broken(requests: object) -> None:
            raise RuntimeError

        endpoint.service.model.recommender.recommend = broken  # type: ignore[method-assign,assignment]
        sources = [endpoint.ask(history=["i05"])["source"] for _ in range(4)]
        assert sources == ["item_to_item"] * 3 + ["model"]
        assert endpoint.ask(history=["i05"])["items"] == good
        assert endpoint.metric('recsys_model_loads_total{result="rolled_back"}') == 1
        assert endpoint.metric("recsys_model_failures_total") == 3
        assert endpoint.metric('recsys_lists_total{source="item_to_item"}') == 3


def test_a_model_that_gave_way_is_not_tried_again_by_the_watch(
    two: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = two[1].name.split("@")[1]
    answer = Recommender.recommend

    def broken(self: Recommender, requests: Any) -> Any:
        at_work = (
            threading.current_thread().name == "recommender"
        )  # not when it is tried at loading
        if at_work and self.bundle.version == failing:
            raise RuntimeError
        return answer(self, requests)

    monkeypatch.setattr(Recommender, "recommend", broken)
    with live(two[0], None, find=lambda: two[1], watch=0.05) as endpoint:
        until = time.monotonic() + 20
        while endpoint.metric('recsys_model_loads_total{result="rolled_back"}') == 0:
            endpoint.ask(history=["i05"])
            assert time.monotonic() < until, "it was never loaded, or never gave way"
        time.sleep(0.4)  # the watch looks several times
        assert {endpoint.ask(history=["i05"])["source"] for _ in range(5)} == {"model"}
        assert endpoint.metric('recsys_model_loads_total{result="loaded"}') == 1
        assert reload(endpoint)["result"] == "loaded"  # who asks for it gets it once more


def test_every_kind_of_list_has_a_ladder(two: tuple[Path, Path]) -> None:
    with live(two[0], None) as endpoint:
        recommender = endpoint.service.model.recommender

        def broken(requests: object) -> None:
            raise RuntimeError

        recommender.continue_lists = broken  # type: ignore[method-assign,assignment]
        recommender.similar_batch = broken  # type: ignore[method-assign,assignment]
        body = {"history": ["i05"], "steps": 3, "groups": 2, "beams": 2, "required": ["i09"]}
        lists = endpoint.client.post("/v1/playlists/continue", json=body)
        assert lists.status_code == 200 and lists.json()["source"] == "item_to_item"
        assert [len(one["items"]) for one in lists.json()["lists"]] == [3, 3]
        assert all(one["items"][-1]["item_id"] == "i09" for one in lists.json()["lists"])
        assert lists.json()["lists"][0]["log_probability"] is None
        near = endpoint.client.post("/v1/similar", json={"items": ["i05"], "k": 2})
        assert near.status_code == 200 and near.json()["source"] == "item_to_item"
        assert len(near.json()["lists"][0]["items"]) == 2
        assert endpoint.ask(history=["i05"])["source"] == "model"
        refused = endpoint.client.post("/v1/playlists/continue", json=body | {"required": ["x"]})
        assert refused.status_code == 422
        assert endpoint.metric('recsys_lists_total{source="item_to_item"}') == 2


def test_no_request_is_lost_or_answered_by_a_mixture(two: tuple[Path, Path]) -> None:
    """Under load, models change all the time: each answer is that of the model it names."""
    lists = {bundle.name.split("@")[1]: expected(bundle) for bundle in two}
    found, done = [two[0]], threading.Event()

    with live(two[0], None, find=lambda: found[0]) as endpoint:

        def swap() -> int:
            swaps = 0
            while not done.is_set():
                found[0] = two[swaps % 2]
                swaps += reload(endpoint)["result"] == "loaded" or 1
            return swaps

        with ThreadPoolExecutor(6) as pool:
            swapping = pool.submit(swap)
            answers = list(pool.map(lambda _: endpoint.ask(history=["i05"]), range(300)))
            done.set()
            assert swapping.result() > 3
    seen = {answer["model"]["version"] for answer in answers}
    assert seen == set(lists)
    for answer in answers:
        assert [row["item_id"] for row in answer["items"]] == lists[answer["model"]["version"]]
        assert answer["source"] == "model"
