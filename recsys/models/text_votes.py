"""Votes of items for those whose texts are alike."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse

from recsys.config import TextVotes
from recsys.data.bags import Float32
from recsys.data.sequences import TrainingData
from recsys.errors import ArtifactError

ITEMS_AT_ONCE = 1024


def text_votes(config: TextVotes, vectors: Float32) -> sparse.csr_array:
    """Return weight * max(0, cos(t_j, t_i))^power for the most alike items i != j of each j, [V + 1, V + 1].

    `vectors` are float32 [V + 1, D] of unit length, 0 for an item without text.
    """
    table = torch.from_numpy(np.array(vectors))  # a copy: a memory-mapped array is not writable
    size = len(table)
    kept = min(config.neighbours, size - 1)
    rows, columns, values = [], [], []
    for at in range(0, size, ITEMS_AT_ONCE):
        cosines = table[at : at + ITEMS_AT_ONCE] @ table.T  # [B, V + 1]
        own = torch.arange(at, at + len(cosines))
        cosines[torch.arange(len(cosines)), own] = 0.0
        best, where = cosines.topk(kept, dim=1)
        rows.append(own.repeat_interleave(kept))
        columns.append(where.flatten())
        values.append(config.weight * best.flatten().clamp(min=0) ** config.power)
    entries = (torch.cat(values).numpy(), (torch.cat(rows).numpy(), torch.cat(columns).numpy()))
    matrix = sparse.coo_array(entries, shape=(size, size)).tocsr()
    matrix.eliminate_zeros()
    return matrix


def vectors_of(data: TrainingData) -> Float32:
    """Return the text vectors of the training data; `ArtifactError` without them."""
    if data.item_vectors is None:
        raise ArtifactError(
            "the model reads text vectors, and there are none; run the features stage"
        )
    return data.item_vectors
