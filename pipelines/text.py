"""The items' sentences and text vectors, parts of the features stage that are made where a model reads them.

    sentences/<fold>/tokenizer/     the tokenizer of the items that have training events in the fold
    sentences/<fold>/tokens/        the catalogue's sentences (a TokenStore)
    text_vectors/<fold>/<name>/     a map of texts to vectors and `vectors.npy`, float32 [n_items + 1, D]

A refit reads those of its fold: a tokenizer or a map need not see the newest events. The catalogue is
tokenised in slices, one Ray task each. Where an earlier result lies in the workspace, texts that it has
(by the same tokenizer, within the same limits) are taken from it.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipelines.ray_session import map_partitions, ray_session, worker_count
from pipelines.runs import folds
from pipelines.statistics import FEATURES, STATISTICS, statistics_name
from recsys.config import ExperimentConfig, ItemVectors, TextConfig
from recsys.errors import DataError
from recsys.manifest import is_current, read_manifest, stable_hash, stage_directory

if TYPE_CHECKING:
    import numpy as np

    from recsys.data.token_store import TokenStore

SENTENCES: Final = "sentences"
TOKENIZER, TOKENS = "tokenizer", "tokens"
ITEMS_AT_ONCE: Final = 50_000
VERSION: Final = 1


def wants_sentences(config: ExperimentConfig) -> bool:
    """Tell whether a configured model reads sentences, itself or by their vectors."""
    return any(getattr(model, "needs_sentences", False) for model in config.models.values()) or any(
        wanted.source == "tokens" for wanted in wanted_vectors(config)
    )


def wanted_vectors(config: ExperimentConfig) -> list[ItemVectors]:
    """Return the text vectors that configured models read, each once."""
    found = (getattr(model, "item_vectors", None) for model in config.models.values())
    return list(dict.fromkeys(one for one in found if one is not None))


def sentences_key(config: ExperimentConfig) -> str:
    """Return the hash of everything that makes the sentences; needs the features stage."""
    from features.sentences import VERSION as SENTENCE_VERSION
    from features.tokenizer import tokenizer_files

    text = config.text
    trained = text.tokenizer == "train"
    return stable_hash(
        {
            "features": read_manifest(config.workspace / FEATURES)["key"],
            "text": text.model_dump(mode="json", exclude={"tokenizer"}),
            "tokenizer": "train" if trained else tokenizer_files(Path(text.tokenizer)),
            "version": [VERSION, SENTENCE_VERSION],
        }
    )


def build_sentences(config: ExperimentConfig) -> Path:
    """Return the finished `sentences/` directory, made anew unless it is current."""
    directory, key = config.workspace / SENTENCES, sentences_key(config)
    if is_current(directory, key):
        return directory
    with stage_directory(directory, key) as (work, manifest), ray_session(config.ray):
        rows = {
            fold: _build_fold(config, fold, work / fold, directory / fold) for fold in folds(config)
        }
        inputs = {"features": read_manifest(config.workspace / FEATURES)["key"]}
        manifest.update(inputs=inputs, config=config.text.model_dump(mode="json"), rows=rows)
    return directory


def open_sentences(config: ExperimentConfig, fold: str) -> TokenStore:
    """Return the catalogue's sentences as a model of this fold reads them, memory-mapped."""
    from recsys.data.token_store import TokenStore
    from recsys.errors import ArtifactError

    directory = config.workspace / SENTENCES
    if not is_current(directory, sentences_key(config)):
        raise ArtifactError(
            f"{directory} is missing or of another configuration; run `recsys features`"
        )
    return TokenStore.load(directory / fold / TOKENS)


def attributes_of(config: ExperimentConfig) -> list[str]:
    """Return the attributes that make the sentences of the experiment's catalogue, in order."""
    import polars as pl

    from features.texts import choose_attributes

    return choose_attributes(
        pl.read_parquet(config.workspace / "prepared" / "items.parquet"), config.text
    )


def learned_items(config: ExperimentConfig, fold: str) -> np.ndarray[Any, Any]:
    """Return which items have training events in a fold, bool [n_items + 1]."""
    from recsys.data.statistics import TrainingStatistics

    path = config.workspace / FEATURES / STATISTICS / statistics_name(fold)
    return TrainingStatistics.load(path).item_counts > 0


