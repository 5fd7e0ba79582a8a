"""Weights of pre-trainings and of local Hugging Face checkpoints as weights of `TextEncoder`.

Understood are Longformer, whose first token attends by projections of its own, and BERT, RoBERTa and
their like (MiniLM), whose projections are then copied for it where the encoder's are `separate`. Read
are `config.json` and `model.safetensors` of a directory; nothing is fetched, and `transformers` is not
needed.

What a checkpoint lacks is made of what it has: the four types are copies of its type 0, which keeps
the first layer's input as it was; more places than it has repeat those it has; item places are drawn.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from recsys.config.text_encoder import TextEncoderConfig
from recsys.errors import ArtifactError
from recsys.manifest import file_hash, stable_hash
from recsys.models.recformer.encoder import TYPES, TextEncoder

CONFIG, WEIGHTS = "config.json", "model.safetensors"
ENCODER_FACTS, ENCODER_WEIGHTS = "encoder.json", "encoder.safetensors"
"""Files of a pre-training's directory, which also holds its tokenizer."""
SHAPE: Final = ("width", "blocks", "heads", "inner", "window", "global_projections", "norm_eps")
FIRST_PLACE: Final = {"bert": 0, "longformer": None, "roberta": None, "xlm-roberta": None}
"""Where position embeddings begin; None: after the padding token's id."""
PARTS: Final = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.global_query": "attention.self.query_global",
    "attention.global_key": "attention.self.key_global",
    "attention.global_value": "attention.self.value_global",
    "attention.out": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm2": "output.LayerNorm",
}
"""Our names of a block's parts, and a checkpoint's."""


def read_encoder_config(directory: Path, **settings: Any) -> TextEncoderConfig:
    """Return the configuration of an encoder that a checkpoint's weights fit; `settings` go before.

    Raises:
        ArtifactError: the directory holds no checkpoint that is understood.
    """
    raw = _read_config(directory)
    longformer = raw["model_type"] == "longformer"
    shape: dict[str, Any] = {
        "width": raw["hidden_size"],
        "blocks": raw["num_hidden_layers"],
        "heads": raw["num_attention_heads"],
        "inner": raw["intermediate_size"],
        "dropout": raw.get("hidden_dropout_prob", 0.1),
        "norm_eps": raw.get("layer_norm_eps", 1e-12),
        "global_projections": "separate" if longformer else "tied",
        "window": _window(directory, raw) if longformer else None,
    }
    return TextEncoderConfig(**{**shape, **settings})


def load_checkpoint(encoder: TextEncoder, directory: Path) -> None:
    """Fill an encoder with a checkpoint's weights; those of item places are left as they were drawn.

    Raises:
        ArtifactError: the directory holds no checkpoint that is understood, or one of another shape.
    """
    raw = _read_config(directory)
    check_shape(encoder, raw, directory / CONFIG)
    tensors = _read_weights(directory)
    state = {**_tables(encoder, raw, tensors), **_blocks(encoder, tensors)}
    missing = set(encoder.state_dict()) - set(state) - {"item_places.weight"}
    if missing:
        raise ArtifactError(
            f"{directory / WEIGHTS} lacks weights that the encoder has: {', '.join(sorted(missing)[:3])}"
            f" ({len(missing)} in all); it is no whole checkpoint of kind {raw['model_type']}"
        )
    encoder.load_state_dict(state, strict=False)


def check_shape(encoder: TextEncoder, raw: Mapping[str, Any], file: Path) -> None:
    """Raise `ArtifactError` where a checkpoint's shape is not the encoder's, naming both sides."""
    config = encoder.config
    pairs = {
        "width": (config.width, raw["hidden_size"]),
        "blocks": (config.blocks, raw["num_hidden_layers"]),
        "heads": (config.heads, raw["num_attention_heads"]),
        "inner": (config.inner, raw["intermediate_size"]),
        "vocabulary": (encoder.words.num_embeddings, raw["vocab_size"]),
    }
    wrong = [f"{name} {own} and not {its}" for name, (own, its) in pairs.items() if own != its]
    if wrong:
        raise ArtifactError(
            f"{file} is of another shape than the encoder, which has {', '.join(wrong)}; set the "
            "encoder's shape to the checkpoint's, and use the checkpoint's own tokenizer"
        )


