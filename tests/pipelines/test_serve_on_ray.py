"""The endpoint under Ray Serve answers as it does alone, and its replicas share what they are told."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from redis_server import free_port
from tiny_bundle import make_bundle

from pipelines.serve_on_ray import running_on_ray
from recsys.bundle import load_bundle
from recsys.recommender import Query, Recommender
from serving.settings import ServingSettings


def call(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


@pytest.mark.ray
@pytest.mark.slow
def test_it_answers_as_it_does_alone(tmp_path: Path) -> None:
    bundle, port = make_bundle(tmp_path / "bundles"), free_port()
    settings = ServingSettings(state=tmp_path / "state", open_writes=True, deadline=30)
    [expected] = Recommender(load_bundle(bundle)).recommend([Query(history=["i05", "i09"])])
    with running_on_ray(str(bundle.parent), "127.0.0.1", port, settings, 2, None):
        url = f"http://127.0.0.1:{port}/v1"
        answers = [call(f"{url}/recommend", {"history": ["i05", "i09"]}) for _ in range(5)]
        for answer in answers:
            assert [row["item_id"] for row in answer["items"]] == expected.items
        event = {"user_id": "new", "item": "i05", "time": 5}
        assert call(f"{url}/events", {"events": [event]})["accepted"] == 1
        assert call(f"{url}/recommend", {"user_id": "new"})["history_source"] == "live_events"
