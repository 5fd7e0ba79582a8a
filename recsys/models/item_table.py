"""Item tables: a vector for every item, its own or made of what is written about it.

    m_i = e_i + f(t_i)      `add`: own vector plus a learned map of the text's
    m_i = f(t_i)            `only`

t_i stay as they are; f is linear, or has one hidden layer. A new item has f(t), and no vector of its own.
Shapes: V items, W text width, D width.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from recsys.config import TextItems
from recsys.data.sequences import TrainingData
from recsys.errors import ArtifactError
from recsys.schema import PAD


class ItemTable(nn.Embedding):
    """Vectors of their own; with `text.mode: initialise` they begin as the texts'."""

    def __init__(self, n_items: int, width: int) -> None:
        super().__init__(n_items + 1, width, padding_idx=PAD)

    def read_texts(self, vectors: Tensor) -> None:
        """Begin as these vectors [V + 1, D], scaled to the size of drawn ones."""
        if vectors.shape != self.weight.shape:
            raise ArtifactError(
                f"text.mode: initialise puts text vectors of {vectors.shape[1]} numbers into item "
                f"vectors of {self.weight.shape[1]}; set text.vectors.width to the model's width"
            )
        with torch.no_grad():
            self.weight.copy_(vectors * self.weight.std() / vectors[1:].std().clamp(min=1e-12))
            self.weight[PAD].zero_()


class TextItemTable(nn.Module):
    """Vectors made of texts, alone or beside own ones; used like an embedding."""

    texts: Tensor  # float32 [V + 1, W]

    def __init__(self, config: TextItems, n_items: int, width: int) -> None:
        super().__init__()
        size = config.vectors.width
        assert size is not None, "the configuration has checked it"
        self.own = ItemTable(n_items, width) if config.mode == "add" else None
        self.map = _text_map(size, config.inner, width)
        self.register_buffer("texts", torch.zeros(n_items + 1, size))

    @property
    def weight(self) -> Tensor:
        """All vectors, float [V + 1, D]; PAD's is zero."""
        made = self.of_texts(self.texts)
        return made if self.own is None else made + self.own.weight

    def forward(self, items: Tensor) -> Tensor:
        """Return vectors float [..., D] of items of any shape."""
        if items.numel() > len(self.texts):  # cheaper to map every text once
            return nn.functional.embedding(items, self.weight)
        made = self.of_texts(self.texts[items])
        return made if self.own is None else made + self.own(items)

    def of_texts(self, vectors: Tensor) -> Tensor:
        """Return what texts alone make of items, float [..., D], of text vectors [..., W]."""
        mapped: Tensor = self.map(vectors)
        return mapped

    def read_texts(self, vectors: Tensor) -> None:
        """Take over the text vectors [V + 1, W]."""
        if vectors.shape != self.texts.shape:
            raise ArtifactError(
                f"the model reads text vectors of shape {tuple(self.texts.shape)}, but these are "
                f"{tuple(vectors.shape)}; run the features stage again"
            )
        self.texts.copy_(vectors)


def item_table(config: TextItems | None, n_items: int, width: int) -> ItemTable | TextItemTable:
    """Return the table of a model's items, drawn by the model."""
    if config is None or config.mode == "initialise":
        return ItemTable(n_items, width)
    return TextItemTable(config, n_items, width)


def read_texts(model: nn.Module, data: TrainingData) -> None:
    """Give a model's item table the text vectors of its training data, if there are any."""
    if data.item_vectors is None:
        return
    table = model.get_submodule("item_table")
    assert isinstance(table, ItemTable | TextItemTable)
    table.read_texts(torch.from_numpy(np.array(data.item_vectors, dtype=np.float32)))


def _text_map(size: int, inner: int, width: int) -> nn.Module:
    if inner == 0:
        return nn.Linear(size, width, bias=False)
    hidden = nn.Linear(size, inner, bias=False)
    return nn.Sequential(hidden, nn.GELU(), nn.Linear(inner, width, bias=False))
