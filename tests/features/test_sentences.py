"""Item sentences: the specification's oracles, every kind of value, and what is tokenised again."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from features.sentences import SentenceMaker
from features.texts import attribute_texts, choose_attributes, most_characters
from features.tokenizer import TextTokenizer, load_tokenizer, train_tokenizer
from recsys.config import TextConfig
from recsys.data.item_sentences import history_sentences
from recsys.data.token_store import TokenStore
from recsys.errors import ArtifactError, ConfigError, DataError

pytest.importorskip("tokenizers")

WORDS = {"title": 10, "brand": 11, "category": 12, "red": 13, "lamp": 14, "acme": 15, "home": 16}
WORDS |= {"blue": 17, "chair": 18, "[UNK]": 2, "[PAD]": 99, "[MASK]": 1, "[CLS]": 0}
A = {"title": "red lamp", "brand": "acme", "category": "home"}
B = {"title": "blue chair", "brand": "", "category": "home", "color": "red"}
ATTRIBUTES = ("title", "brand", "category")


def word_level() -> TextTokenizer:
    """The specification's tokenizer: one token a word."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    rust = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    rust.pre_tokenizer = pre_tokenizers.Whitespace()
    return TextTokenizer(rust, {"pad": 99, "cls": 0, "mask": 1, "unk": 2})


def maker(attributes: tuple[str, ...] = ATTRIBUTES, **settings: Any) -> SentenceMaker:
    return SentenceMaker(word_level(), attributes, TextConfig(**settings))


def sentence(store: TokenStore, item: int) -> list[int]:
    first, length = store.spans(np.array([item]))
    return store.tokens[first[0] : first[0] + length[0]].tolist()


def history_ids(made: SentenceMaker, **limits: int) -> list[int]:
    store = made.of_items([A, B])
    limits = {"max_items": 50, "max_tokens": 1024, **limits}
    batch = history_sentences(store, np.array([1, 2]), np.array([0]), np.array([2]), **limits)
    return batch.ids[0].tolist()  # type: ignore[no-any-return]


def test_the_oracles_of_the_specification() -> None:
    assert history_ids(maker()) == [0, 10, 17, 18, 11, 12, 16, 10, 13, 14, 11, 15, 12, 16]
    cut = maker(attribute_tokens=2)
    assert history_ids(cut) == [0, 10, 17, 11, 12, 16, 10, 13, 11, 15, 12, 16]
    assert history_ids(maker(), max_tokens=6) == [0, 10, 17, 18, 11, 12]
    assert history_ids(maker(), max_items=1) == [0, 10, 17, 18, 11, 12, 16]
    assert history_ids(maker(("title",))) == [0, 10, 17, 18, 10, 13, 14]


def test_types_and_word_starts() -> None:
    store = maker().of_items([A, B])
    assert store.types.tolist() == [1, 2, 2, 1, 2, 1, 2, 1, 2, 2, 1, 1, 2]
    assert store.word_starts.all()


def test_limits_by_attribute_and_item() -> None:
    store = maker(attribute_limits={"title": 2}, item_tokens=5).of_items([A])
    assert sentence(store, 1) == [10, 13, 11, 15, 12]
    assert store.types.tolist() == [1, 2, 1, 2, 1]
    with pytest.raises(ValueError, match="attribute_limits: colour is no attribute of title"):
        TextConfig(attributes=["title"], attribute_limits={"colour": 3})


def test_items_without_any_value_have_no_sentence_and_equal_ones_share_theirs() -> None:
    store = maker().of_items([A, {"title": "  ", "brand": None}, {}, A])
    assert store.lengths().tolist() == [0, 7, 0, 0, 7]
    assert (store.n_texts, len(store.tokens)) == (2, 7)
    assert store.item_hashes()[[2, 3]].tolist() == [[0, 0], [0, 0]]
    assert store.item_hashes()[1].tolist() == store.item_hashes()[4].tolist()


def test_what_the_tokenizer_reads_nothing_of_is_no_text() -> None:
    tokenizer = train_tokenizer(["red lamp"], ("title",), vocabulary_size=64, lowercase=True)
    made = SentenceMaker(tokenizer, ("title",), TextConfig())
    titles = ["\u200b", "red", "\x00", "red \u0301", "\u200b"]
    items = [{"title": title} for title in titles]
    store = made.of_items(items)
    assert (store.lengths() > 0).tolist() == [False, False, True, False, True, False]
    assert store.rows.tolist() == [0, 0, 1, 0, 2, 0]  # all of them are the empty text
    assert (store.item_hashes()[[1, 3, 5]] == 0).all()
    again = made.of_frame(pl.DataFrame(items), store)
    assert again.rows.tolist() == store.rows.tolist()


