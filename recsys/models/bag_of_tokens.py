"""Bag of tokens: items whose texts share rare tokens with those of the history."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from torch import Tensor

from recsys.config import BagOfTokensConfig
from recsys.data.bags import inverse_frequency, token_counts, weighted_bags
from recsys.data.batches import SequenceBatch
from recsys.data.sequences import TrainingData
from recsys.errors import ArtifactError
from recsys.models.contract import CountingModel
from recsys.models.token_bags import bag_products, history_bags
from recsys.models.votes import csr_tensors, fill_up, popularity_fill


class BagOfTokens(CountingModel):
    """Scores item i by the cosine-like product of its bag with the history's,

        sum over the newest events j at distance d of decay^(d - 1) w_j.w_i

    of the unit-length bags of `recsys.data.bags`, whose idf is counted on the items with training events.
    Items that share no token with the history follow strictly below, by popularity.
    """

    indptr: Tensor  # int64 [V + 2]
    indices: Tensor  # int32 [nnz], tokens
    weights: Tensor  # float32 [nnz]
    fill: Tensor  # float32 [V + 1]

    def __init__(self, config: BagOfTokensConfig, n_items: int) -> None:
        super().__init__(n_items)
        self.max_length = config.history
        self.decay = config.decay
        self._keep(sparse.csr_array((n_items + 1, 1)), np.zeros(n_items + 1, dtype=np.int64))

    def _keep(
        self, bags: sparse.csr_array, item_counts: np.ndarray[tuple[int], np.dtype[np.int64]]
    ) -> None:
        tensors = (*csr_tensors(bags), popularity_fill(item_counts))
        for name, tensor in zip(("indptr", "indices", "weights", "fill"), tensors, strict=True):
            self.register_buffer(name, tensor)

    def fit(self, data: TrainingData) -> None:
        """Weigh the tokens of every item's sentence by how rare they are among the training items."""
        if data.sentences is None:
            raise ArtifactError(
                "the model reads sentences, and there are none; run the features stage"
            )
        popularity = data.item_counts()
        counts = token_counts(data.sentences)
        bags = weighted_bags(counts, inverse_frequency(counts, popularity > 0))
        self._keep(sparse.csr_array(bags), popularity)

    def score(self, batch: SequenceBatch, items: Tensor | None = None) -> Tensor:
        """Return the products, or the fill, float32 [B, C]."""
        bags = (self.indptr, self.indices, self.weights)
        size = int(self.indices.max()) + 1 if len(self.indices) else 1
        query = history_bags(batch.recent(self.max_length), self.decay, bags, size)  # [B, tokens]
        scores = fill_up(bag_products(query, bags), self.fill)  # [B, V + 1]
        return scores if items is None else scores[:, items]