def _tables(
    encoder: TextEncoder, raw: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the embedding tables and their norm."""
    first = FIRST_PLACE[raw["model_type"]]
    first = int(raw["pad_token_id"]) + 1 if first is None else first
    places = tensors["embeddings.position_embeddings.weight"][first:]
    which = torch.arange(encoder.config.max_tokens) % len(places)
    kind = tensors["embeddings.token_type_embeddings.weight"][:1]
    return {
        "words.weight": tensors["embeddings.word_embeddings.weight"],
        "places.weight": places[which],
        "types.weight": kind.repeat(TYPES, 1),
        "norm.weight": tensors["embeddings.LayerNorm.weight"],
        "norm.bias": tensors["embeddings.LayerNorm.bias"],
    }


def _blocks(encoder: TextEncoder, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of the blocks that the checkpoint has."""
    state = {}
    separate = encoder.config.global_projections == "separate"
    for block in range(encoder.config.blocks):
        for ours, theirs in PARTS.items():
            if "global" in ours and not separate:
                continue
            for kind in ("weight", "bias"):
                name = f"encoder.layer.{block}.{theirs}.{kind}"
                found = tensors.get(name, tensors.get(name.replace("_global", "")))
                if found is not None:
                    state[f"blocks.{block}.{ours}.{kind}"] = found
    return state


def _read_config(directory: Path) -> dict[str, Any]:
    file = directory / CONFIG
    if not file.is_file():
        raise ArtifactError(f"{directory} holds no Hugging Face checkpoint: {file} is missing")
    try:
        raw: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{file} is no JSON ({error}); copy the checkpoint again") from error
    if raw.get("model_type") not in FIRST_PLACE:
        raise ArtifactError(
            f"{file}: model_type is {raw.get('model_type')!r}; understood are "
            f"{', '.join(FIRST_PLACE)}"
        )
    if raw.get("hidden_act", "gelu") != "gelu":
        raise ArtifactError(f"{file}: hidden_act is {raw['hidden_act']!r}; the encoder has gelu")
    return raw


def _window(directory: Path, raw: Mapping[str, Any]) -> int:
    window = raw["attention_window"]
    widths = set(window) if isinstance(window, list) else {window}
    if len(widths) != 1:
        raise ArtifactError(
            f"{directory / CONFIG}: attention_window differs between layers ({sorted(widths)}); the "
            "encoder has one, set encoder.window"
        )
    return int(widths.pop())


def _read_weights(directory: Path) -> dict[str, Tensor]:
    """Return the tensors by names without the model's own prefix."""
    file = directory / WEIGHTS
    if not file.is_file():
        raise ArtifactError(f"{file} is missing; save the checkpoint as safetensors")
    found = _read_tensors(file)
    prefixes = ("longformer.", "roberta.", "bert.")
    tensors = {}
    for name, value in found.items():
        prefix = next((p for p in prefixes if name.startswith(p)), "")
        tensors[name.removeprefix(prefix)] = value.float()
    if "embeddings.word_embeddings.weight" not in tensors:
        raise ArtifactError(f"{file} has no embeddings.word_embeddings.weight; it is no encoder's")
    return tensors


def _read_tensors(file: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(file)
    except SafetensorError as error:
        raise ArtifactError(f"{file} is damaged ({error}); copy the checkpoint again") from error
    return tensors


def save_pretrained(encoder: TextEncoder, tokenizer_hash: str, directory: Path) -> None:
    """Write an encoder and what it is, for `load_pretrained`."""
    state = {
        name: value.detach().cpu().contiguous() for name, value in encoder.state_dict().items()
    }
    save_file(state, directory / ENCODER_WEIGHTS)
    facts = {
        "encoder": encoder.config.model_dump(mode="json"),
        "vocabulary": encoder.words.num_embeddings,
        "tokenizer_hash": tokenizer_hash,
    }
    (directory / ENCODER_FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def load_pretrained(encoder: TextEncoder, tokenizer_hash: str, directory: Path) -> None:
    """Fill an encoder with the weights of a pre-training, or else of a Hugging Face checkpoint.

    An encoder that reads less than the pre-trained one (`max_tokens`, `max_items`) takes the first of
    its places.

    Args:
        encoder: of the sentences' vocabulary.
        tokenizer_hash: of the sentences; that of a Hugging Face checkpoint is not known, there the size
            of the vocabulary must do.
        directory: of either.

    Raises:
        ArtifactError: there is neither, or it is of another shape or tokenizer; both sides are named.
    """
    file = directory / ENCODER_FACTS
    if not file.is_file():
        load_checkpoint(encoder, directory)
        return
    facts = json.loads(file.read_text(encoding="utf-8"))
    if facts["tokenizer_hash"] != tokenizer_hash:
        raise ArtifactError(
            f"{file}: the weights are of tokenizer {facts['tokenizer_hash'][:8]}, the sentences of "
            f"tokenizer {tokenizer_hash[:8]}; set text.tokenizer to {directory}"
        )
    # Files of before the setting have structure; those of a checkpoint's shape have no other way.
    own, its = encoder.config.model_dump(), {"structure": True, **facts["encoder"]}
    same = (*SHAPE, "structure")
    wrong = [f"{name} {own[name]} and not {its[name]}" for name in same if own[name] != its[name]]
    wrong += [
        f"{name} {own[name]} and not at most {its[name]}"
        for name in ("max_tokens", "max_items")
        if own[name] > its[name]
    ]
    if wrong:
        raise ArtifactError(
            f"{file} is of another shape than the encoder, which has {', '.join(wrong)}; set the "
            "model's `encoder` to that of the pre-training"
        )
    tensors = _read_tensors(directory / ENCODER_WEIGHTS)
    tensors["places.weight"] = tensors["places.weight"][: encoder.config.max_tokens]
    tensors["item_places.weight"] = tensors["item_places.weight"][: encoder.config.max_items + 1]
    encoder.load_state_dict(tensors)


def checkpoint_hash(directory: Path) -> str:
    """Return a sha256 of the weights and of what says what they are, or `ArtifactError`."""
    own = directory / ENCODER_FACTS
    files = (
        (own, directory / ENCODER_WEIGHTS)
        if own.is_file()
        else (directory / CONFIG, directory / WEIGHTS)
    )
    for file in files:
        if not file.is_file():
            raise ArtifactError(
                f"{directory} holds neither a finished pre-training nor a Hugging Face checkpoint "
                f"({file.name} is missing); run `recsys pretrain`, or set `pretrained` to another one"
            )
    return stable_hash([file_hash(file) for file in files])