@pytest.mark.parametrize("limits", [{"attribute_limits": {"red lamp": 2}}, {"item_tokens": 2}])
def test_a_name_that_leaves_no_room_for_values_is_refused(limits: dict[str, Any]) -> None:
    made = maker(("red lamp",), **limits)  # two tokens
    with pytest.raises(ConfigError, match=r"attribute 'red lamp' has 2 tokens in its name alone"):
        made.of_items([{"red lamp": "home"}])


def test_the_hash_knows_text_limits_and_tokenizer() -> None:
    def hashes(made: SentenceMaker, item: dict[str, str]) -> list[int]:
        return made.of_items([item]).item_hashes()[1].tolist()  # type: ignore[no-any-return]

    other = SentenceMaker(
        train_tokenizer(["red lamp"], ATTRIBUTES, vocabulary_size=64, lowercase=True),
        ATTRIBUTES,
        TextConfig(),
    )
    found = [
        hashes(maker(), A),
        hashes(maker(), A | {"brand": "", "category": "acme home"}),
        hashes(maker(attribute_tokens=5), A),
        hashes(maker(item_tokens=5), A),
        hashes(maker(("title", "category", "brand")), A),
        hashes(other, A),
    ]
    assert len({tuple(one) for one in found}) == len(found)
    assert hashes(maker(), A) == hashes(maker(), {**A, "title": "red \n lamp ", "color": "red"})


def test_only_what_changed_is_tokenised_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made = maker()
    before = made.of_items([A, B])
    seen: list[int] = []
    whole = SentenceMaker._tokenise
    monkeypatch.setattr(
        SentenceMaker,
        "_tokenise",
        lambda self, texts, hashes: (seen.append(texts.height), whole(self, texts, hashes))[1],
    )
    changed = pl.DataFrame([B, {**A, "brand": "home"}, A], schema=["title", "brand", "category"])
    after = made.of_frame(changed, before)
    assert seen == [1]
    alone = made.of_frame(changed)
    for name in ("tokens", "types", "word_starts", "offsets", "hashes", "rows"):
        assert getattr(after, name).tolist() == getattr(alone, name).tolist(), name
    other = SentenceMaker(made.tokenizer, ATTRIBUTES, TextConfig(attribute_tokens=3))
    assert other.of_frame(changed, before).lengths().tolist() == [0, 6, 7, 7]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("  Two\twords\n", "Two words"),
        (None, ""),
        ("", ""),
        (7, "7"),
        (-3.25, "-3.25"),
        (4.0, "4"),
        (1e300, "1e+300"),
        (float("nan"), ""),
        (float("inf"), ""),
        (True, "true"),
        (["Face", "", None, " Eyes"], "Face Eyes"),
        ([[1, 2], [3]], "1 2 3"),
        ([], ""),
        ({"name": "Acme", "since": 1901, "no": None}, "Acme 1901"),
        (datetime.date(2014, 6, 30), "2014-06-30"),
        ("Красная лампа 红灯", "Красная лампа 红灯"),
    ],
)
def test_every_kind_of_value_has_its_text(value: object, text: str) -> None:
    frame = pl.DataFrame({"x": pl.Series([value])})
    assert attribute_texts(frame, ["x"], {"x": 100})["x"].to_list() == [text]


def test_a_column_and_its_only_value_alone_have_the_same_text() -> None:
    column = pl.DataFrame(
        {"title": ["Red", None], "price": [1.5, None], "tags": [["a", "b"], None]}
    )
    attributes = tuple(column.columns)
    made = SentenceMaker(word_level(), attributes, TextConfig())
    rows = made.of_items([{"title": "Red", "price": 1.5, "tags": ["a", "b"]}, {}])
    assert rows.item_hashes().tolist() == made.of_frame(column).item_hashes().tolist()


def test_bytes_are_refused_by_name() -> None:
    with pytest.raises(DataError, match="attribute 'x' holds Binary"):
        attribute_texts(pl.DataFrame({"x": [b"a"]}), ["x"], {"x": 9})


