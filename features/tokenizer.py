"""Tokenizers: trained on item texts, or taken from a local Hugging Face directory.

A directory holds `tokenizer.json` (the Rust tokenizer) and `tokenizer_config.json` (which tokens are
special), as `transformers` writes and reads them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from recsys.errors import ArtifactError, DataError, MissingExtraError
from recsys.manifest import file_hash, stable_hash

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER: Final = "tokenizer.json"
SETTINGS: Final = "tokenizer_config.json"
SPECIAL_MAP: Final = "special_tokens_map.json"
SPECIAL: Final = ("[PAD]", "[CLS]", "[MASK]", "[UNK]", "[SEP]")
"""The special tokens of a trained tokenizer, in the order of their ids."""
ALPHABET: Final = 1000
"""Most characters that a trained tokenizer knows."""
ROLES: Final = {
    "pad": ("pad_token",),
    "cls": ("cls_token", "bos_token"),
    "mask": ("mask_token",),
    "unk": ("unk_token",),
}


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer and what its special tokens are.

    Attributes:
        rust: the tokenizer, without padding and truncation.
        special: id of `pad`, `cls`, `mask` and `unk`.
    """

    rust: Tokenizer
    special: dict[str, int]

    @cached_property
    def hash(self) -> str:
        """A sha256 of all that decides what a text becomes."""
        content = json.loads(self.rust.to_str())
        parts = {name: content.get(name) for name in _DECIDES}
        return stable_hash({"tokenizer": parts, "special": self.special})

    @property
    def vocabulary_size(self) -> int:
        """Every token is below it."""
        return max(self.rust.get_vocab(with_added_tokens=True).values()) + 1

    def name_tokens(self, attribute: str) -> list[int]:
        """Return the tokens of an attribute's name: one, if the vocabulary has it as it is."""
        token = self.rust.token_to_id(attribute.lower())
        if token is not None:
            return [token]
        return list(self.rust.encode(attribute.replace("_", " "), add_special_tokens=False).ids)

    def save(self, directory: Path) -> None:
        """Write both files."""
        directory.mkdir(parents=True, exist_ok=True)
        self.rust.save(str(directory / TOKENIZER))
        names = {f"{role}_token": self.rust.id_to_token(i) for role, i in self.special.items()}
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
        (directory / SETTINGS).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


_DECIDES: Final = ("normalizer", "pre_tokenizer", "model", "added_tokens")


def train_tokenizer(
    texts: Sequence[str], names: Sequence[str], *, vocabulary_size: int, lowercase: bool
) -> TextTokenizer:
    """Return a WordPiece tokenizer of these texts, in whose vocabulary every attribute's name is a word.

    Characters that the texts lack become [UNK] later, as all but the `ALPHABET` most frequent do, and
    words of more than 100 characters.

    Raises:
        DataError: the texts hold no word.
    """
    lib = import_tokenizers()
    names = [name.lower() for name in names]
    rust = _word_piece(lib, {}, lowercase)
    alphabet = _alphabet(rust, texts)
    if not alphabet:
        raise DataError(
            "the texts of the training items hold no word, so no tokenizer can be trained"
        )
    # The trainer numbers characters inside words as it meets them, in an order that is not the same
    # twice, and breaks ties of counts by these numbers: so they are given theirs beforehand.
    inside = [f"##{character}" for character in alphabet]
    trainer = lib.trainers.WordPieceTrainer(
        vocab_size=max(vocabulary_size - len(names), 0),
        special_tokens=[*SPECIAL, *inside],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    rust.train_from_iterator(texts, trainer)
    vocabulary = dict(sorted(rust.get_vocab().items(), key=lambda pair: pair[1]))
    if len(vocabulary) <= len(SPECIAL):
        raise DataError(
            "the texts of the training items hold no word, so no tokenizer can be trained"
        )
    for name in names:
        vocabulary.setdefault(name, len(vocabulary))
    trained = _word_piece(lib, vocabulary, lowercase)
    trained.add_special_tokens(list(SPECIAL))
    roles = {role: vocabulary[f"[{role.upper()}]"] for role in ROLES}
    return TextTokenizer(trained, roles)


def _alphabet(rust: Tokenizer, texts: Iterable[str]) -> list[str]:
    """Return the most frequent characters of the texts as the tokenizer reads them, in code order."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(rust.normalizer.normalize_str(text))
    counts = Counter({c: n for c, n in counts.items() if not c.isspace()})
    kept = sorted(counts, key=lambda c: (-counts[c], c))[:ALPHABET]
    return sorted(kept)


def _word_piece(lib: Any, vocabulary: dict[str, int], lowercase: bool) -> Tokenizer:
    rust: Tokenizer = lib.Tokenizer(lib.models.WordPiece(vocabulary, unk_token="[UNK]"))
    rust.normalizer = lib.normalizers.BertNormalizer(lowercase=lowercase)
    rust.pre_tokenizer = lib.pre_tokenizers.BertPreTokenizer()
    return rust


def tokenizer_files(directory: Path) -> dict[str, str]:
    """Return the hash of every file that makes the tokenizer of a local directory, of those there are."""
    paths = (directory / name for name in (TOKENIZER, SPECIAL_MAP, SETTINGS))
    return {path.name: file_hash(path) for path in paths if path.is_file()}


def load_tokenizer(directory: Path) -> TextTokenizer:
    """Return the tokenizer of a local directory.

    Raises:
        ArtifactError: a file is missing or not readable, or a special token has no id.
    """
    path = directory / TOKENIZER
    if not path.is_file():
        raise ArtifactError(
            f"{directory} holds no {TOKENIZER}; name a Hugging Face directory that has one (transformers "
            "writes it by AutoTokenizer.from_pretrained(...).save_pretrained(...))"
        )
    lib = import_tokenizers()
    try:
        rust = lib.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises the bare class
        raise ArtifactError(f"{path} is not a readable tokenizer: {error}") from error
    rust.no_padding()
    rust.no_truncation()
    return TextTokenizer(rust, _special(directory, rust))


def _special(directory: Path, rust: Tokenizer) -> dict[str, int]:
    """Return the special tokens' ids by what the directory's settings call them."""
    settings: dict[str, Any] = {}
    for name in (SPECIAL_MAP, SETTINGS):
        if (directory / name).is_file():
            settings |= json.loads((directory / name).read_text(encoding="utf-8"))
    found = {}
    for role, keys in ROLES.items():
        said = next((settings[key] for key in keys if settings.get(key)), None)
        called: str | None = said.get("content") if isinstance(said, dict) else said
        token = None if called is None else rust.token_to_id(called)
        if token is None:
            raise ArtifactError(
                f"{directory}: {SETTINGS} names no {keys[0]} that {TOKENIZER} holds (it says {called!r}); "
                "the tokenizer of a masked language model has pad, cls, mask and unk tokens"
            )
        found[role] = token
    return found


def import_tokenizers() -> Any:
    """Return the module `tokenizers`; `MissingExtraError` without it."""
    try:
        import tokenizers
    except ImportError as error:
        raise MissingExtraError("tokenizers", "text") from error
    return tokenizers
