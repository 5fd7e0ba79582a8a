"""Vectors of texts: streamed, sorted by length, each distinct text once, the unchanged not again.

Texts of like length are encoded together, so that hardly anything is padding; memory is that of one
block of texts and of the result. Where vectors are kept in a file, only texts whose content hash is not
in it are encoded; the file is of one encoder, and of any other it is not read.

Shapes: R texts, D width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from recsys.data.item_sentences import item_sentences
from recsys.data.sequences import Int64
from recsys.data.token_store import TokenStore
from recsys.errors import ArtifactError
from recsys.manifest import written_aside
from recsys.models.recformer.encoder import TextEncoder

BLOCK: Final = 8192
"""Texts put together at once."""

Float32 = npt.NDArray[np.float32]


@torch.no_grad()
def text_vectors(encoder: TextEncoder, sentences: TokenStore) -> Tensor:
    """Return the unit vectors of all texts of a store, float32 [R, D], on the encoder's device."""
    device = encoder.words.weight.device
    vectors = torch.empty(sentences.n_texts, encoder.config.width, device=device)
    for texts, found in encoded_blocks(encoder, sentences, np.arange(sentences.n_texts)):
        vectors[torch.from_numpy(texts).to(device)] = found
    return vectors


@torch.no_grad()
def encoded_blocks(
    encoder: TextEncoder, sentences: TokenStore, texts: Int64
) -> Iterator[tuple[Int64, Tensor]]:
    """Yield `(texts [M], their unit vectors float32 [M, D])` until all of `texts` are done.

    They come in order of length, ties in that of the store.
    """
    device, config = encoder.words.weight.device, encoder.config
    was_training = encoder.training
    encoder.eval()
    every = replace(sentences, rows=np.arange(sentences.n_texts, dtype=np.int32))
    lengths = np.diff(sentences.offsets)[texts]
    order = texts[np.argsort(lengths, kind="stable")]
    for at in range(0, len(order), BLOCK):
        some = order[at : at + BLOCK]
        batch = item_sentences(every, some, **config.limits)
        yield some, F.normalize(encoder.encode(batch.to(device)).float(), dim=-1)
    encoder.train(was_training)


def weights_hash(encoder: TextEncoder) -> str:
    """Return a sha256 over an encoder's weights and the lengths that it cuts at."""
    digest = hashlib.sha256(encoder.config.model_dump_json().encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def kept_text_vectors(
    encoder: TextEncoder, sentences: TokenStore, file: Path
) -> tuple[Float32, int]:
    """Return `(unit vectors of all texts [R, D], how many were encoded now)`, and keep them in `file`.

    A file of other weights is not used, and replaced.

    Raises:
        ArtifactError: the file is damaged.
    """
    weights = weights_hash(encoder)
    known, old = _read(file, weights, encoder.config.width)
    hashes = np.asarray(sentences.hashes)
    place = _find(known, hashes)
    vectors = np.empty((len(hashes), encoder.config.width), dtype=np.float32)
    there = place >= 0
    vectors[there] = old[place[there]]
    missing = np.flatnonzero(~there)
    for texts, found in encoded_blocks(encoder, sentences, missing):
        vectors[texts] = found.cpu().numpy()
    if len(missing) or len(known) != len(hashes):
        _write(file, weights, hashes, vectors)
    return vectors, len(missing)


def _find(known: npt.NDArray[np.uint64], wanted: npt.NDArray[np.uint64]) -> Int64:
    """Return where each of `wanted` [M, 2] is among `known` [K, 2], -1 if it is not."""
    if len(known) == 0:
        return np.full(len(wanted), -1, dtype=np.int64)
    pair = np.dtype([("a", np.uint64), ("b", np.uint64)])
    keys = np.ascontiguousarray(known).view(pair).ravel()
    asked = np.ascontiguousarray(wanted).view(pair).ravel()
    order = np.argsort(keys, order=("a", "b"), kind="stable")
    at = np.searchsorted(keys[order], asked).clip(max=len(keys) - 1)
    found = order[at]
    return np.where(keys[found] == asked, found, -1)


def _read(file: Path, weights: str, width: int) -> tuple[npt.NDArray[np.uint64], Float32]:
    nothing = np.zeros((0, 2), dtype=np.uint64), np.zeros((0, width), dtype=np.float32)
    if not file.is_file():
        return nothing
    try:
        with safe_open(file, framework="numpy") as content:
            if (content.metadata() or {}).get("weights") != weights:
                return nothing
            return content.get_tensor("hashes").view(np.uint64), content.get_tensor("vectors")
    except SafetensorError as error:
        raise ArtifactError(f"{file} is damaged ({error}); delete it, it is made again") from error


def _write(file: Path, weights: str, hashes: npt.NDArray[np.uint64], vectors: Float32) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        "hashes": torch.from_numpy(hashes.view(np.int64).copy()),
        "vectors": torch.from_numpy(vectors),
    }
    with written_aside(file) as aside:  # processes that train together all write it
        save_file(tensors, aside, metadata={"weights": weights})
