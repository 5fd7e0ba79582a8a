"""A history that mixes known items and raw texts: what each text is read as, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from live_client import live
from text_bundle import frozen_bundle, learned_bundle, recformer_bundle, titled
from tiny_bundle import N_ITEMS, make_bundle

from features.text_tower import TextTower
from recsys.bundle import load_bundle
from recsys.config.recformer import LexicalConfig
from recsys.data.batches import SequenceBatch, batch_from_lists
from recsys.data.token_store import TokenStore
from recsys.errors import ArtifactError, DataError
from recsys.fallback import Ladder
from recsys.growth import NewItem, grow
from recsys.models import EncoderModel
from recsys.recommender import Continue, ItemText, Query, Recommender
from serving.rules import MAX_TEXTS
from serving.text_places import TextPlaces

pytest.importorskip("tokenizers")

OPEN = {"exclude_seen": False, "k": 40}


def text_of(item: int) -> dict[str, Any]:
    return {"text": {"title": titled()["title"][item - 1]}}


AS_I17 = {"taken_as": "item", "read_as": "i17"}
NOTHING = {"taken_as": "nothing", "read_as": None}


@pytest.mark.parametrize("make", [frozen_bundle, learned_bundle])
def test_a_text_is_read_as_the_item_most_like_it(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    with live(make(tmp_path), None) as endpoint:
        mixed = endpoint.ask(history=["i05", text_of(17), "i09"], **OPEN)
        known = endpoint.ask(history=["i05", "i17", "i09"], **OPEN)
        assert mixed["items"] == known["items"] and mixed["unknown"] == []
        assert mixed["texts"] == [{"place": 1, **AS_I17}]
        assert mixed["items"] != endpoint.ask(history=["i05", "i09"], **OPEN)["items"]
        # What it is read as was not had by anybody, and may be in the list.
        assert "i17" in endpoint.items(history=["i05", text_of(17)], k=40)
        lists = endpoint.client.post(
            "/v1/playlists/continue", json={"history": [text_of(17), "i09"], "steps": 3}
        ).json()
        assert lists["texts"] == [{"place": 0, **AS_I17}] and lists["lists"]
        assert endpoint.metric('recsys_history_texts_total{result="read"}') == 3


@pytest.mark.parametrize("lexical", [None, LexicalConfig()])
def test_a_model_of_texts_reads_a_text_as_it_is(
    tmp_path: Path, lexical: LexicalConfig | None
) -> None:
    strange = {"text": {"title": "ebony lake ivory attic"}}
    with live(recformer_bundle(tmp_path, lexical), None) as endpoint:
        mixed = endpoint.ask(history=["i05", text_of(17), "i09"], **OPEN)
        known = endpoint.ask(history=["i05", "i17", "i09"], **OPEN)
        assert scores(mixed) == pytest.approx(scores(known), abs=1e-5)  # its words are those of i17
        assert mixed["texts"] == [{"place": 1, "taken_as": "text", "read_as": None}]
        found = scores(endpoint.ask(history=["i05", strange, text_of(17)], **OPEN))
        for item in range(1, N_ITEMS + 1):  # no item of the catalogue says this
            other = scores(endpoint.ask(history=["i05", f"i{item:02}", "i17"], **OPEN))
            assert max(abs(found[i] - other[i]) for i in other) > 1e-3
        # A list is made item by item, and every step reads the text again.
        history: list[Any] = [strange, "i09"]
        body = {"history": history, "steps": 3, "groups": 1, "beams": 1}
        [made] = endpoint.client.post("/v1/playlists/continue", json=body).json()["lists"]
        for step in made["items"]:
            assert endpoint.items(history=history, k=1) == [step["item_id"]]
            history = [*history, step["item_id"]]


@pytest.mark.parametrize("lexical", [None, LexicalConfig()])
def test_texts_of_several_queries_are_read_together(
    tmp_path: Path, lexical: LexicalConfig | None
) -> None:
    bundle = load_bundle(recformer_bundle(tmp_path, lexical))
    reading = Recommender(bundle, read_texts=TextPlaces(bundle))
    titles = ("ebony lake", "ivory attic", "coral coral roof")
    one, two, three = (ItemText({"title": title}) for title in titles)
    histories: list[list[str | ItemText]] = [["i05", one], [two], ["i07"], [three, "i01", one]]
    queries = [Query(history=history, k=8) for history in histories]
    for query, answer in zip(queries, reading.recommend(queries), strict=True):
        [alone] = reading.recommend([query])
        assert answer.items == alone.items
        assert answer.scores == pytest.approx(alone.scores, abs=1e-5)


@pytest.mark.parametrize("lexical", [None, LexicalConfig()])
def test_an_item_that_came_by_its_text_is_read_as_it_in_histories(
    tmp_path: Path, lexical: LexicalConfig | None
) -> None:
    title = {"title": "ebony lake ivory attic"}
    with live(recformer_bundle(tmp_path, lexical), tmp_path / "state") as endpoint:
        endpoint.add("other", like=["i09"])  # by what it is like: read as that
        endpoint.add("new", attributes=title)
        text: list[Any] = ["other", {"text": title}, "i03", text_of(8)]
        found = endpoint.ask(history=text, **OPEN)
        by_id = endpoint.ask(history=["other", "new", "i03", text_of(8)], **OPEN)
        assert scores(by_id) == pytest.approx(scores(found), abs=1e-5)
        old = endpoint.ask(history=["i09", "new", "i03", text_of(8)], **OPEN)
        assert scores(old) == pytest.approx(scores(found), abs=1e-5)


INVISIBLE = "\u200b", "\x00", "\x1f", "\u0301"


@pytest.mark.parametrize("title", INVISIBLE)
@pytest.mark.parametrize("make", [recformer_bundle, frozen_bundle])
def test_what_nobody_can_read_says_nothing(
    tmp_path: Path, title: str, make: Callable[[Path], Path]
) -> None:
    bundle = load_bundle(make(tmp_path))
    reading = Recommender(bundle, read_texts=TextPlaces(bundle))
    nothing = ItemText({"title": title})
    alone, mixed, known = reading.recommend(
        [Query(history=history, k=5) for history in ([nothing], [nothing, "i05"], ["i05"])]
    )
    assert alone.fallback == "unknown_history" and alone.texts[0].taken_as == "nothing"
    assert (mixed.items, mixed.scores) == (known.items, known.scores)
    assert TextPlaces(bundle).vector({"title": title}) is None


def test_a_text_that_is_no_text_is_its_senders_to_mend(tmp_path: Path) -> None:
    bundle = load_bundle(recformer_bundle(tmp_path))
    reading = Recommender(bundle, read_texts=TextPlaces(bundle))
    for history in ([ItemText({"title": b"x"})], ["i05", ItemText({"title": b"x"})]):  # type: ignore[dict-item]
        with pytest.raises(DataError, match="attribute 'title' holds Binary, which is no text"):
            reading.recommend([Query(history=history, k=5)])
    [answer] = reading.recommend([Query(history=[ItemText({"title": "amber lamp"})], k=5)])
    assert answer.texts[0].taken_as == "text"


@pytest.mark.parametrize("make", [recformer_bundle, learned_bundle])
def test_what_stands_in_for_a_model_takes_a_text_for_an_item(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    bundle = load_bundle(make(tmp_path))
    ladder = Ladder(Recommender(bundle, read_texts=TextPlaces(bundle)))
    text = ItemText({"title": titled()["title"][16]})
    answer, rung = ladder.answer(Query(history=["i05", text], k=5, exclude_seen=False))
    expected, _ = ladder.answer(Query(history=["i05", "i17"], k=5, exclude_seen=False))
    assert (answer.items, rung) == (expected.items, "item_to_item")
    assert (answer.texts[0].taken_as, answer.texts[0].read_as) == ("item", "i17")
    lists, _ = ladder.continued(Continue(history=[text], steps=2))
    assert lists.texts[0].read_as == "i17"


@pytest.mark.parametrize("failure", [RuntimeError, ArtifactError])
def test_a_model_that_fails_with_its_texts_leaves_a_list_of_the_items(
    tmp_path: Path, failure: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = load_bundle(recformer_bundle(tmp_path))

    def broken(self: Any, sentences: Any) -> None:
        raise failure("broken")

    monkeypatch.setattr(type(bundle.model), "vectors_of", broken)
    ladder = Ladder(Recommender(bundle, read_texts=TextPlaces(bundle)))
    text = ItemText({"title": titled()["title"][16]})
    for _ in range(2):
        answer, rung = ladder.answer(Query(history=["i05", text], k=5))
        expected, _ = ladder.answer(Query(history=["i05"], k=5))
        assert (answer.items, rung) == (expected.items, "item_to_item")
        assert answer.texts[0].taken_as == "nothing"


@torch.no_grad()
def test_a_list_goes_on_from_the_text_of_an_item_that_came_later(tmp_path: Path) -> None:
    bundle = load_bundle(recformer_bundle(tmp_path, LexicalConfig()))
    places = TextPlaces(bundle)
    attributes = ({"title": "ebony lake ivory attic"}, {"title": "coral coral roof"})
    new = [NewItem(f"n{i}", attributes=a, by_text=True) for i, a in enumerate(attributes)]
    model = grow(bundle, places.place(new)).bundle.model
    assert isinstance(model, EncoderModel)
    first, second = N_ITEMS + 1, N_ITEMS + 2
    text = places.sentences([{"title": "amber hall"}])

    def histories(*lists: list[int], texts: TokenStore | None = None) -> SequenceBatch:
        return replace(batch_from_lists(list(lists), None, model.max_length), texts=texts)

    for texts, one in ((None, 5), (text, -1)):
        begun = model.start(histories([one, 3], [first], texts=texts))
        begun = model.step(begun.select(torch.tensor([1, 0])), torch.tensor([second, first]))
        whole = histories([first, second], [one, 3, first], texts=texts)
        torch.testing.assert_close(begun.query, model.encode_sequences(whole), atol=1e-6, rtol=0)
        named = histories([-1, -2], [-3 if one < 0 else one, 3, -1])
        by_texts = replace(named, texts=places.sentences([*attributes, {"title": "amber hall"}]))
        inner = bundle.model
        assert isinstance(inner, EncoderModel)
        found = inner.encode_sequences(by_texts)
        torch.testing.assert_close(begun.query, found, atol=1e-6, rtol=0)
        beyond = model.beyond_product(whole)[:, : N_ITEMS + 1]
        torch.testing.assert_close(beyond, inner.beyond_product(by_texts), atol=1e-6, rtol=0)


def scores(answer: dict[str, Any]) -> dict[str, float]:
    return {item["item_id"]: item["score"] for item in answer["items"]}


def test_texts_have_their_time_and_what_says_nothing_is_left_out(tmp_path: Path) -> None:
    with live(frozen_bundle(tmp_path), tmp_path / "state") as endpoint:
        late = {**text_of(17), "time": 30}
        timed = [late, {"item": "i05", "time": 10}, {"item": "ghost", "time": 20}]
        answer = endpoint.ask(history=timed, **OPEN)
        assert answer["items"] == endpoint.ask(history=["i05", "i17"], **OPEN)["items"]
        assert (answer["unknown"], answer["texts"][0]["place"]) == (["ghost"], 0)
        assert endpoint.client.get("/v1/model").json()["reads"]["texts"] == ["title"]
        silent = {"text": {"title": "  ", "colour": "amber"}}
        answer = endpoint.ask(history=["i05", silent], **OPEN)
        assert answer["texts"] == [{"place": 1, **NOTHING}]
        assert answer["items"] == endpoint.ask(history=["i05"], **OPEN)["items"]
        assert endpoint.ask(history=[silent])["fallback"] == "unknown_history"
        endpoint.add("new", attributes={"title": "amber desk"})
        assert endpoint.ask(history=["new", text_of(17)], **OPEN)["texts"][0]["read_as"]
    logged = (next((tmp_path / "state" / "answers").glob("*.jsonl"))).read_text(encoding="utf-8")
    assert "lamp" not in logged


def test_what_a_library_is_asked_is_the_same(tmp_path: Path) -> None:
    bundle = load_bundle(learned_bundle(tmp_path))
    text = ItemText({"title": titled()["title"][16]})
    reading = Recommender(bundle, read_texts=TextPlaces(bundle))
    queries = [Query(history=["i05", one, "i09"], k=40) for one in (text, "i17")]
    mixed, known = reading.recommend(queries)
    assert [item for item in mixed.items if item != "i17"] == known.items
    [lists] = reading.continue_lists([Continue(history=[text], steps=2)])
    assert lists.texts[0].read_as == "i17"
    with pytest.raises(DataError, match=r"holds texts \(the first at 1\), but bundle tiny"):
        Recommender(bundle).recommend(queries)


def test_a_text_is_not_read_as_an_item_that_was_removed(tmp_path: Path) -> None:
    bundle = load_bundle(learned_bundle(tmp_path))
    reading = Recommender(bundle, read_texts=TextPlaces(bundle))
    query = Query(history=[ItemText({"title": titled()["title"][16]})], k=5)
    assert reading.recommend([query])[0].texts[0].read_as == "i17"
    reading.removed = bundle.item_ids.encode(["i17"]).astype(np.int64)
    assert reading.recommend([query])[0].texts[0].read_as not in ("i17", None)


def test_a_model_that_reads_no_texts_says_so(tmp_path: Path) -> None:
    with live(make_bundle(tmp_path), None) as endpoint:
        for path in ("/v1/recommend", "/v1/playlists/continue"):
            refused = endpoint.client.post(path, json={"history": ["i05", text_of(17)]})
            assert refused.status_code == 422
            assert "the model of bundle tiny reads none" in refused.json()["error"]


def test_a_tower_that_cannot_read_here_is_not_the_end_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with live(frozen_bundle(tmp_path), None) as endpoint:

        def broken(self: Any, items: Any) -> None:
            raise ArtifactError("no encoder here")

        monkeypatch.setattr("features.text_tower.TextTower.vectors", broken)
        for _ in range(2):
            refused = endpoint.client.post("/v1/recommend", json={"history": [text_of(17)]})
            assert refused.status_code == 422 and "no encoder here" not in refused.text
        assert endpoint.ask(history=["i05"])["source"] == "model"


def test_an_item_that_was_placed_keeps_its_words_when_the_reader_is_given_up(
    tmp_path: Path,
) -> None:
    places = TextPlaces(load_bundle(recformer_bundle(tmp_path, LexicalConfig())))
    item = NewItem("new", attributes={"title": "amber canyon"}, by_text=True)
    [before] = places.place([item])
    assert before.vector and before.bag
    places.tower = None
    assert places.place([item]) == (before,)
    [other] = places.place([NewItem("other", attributes={"title": "cobalt"}, by_text=True)])
    assert not other.vector and not other.bag


def test_texts_that_are_asked_for_again_are_kept_longest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.text_places.LATELY", 2)
    places = TextPlaces(load_bundle(recformer_bundle(tmp_path, LexicalConfig())))
    read: list[str] = []
    whole = TextPlaces._read
    monkeypatch.setattr(
        TextPlaces,
        "_read",
        lambda self, items: (read.extend(i["title"] for i in items), whole(self, items))[1],
    )
    for title in ("a", "b", "a", "c", "a", "b"):
        places.read([{"title": title}])
    assert read == ["a", "b", "c", "b"]  # b was the oldest when c came, though a was read first


@pytest.mark.parametrize("make", [frozen_bundle, recformer_bundle])
def test_a_text_at_which_the_tower_breaks_is_left_out_and_nobody_else_is_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Path]
) -> None:
    method = "vectors" if make is frozen_bundle else "sentences"
    whole, asked = getattr(TextTower, method), []

    def broken(self: TextTower, items: Any) -> Any:
        asked.append(len(items))
        if any(item["title"] == "odd" for item in items):
            raise RuntimeError("nobody foresaw this")
        return whole(self, items)

    monkeypatch.setattr(TextTower, method, broken)
    with live(make(tmp_path), tmp_path / "state") as endpoint:
        answer = endpoint.ask(history=["i05", {"text": {"title": "odd"}}, text_of(17)], **OPEN)
        own = {"taken_as": "text", "read_as": None}
        read = AS_I17 if make is frozen_bundle else own
        assert answer["texts"] == [{"place": 1, **NOTHING}, {"place": 2, **read}]
        assert answer["source"] == "model" and endpoint.metric("recsys_model_failures_total") == 0
        assert asked == [2, 1, 1]  # together, then each alone
        endpoint.ask(history=[text_of(17), text_of(3), text_of(4)])
        # Of vectors, which take long, what was read is known; what is new is read at once.
        assert asked == [2, 1, 1, 2 if make is frozen_bundle else 3]
        endpoint.add("new", attributes={"title": "odd"}, like=["i03"])  # placed by what it is like
        assert endpoint.ask(history=[{"text": {"title": "odd"}}])["fallback"] == "unknown_history"


@pytest.mark.parametrize(
    ("history", "place", "what", "allowed"),
    [
        ([text_of(1)] * (MAX_TEXTS + 1), "history", "has 21 items given by", "at most 20 of them"),
        ([{"text": {}}], "history.0.text", "is not allowed", "an object of 1 to 50 texts"),
        ([{"text": "amber"}], "history.0.text", "is not allowed", "an object of 1 to 50 texts"),
        ([{"text": {"title": 7}}], "history.0.text.title", "is not allowed", "at most 2000"),
        ([{"text": {"title": "x" * 2001}}], "history.0.text.title", "is not allowed", "2000 char"),
        ([{"text": {"title": "x"}, "tme": 1}], "history.0.tme", "is a key that", "text, time"),
        ([{"text": {"title": "x"}, "time": "now"}], "history.0.time", "is no whole", "seconds"),
        (["i05", {**text_of(1), "time": 1}], "history", "has times for 1 of 2", "a list of events"),
        ([{"texts": {}}], "history.0.item", "is missing", "a text of 1 to 512"),
    ],
)
def test_bad_texts_are_named(
    tmp_path: Path, history: Any, place: str, what: str, allowed: str
) -> None:
    with live(make_bundle(tmp_path), None) as endpoint:
        response = endpoint.client.post("/v1/recommend", json={"history": history})
        assert response.status_code == 422
        found = {one["place"]: one for one in response.json()["problems"]}[f"body.{place}"]
        assert found["problem"].startswith(what) and allowed in found["allowed"] and found["fix"]
