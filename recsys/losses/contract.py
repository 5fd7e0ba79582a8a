"""What every training loss answers."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from recsys.data.item_sets import ItemSets


class Loss(nn.Module, ABC):
    """A loss of next-item prediction over a catalogue of items 1..V (0 is PAD).

    It owns no weights; losses that draw negatives own a seeded generator.
    """

    @abstractmethod
    def forward(self, queries: Tensor, targets: Tensor, table: Tensor) -> Tensor:
        """Return the mean loss over T tokens, a scalar; no tokens cost 0.

        Args:
            queries: float [T, D], one sequence vector per token.
            targets: int64 [T], the item to predict, 1..V.
            table: float [V + 1, D], item vectors; row 0 (PAD) never competes and gets no gradient.
        """

    def reseed(self, seed: int) -> None:
        """Restart the negative sampler; a loss without one does nothing."""
        del seed


class SetLoss(nn.Module, ABC):
    """A loss of predicting a whole set over a catalogue of items 1..V; else as `Loss`."""

    @abstractmethod
    def forward(self, queries: Tensor, sets: ItemSets, table: Tensor) -> Tensor:
        """Return the mean loss over T tokens, a scalar; no tokens cost 0.

        Args:
            queries: float [T, D], one sequence vector per token.
            sets: the T sets to predict; an empty one costs 0.
            table: float [V + 1, D], item vectors; row 0 (PAD) never competes and gets no gradient.
        """

    def reseed(self, seed: int) -> None:
        """Restart the negative sampler; a loss without one does nothing."""
        del seed
