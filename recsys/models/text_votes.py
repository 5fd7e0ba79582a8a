"""Votes of items for those whose texts are alike, and what items without events inherit from these."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse

from recsys.config import TextVotes
from recsys.data.bags import Bools, Float32
from recsys.data.sequences import Int64, TrainingData
from recsys.errors import ArtifactError
from recsys.models.pairs import BLOCK_PAIRS
from recsys.models.votes import largest


def text_votes(config: TextVotes, vectors: Float32) -> sparse.csr_array:
    """Return weight * max(0, cos(t_j, t_i))^power for the most alike items i != j of each j, [V + 1, V + 1].

    `vectors` are float32 [V + 1, D] of unit length, 0 for an item without text.
    """
    every = np.arange(len(vectors))
    alike = _most_alike(vectors, every, every, config.neighbours, config.power)
    return config.weight * alike


def inherited(
    config: TextVotes,
    similarity: sparse.csr_array,
    vectors: Float32,
    learned: Bools,
    neighbours: int,
) -> sparse.csr_array:
    """Return the similarities with those that the items without events inherit, [V + 1, V + 1].

    With a_in = max(0, cos(t_i, t_n))^power for the `inherit_from` items n with training events whose texts
    are most like that of i, divided by their sum,

        sim(j, i) = inherit sum_n a_in sim(j, n)        for i without events,
        sim(j, i) = sum_n a_jn sim(n, i)                for j without events,

    both for both without; nothing else changes. Of each j no more are kept than the `neighbours` largest
    to items without events, and as many to others.

    Args:
        config: of the texts.
        similarity: of items that the same users had, [V + 1, V + 1]; 0 for items without events.
        vectors: float32 [V + 1, D] of unit length, 0 for an item without text.
        learned: bool [V + 1], which items have training events.
        neighbours: to be kept of each kind.
    """
    new = np.flatnonzero(~learned & vectors.any(axis=1))
    among = np.flatnonzero(learned)
    if config.inherit == 0 or not len(new) or not len(among):
        return similarity
    alike = _most_alike(vectors, new, among, config.inherit_from, config.power)
    total = np.asarray(alike.sum(axis=1)).ravel()
    shares = sparse.diags_array(np.divide(1.0, total, out=np.zeros(len(total)), where=total > 0))
    parents = sparse.csr_array(shares @ alike)  # a, rows of learned items empty
    own = sparse.diags_array(learned.astype(np.float64))
    voters = sparse.csr_array(own + parents)
    heirs = sparse.csr_array((own + config.inherit * parents).T)
    step = max(1, BLOCK_PAIRS // len(vectors))
    return sparse.vstack(
        [
            _kept(voters[start : start + step] @ similarity @ heirs, start, learned, neighbours)
            for start in range(0, len(vectors), step)
        ],
        format="csr",
    )


def _kept(found: sparse.csr_array, start: int, learned: Bools, neighbours: int) -> sparse.csr_array:
    """Return rows `start:` without their diagonal and what is beyond the largest of each kind."""
    entries = sparse.coo_array(found)
    row, column, value = entries.row, entries.col, entries.data
    other = (row + start != column) & (value > 0)
    row, column, value = row[other], column[other], value[other]
    kept = largest(2 * row + learned[column], column, value, neighbours)
    return sparse.coo_array((value[kept], (row[kept], column[kept])), shape=found.shape).tocsr()


def _most_alike(
    vectors: Float32, items: Int64, among: Int64, count: int, power: float
) -> sparse.csr_array:
    """Return max(0, cos)^power of the `count` items of `among` most like each of `items`, itself aside,
    [V + 1, V + 1]; `among` are in order.
    """
    size, candidates = len(vectors), torch.from_numpy(vectors[among]).T  # [D, A]
    kept, step = min(count, len(among)), max(1, BLOCK_PAIRS // len(among))
    rows, columns, values = [], [], []
    for at in range(0, len(items), step):
        some = items[at : at + step]
        cosines = torch.from_numpy(vectors[some]) @ candidates  # [B, A]
        itself = np.flatnonzero(np.isin(some, among))
        cosines[itself, np.searchsorted(among, some[itself])] = 0.0
        best, where = cosines.topk(kept, dim=1)
        rows.append(some.repeat(kept))
        columns.append(among[where.flatten().numpy()])
        values.append((best.flatten().clamp(min=0) ** power).numpy())
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
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
