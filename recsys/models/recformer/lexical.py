"""What the words of texts say beside an encoder: how like an item's bag of tokens is to the history's.

    lexical(i) = weight cos(sum_d decay^(d - 1) w_(s_d), w_i)

for the newest events s_1, s_2, ... and the unit bags w of `recsys.data.bags`. An encoder of few dozen
numbers finds what goes together, but not the rare word (a model's name, a size) that two texts share; a
bag finds that and nothing else. Its idf is counted on the texts of the items with training events; in a
catalogue that nobody has bought from, on all. The bags are made of the sentences that the model holds,
so of both only the idf is part of its state.

Shapes: B sequences, V items, M new items, T tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.config.recformer import LexicalConfig
from recsys.data.bags import Bag, Bools, inverse_frequency, token_counts, weighted_bags
from recsys.data.batches import SequenceBatch
from recsys.data.token_store import TokenStore
from recsys.models.token_bags import bag_products, history_bags
from recsys.models.votes import Csr, csr_tensors


class LexicalTerm(nn.Module):
    """The bags of a catalogue, and their cosines with those of histories."""

    idf: Tensor  # float32 [T]
    indptr: Tensor  # int64 [V + 2]
    indices: Tensor  # int32 [nnz], tokens
    weights: Tensor  # float32 [nnz]

    def __init__(self, config: LexicalConfig) -> None:
        super().__init__()
        self.config = config
        self._counts = sparse.csr_matrix((1, 1), dtype=np.float32)
        self._weigh(torch.zeros(1))

    def set_sentences(self, sentences: TokenStore) -> None:
        """Weigh the tokens of every item's sentence by how rare they are among all of these."""
        self._counts = token_counts(sentences)
        self.count(np.zeros(self._counts.shape[0], dtype=np.bool_))

    def count(self, learned: Bools) -> None:
        """Weigh them by how rare they are among the items `learned`, bool [V + 1]; if none is, among all."""
        with_text = np.diff(self._counts.indptr) > 0
        among = learned if learned.any() else with_text
        self._weigh(torch.from_numpy(inverse_frequency(self._counts, among)))

    def _weigh(self, idf: Tensor) -> None:
        device = self.indptr.device if hasattr(self, "indptr") else None
        self.register_buffer("idf", idf.to(device))
        bags = sparse.csr_array(weighted_bags(self._counts, idf.cpu().numpy()))
        for name, tensor in zip(("indptr", "indices", "weights"), csr_tensors(bags), strict=True):
            self.register_buffer(name, tensor.to(device), persistent=False)

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._weigh(self.idf)

    @property
    def bags(self) -> Csr:
        """One row an item, that of PAD empty."""
        return self.indptr, self.indices, self.weights

    def bags_of(self, sentences: TokenStore) -> list[Bag]:
        """Return the bags of the items of a store, weighted as the catalogue's are."""
        rows = self._weighted(sentences)[1:]
        return [tuple(zip(row.indices.tolist(), row.data.tolist(), strict=True)) for row in rows]

    def _weighted(self, sentences: TokenStore) -> sparse.csr_matrix:
        return weighted_bags(token_counts(sentences), self.idf.cpu().numpy())

    def queries(self, batch: SequenceBatch) -> Tensor:
        """Return the histories' unit bags times the weight, float32 [B, T]; 0 for an empty one."""
        config = self.config
        recent, size = batch.recent(config.history), max(1, len(self.idf))
        found = history_bags(recent.clamp(min=0), config.decay, self.bags, size)
        if batch.texts is not None and (recent < 0).any():
            texts, places = batch.texts.only((-recent).clamp(min=0).cpu().numpy())
            bags = csr_tensors(sparse.csr_array(self._weighted(texts)))
            indptr, indices, weights = (part.to(recent.device) for part in bags)
            own = torch.from_numpy(places).to(recent.device)
            found += history_bags(own, config.decay, (indptr, indices, weights), size)
        return config.weight * F.normalize(found, dim=1)

    def bonus(self, batch: SequenceBatch, items: Tensor | None = None) -> Tensor:
        """Return the term, float32 [B, C], for items [C], or [B, C] row by row; of all by default."""
        found = bag_products(self.queries(batch), self.bags)  # [B, V + 1]
        if items is None:
            return found
        return found[:, items] if items.dim() == 1 else found.gather(1, items)

    def candidates(self, batch: SequenceBatch, count: int) -> Tensor:
        """Return the items of the largest term, int64 [B, count or fewer], 0 where it is 0."""
        found = self.bonus(batch)
        best = found.topk(min(count, found.shape[1]), dim=1)
        return torch.where(best.values > 0, best.indices, 0)