@dataclass(frozen=True)
class Slice:
    """Some items of a catalogue, and where their sentences are written."""

    items: Path
    first: int
    size: int
    to: Path


def _build_fold(config: ExperimentConfig, fold: str, work: Path, before: Path) -> dict[str, Any]:
    """Write tokenizer and tokens of a fold; return how many there are."""
    import polars as pl

    from recsys.data.token_parts import merged

    shutil.rmtree(work, ignore_errors=True)  # of a killed run
    items = config.workspace / "prepared" / "items.parquet"
    task = partial(make_tokenizer, items=items, text=config.text, to=work / TOKENIZER)
    [attributes] = map_partitions(task, [learned_items(config, fold)], 1, "tokenizer")
    size = pl.scan_parquet(items).select(pl.len()).collect().item()
    slices = [
        Slice(items, at, min(ITEMS_AT_ONCE, size - at), work / "parts" / f"{at:012d}")
        for at in range(0, size, ITEMS_AT_ONCE)
    ]
    tokenise = partial(
        tokenise_slice,
        tokenizer=work / TOKENIZER,
        attributes=attributes,
        text=config.text,
        before=before / TOKENS if (before / TOKENS).is_dir() else None,
    )
    reused = sum(map_partitions(tokenise, slices, worker_count(config.ray), "sentences"))
    store = merged([part.to for part in slices], work / TOKENS)
    shutil.rmtree(work / "parts")
    _check_empty(store, items, config.text, attributes)
    texts = store.n_texts - 1
    return {
        "items": size,
        "texts": texts,
        "tokens": len(store.tokens),
        "texts_reused": reused,
        "attributes": attributes,
    }


def make_tokenizer(
    learned: np.ndarray[Any, Any], items: Path, text: TextConfig, to: Path
) -> list[str]:
    """Write a fold's tokenizer and return the attributes that it is of (a Ray task)."""
    import polars as pl

    from features.texts import attribute_texts, choose_attributes, most_characters
    from features.tokenizer import load_tokenizer, train_tokenizer

    attributes = choose_attributes(pl.read_parquet(items), text)
    if text.tokenizer != "train":
        load_tokenizer(Path(text.tokenizer)).save(to)
        return attributes
    frame = pl.read_parquet(items, columns=attributes).filter(pl.Series(learned[1:]))
    texts = attribute_texts(frame, attributes, most_characters(text, attributes))
    values = [value for name in attributes for value in texts[name] if value]
    train_tokenizer(
        values, attributes, vocabulary_size=text.vocabulary_size, lowercase=text.lowercase
    ).save(to)
    return attributes


def tokenise_slice(
    part: Slice, tokenizer: Path, attributes: list[str], text: TextConfig, before: Path | None
) -> int:
    """Write the sentences of a slice; return how many texts were taken from `before` (a Ray task)."""
    import numpy as np
    import polars as pl

    from features.sentences import SentenceMaker
    from features.tokenizer import load_tokenizer
    from recsys.data.token_parts import shared_texts
    from recsys.data.token_store import TokenStore

    maker = SentenceMaker(load_tokenizer(tokenizer), tuple(attributes), text)
    frame = pl.scan_parquet(part.items).select(attributes).slice(part.first, part.size).collect()
    known = None if before is None else TokenStore.load(before)
    store = maker.of_frame(frame, known)
    store.save(part.to)
    if known is None or known.tokenizer_hash != store.tokenizer_hash:
        return 0
    return int(np.count_nonzero(shared_texts(store, known)))


def _check_empty(store: TokenStore, items: Path, text: TextConfig, attributes: list[str]) -> None:
    """Refuse a catalogue with items that have no sentence, unless the configuration keeps them."""
    import numpy as np
    import polars as pl

    empty = np.flatnonzero(np.asarray(store.rows[1:]) == 0)
    if not len(empty) or text.empty_items == "keep":
        return
    ids = pl.read_parquet(items, columns=["item_id"])["item_id"]
    shown = ", ".join(ids[int(row)] for row in empty[:5])
    raise DataError(
        f"{items}: {len(empty)} of {len(ids)} items have no value in any of {', '.join(attributes)} "
        f"that the tokenizer reads within text.attribute_limits and text.item_tokens, such as {shown}; give "
        "them texts, name other columns in text.attributes, or set text.empty_items: keep, with which they "
        "have no sentence"
    )
