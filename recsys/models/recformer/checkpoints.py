"""Weights of local Hugging Face checkpoints as weights of `TextEncoder`.

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
from safetensors.torch import load_file
from torch import Tensor

from recsys.config.text_encoder import TextEncoderConfig
from recsys.errors import ArtifactError
from recsys.models.recformer.encoder import TYPES, TextEncoder

CONFIG, WEIGHTS = "config.json", "model.safetensors"
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
    try:
        found = load_file(file)
    except SafetensorError as error:
        raise ArtifactError(f"{file} is damaged ({error}); copy the checkpoint again") from error
    prefixes = ("longformer.", "roberta.", "bert.")
    tensors = {}
    for name, value in found.items():
        prefix = next((p for p in prefixes if name.startswith(p)), "")
        tensors[name.removeprefix(prefix)] = value.float()
    if "embeddings.word_embeddings.weight" not in tensors:
        raise ArtifactError(f"{file} has no embeddings.word_embeddings.weight; it is no encoder's")
    return tensors
