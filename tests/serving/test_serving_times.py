"""The times of a history over HTTP: needed by a model that reads them, whoever asks with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from live_client import live
from tiny_bundle import make_bundle

from recsys.bundle import load_bundle
from recsys.config import UniRecConfig
from recsys.recommender import Query, Recommender

ITEMS, TIMES = ["i05", "i09", "i02"], [1_600_000_000, 1_600_000_060, 1_600_900_000]


def test_a_model_that_reads_times_is_asked_with_times(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, UniRecConfig(width=8, blocks=1, max_length=6))
    [expected] = Recommender(load_bundle(bundle)).recommend([Query(ITEMS, TIMES, k=5)])
    timed = [{"item": i, "time": t} for i, t in zip(ITEMS, TIMES, strict=True)]
    with live(bundle, None) as endpoint:
        assert endpoint.client.get("/v1/model").json()["reads"]["times"] is True
        answer = endpoint.ask(history=timed, k=5)
        scores = [row["score"] for row in answer["items"]]
        assert scores == pytest.approx(expected.scores, rel=1e-5)
        assert [row["item_id"] for row in answer["items"]] == expected.items
        for path in ("/v1/recommend", "/v1/playlists/continue"):
            refused = endpoint.client.post(path, json={"history": ITEMS})
            assert refused.status_code == 422
            assert "this history of 3 items has no times; give them" in refused.text
        # Nothing is needed of a history without items, nor of a known user.
        assert endpoint.ask(history=[])["fallback"] == "empty_history"
        assert endpoint.ask(user_id="u07")["source"] == "model"
