"""A new item given as text alone: the model of the bundle reads it, and places it where it belongs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from live_client import live
from text_bundle import (
    READS_TEXTS,
    frozen_bundle,
    learned_bundle,
    recformer_bundle,
    titled,
    written,
)

from features.text_map import save_map
from features.text_tower import TextTower, write_tower
from recsys.config import SASRecConfig, TextConfig, UniRecConfig
from recsys.config.recformer import LexicalConfig
from recsys.data.batches import batch_from_lists
from recsys.errors import ArtifactError

pytest.importorskip("tokenizers")


def test_a_text_is_placed_beside_the_items_that_it_is_like(tmp_path: Path) -> None:
    with live(frozen_bundle(tmp_path), tmp_path / "state") as endpoint:
        title = titled()["title"][16]
        told = endpoint.add("new", attributes={"title": title})
        assert (told["placed_by"], told["searchable"]) == ("text", True)
        alike = endpoint.client.post("/v1/similar", json={"items": ["new"], "k": 1}).json()
        assert alike["lists"][0]["items"][0]["item_id"] == "i17"
        scores = {
            row["item_id"]: row["score"] for row in endpoint.ask(history=["i05"], k=41)["items"]
        }
        assert scores["new"] == pytest.approx(scores["i17"], rel=1e-5)
        # A text without a word of the catalogue has no place, and says so.
        refused = endpoint.client.post(
            "/v1/items", json={"item_id": "x", "attributes": {"title": "  "}}
        )
        assert refused.status_code == 422


def test_it_stands_there_after_a_restart(tmp_path: Path) -> None:
    bundle = frozen_bundle(tmp_path)
    with live(bundle, tmp_path / "state") as endpoint:
        endpoint.add("new", attributes={"title": "amber lamp"})
        before = endpoint.ask(history=["i05"], k=41)["items"]
    with live(bundle, tmp_path / "state") as endpoint:
        assert endpoint.ask(history=["i05"], k=41)["items"] == before


UNIREC = UniRecConfig(
    **READS_TEXTS.model_dump(include={"width", "heads", "blocks", "max_length", "text", "block"}),
    calendar=False,
    interval=False,
    sequence_enhancement=False,
    item_enhancement=False,
)


@pytest.mark.parametrize("config", [READS_TEXTS, UNIREC], ids=lambda c: c.kind)
def test_a_learned_map_of_texts_places_it_too(
    config: SASRecConfig | UniRecConfig, tmp_path: Path
) -> None:
    with live(learned_bundle(tmp_path, config), tmp_path / "state") as endpoint:
        assert (
            endpoint.add("new", attributes={"title": titled()["title"][9]})["placed_by"] == "text"
        )
        scores = {
            row["item_id"]: row["score"] for row in endpoint.ask(history=["i05"], k=41)["items"]
        }
        assert scores["new"] == pytest.approx(scores["i10"], rel=1e-4)


def test_an_item_is_ranked_by_its_own_words_where_the_model_compares_words(tmp_path: Path) -> None:
    """Two words weigh more than all that the encoder sees: an item of a known text scores as that does."""
    bundle = recformer_bundle(tmp_path, LexicalConfig(weight=30.0))
    history, title = ["i05", "i12"], titled()["title"][16]
    with live(bundle, tmp_path / "state") as endpoint:
        assert endpoint.add("twin", attributes={"title": title})["placed_by"] == "text"
        endpoint.add("shout", attributes={"title": titled()["title"][11].upper()})
        endpoint.add("mixed", attributes={"title": "coral attic unheard"})
        rows = endpoint.ask(history=history, k=43)["items"]
        model = endpoint.service.model.recommender.bundle.model
        lists = endpoint.client.post(
            "/v1/playlists/continue", json={"history": history, "steps": 1}
        ).json()["lists"]
    with live(bundle, tmp_path / "state") as endpoint:  # the same after a restart
        assert endpoint.ask(history=history, k=43)["items"] == rows
    scores = {row["item_id"]: row["score"] for row in rows}
    assert scores["twin"] == pytest.approx(scores["i17"], rel=1e-5)
    assert rows[0]["item_id"] == "shout", "nothing is more like i12 than its own text"
    assert lists[0]["items"][0]["item_id"] == "shout"
    batch = batch_from_lists([[5, 12]], None, model.max_length)
    with torch.inference_mode():
        whole = model.score(batch)[0]
        [short] = model.lifted(batch, 5)
    assert scores["mixed"] == pytest.approx(float(whole[43]), rel=1e-5)
    assert 42 in short.tolist() and len(short) == 5


def test_what_the_tower_says_of_the_catalogue_is_what_was_trained_on(tmp_path: Path) -> None:
    text, data = written(tmp_path)
    rows = titled().select("title").to_dicts()
    assert data.item_vectors is not None
    np.testing.assert_allclose(TextTower.load(text).vectors(rows), data.item_vectors[1:], atol=1e-6)
    assert data.sentences is not None
    assert TextTower.load(text).sentences(rows).tokens.tolist() == data.sentences.tokens.tolist()


def test_an_encoder_of_other_weights_is_refused_and_words_place_the_item(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from dataclasses import replace

    bundle = frozen_bundle(tmp_path)
    tower = tmp_path / "text" / "tower.json"
    save_map(tmp_path / "other", str(tmp_path / "encoder"), None)
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "model.safetensors").write_bytes(b"one")
    write_tower(tmp_path / "foreign", ["title"], TextConfig(), text_map=tmp_path / "other")
    (tmp_path / "encoder" / "model.safetensors").write_bytes(b"two")
    with pytest.raises(ArtifactError, match=r"encoder holds other weights .* than those that made"):
        TextTower.load(tmp_path / "foreign").vectors([{"title": "amber"}])
    assert tower.is_file()
    with live(bundle, tmp_path / "state") as endpoint:
        texts = endpoint.service.model.texts
        texts.tower = replace(TextTower.load(tmp_path / "foreign"))
        told = endpoint.add("new", attributes={"title": "amber attic lamp"})
        assert told["placed_by"] == "words" and texts.tower is None