def test_of_a_long_description_only_the_beginning_is_read() -> None:
    long = "word " * 20_000
    frame = pl.DataFrame({"title": [long]})
    characters = most_characters(TextConfig(attribute_tokens=4), ["title"])
    assert len(attribute_texts(frame, ["title"], characters)["title"][0]) <= 4 * 64
    made = SentenceMaker(word_level(), ("title",), TextConfig(attribute_tokens=4))
    assert sentence(made.of_frame(frame), 1) == [10, 2, 2, 2]
    unbroken = made.of_items([{"title": "x" * 100_000}])
    assert sentence(unbroken, 1) == [10, 2]


def test_attributes_by_default_and_by_name() -> None:
    frame = pl.DataFrame(
        {"item_id": ["a"], "item": [1], "category": [["x"]], "title": ["t"], "n": [1]}
    )
    assert choose_attributes(frame, TextConfig()) == ["title", "category"]
    assert choose_attributes(
        frame.drop("category", "title").with_columns(about=pl.lit("x")), TextConfig()
    ) == ["about"]
    assert choose_attributes(frame, TextConfig(attributes=["n", "title"])) == ["n", "title"]
    with pytest.raises(ConfigError, match="the catalogue has no brand; it has category, title, n"):
        choose_attributes(frame, TextConfig(attributes=["brand"]))
    with pytest.raises(ConfigError, match=r"no column of text.*data\.items"):
        choose_attributes(frame.select("item_id", "item", "n"), TextConfig())


def trained(lowercase: bool = True) -> TextTokenizer:
    texts = ["Red lamp", "blue lamp shade", "Café table", "red tables"] * 3
    return train_tokenizer(
        texts, ["title", "product_type"], vocabulary_size=120, lowercase=lowercase
    )


def test_a_trained_tokenizer_has_names_as_single_tokens_and_pad_first() -> None:
    tokenizer = trained()
    assert [tokenizer.special[role] for role in ("pad", "cls", "mask", "unk")] == [0, 1, 2, 3]
    for name in ("title", "product_type", "Title"):
        assert len(tokenizer.name_tokens(name)) == 1
    assert tokenizer.vocabulary_size <= 120
    decoded = tokenizer.rust.encode("CAFE lamps", add_special_tokens=False).tokens
    assert "".join(decoded).replace("##", "") == "cafelamps"
    store = SentenceMaker(tokenizer, ("title",), TextConfig()).of_items(
        [{"title": "shade 灯 x" + "y" * 200}]
    )
    assert store.unknown_id in sentence(store, 1)
    assert trained(lowercase=False).hash != tokenizer.hash
    assert {trained().hash for _ in range(5)} == {tokenizer.hash}


def test_word_starts_follow_the_pieces_of_words() -> None:
    tokenizer = trained()
    store = SentenceMaker(tokenizer, ("title",), TextConfig()).of_items(
        [{"title": "lampshade, red"}]
    )
    tokens = [tokenizer.rust.id_to_token(i) for i in sentence(store, 1)]
    assert "".join(tokens[1:]).replace("##", "") in ("lampshade[UNK]red", "lampshade,red")
    assert store.word_starts.tolist() == [not token.startswith("##") for token in tokens]


def test_a_tokenizer_is_read_back_as_it_was(tmp_path: Path) -> None:
    tokenizer = trained()
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert (again.hash, again.special) == (tokenizer.hash, tokenizer.special)
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert theirs("red lamps", add_special_tokens=False)["input_ids"] == list(
        again.rust.encode("red lamps", add_special_tokens=False).ids
    )
    assert (theirs.pad_token_id, theirs.mask_token_id) == (0, 2)


def test_directories_that_hold_no_tokenizer_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"holds no tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ArtifactError, match="is not a readable tokenizer"):
        load_tokenizer(tmp_path)
    trained().save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"pad_token": "[PAD]", "cls_token": "<s>"}')
    with pytest.raises(
        ArtifactError, match=r"names no cls_token that tokenizer\.json holds .*'<s>'"
    ):
        load_tokenizer(tmp_path)


def test_texts_without_a_word_train_nothing() -> None:
    with pytest.raises(DataError, match="hold no word"):
        train_tokenizer(["", " "], ["title"], vocabulary_size=64, lowercase=True)
