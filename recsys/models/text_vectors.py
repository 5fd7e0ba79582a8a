"""Text vectors as they are: items whose text is near the mean of the history's texts."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.config import TextVectorsConfig
from recsys.data.batches import SequenceBatch
from recsys.data.sequences import TrainingData
from recsys.models.contract import CountingModel, EncoderModel
from recsys.models.layers import causal_segment_mask
from recsys.models.text_votes import vectors_of


class TextVectors(CountingModel, EncoderModel):
    """Scores item i by t_i.q, with q the unit-length sum over the newest events j at distance d of
    decay^(d - 1) t_j. An empty history has the mean text of the training events.
    """

    vectors: Tensor  # float32 [V + 1, D]

    def __init__(self, config: TextVectorsConfig, n_items: int) -> None:
        EncoderModel.__init__(self, n_items, config.vectors.width or 1)
        self.max_length = config.history
        self.decay = config.decay
        self.register_buffer("vectors", torch.zeros(n_items + 1, self.width))

    def fit(self, data: TrainingData) -> None:
        """Take the text vectors over; only an empty history's query is made of the training events."""
        self.vectors = torch.from_numpy(np.array(vectors_of(data), dtype=np.float32))
        self.width = self.vectors.shape[1]
        popularity = torch.from_numpy(data.item_counts()).float()
        self.default_query = F.normalize(popularity @ self.vectors, dim=0)

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: object, **kwargs: object
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self.width = self.vectors.shape[1]

    def hidden(self, batch: SequenceBatch) -> Tensor:
        """Return the query of the history up to every place, float [R, L, D]."""
        age = batch.positions[:, :, None] - batch.positions[:, None, :]  # [R, L, L]
        inside = causal_segment_mask(batch.segments)[:, 0] & (age < self.max_length)
        weight = torch.where(inside, self.decay ** age.clamp(min=0).float(), 0.0)
        return F.normalize(weight @ self.vectors[batch.items], dim=-1)

    def encode_items(self, items: Tensor | None = None) -> Tensor:
        """Return the text vectors, float [C, D]."""
        return self.vectors if items is None else self.vectors[items]

    def encode_texts(self, vectors: Tensor) -> Tensor:
        """Return item vectors of new items by their text vectors [M, D]: these themselves."""
        return vectors
