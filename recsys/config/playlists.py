"""Models of whole lists: autoencoders that read and write them, and encoders of sets."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from recsys.config.section import Section
from recsys.config.sets import DeepSetsConfig, SetEncoderConfig
from recsys.config.training import TrainingConfig
from recsys.config.votes import VotesConfig


class Seq2SeqConfig(Section):
    """An encoder that makes one vector of a list, and a decoder that writes lists from it."""

    kind: Literal["seq2seq"] = "seq2seq"
    cell: Literal["gru", "lstm", "transformer"] = "gru"
    bidirectional: bool = True
    """The encoder also reads from the end, each direction with half of `hidden` (bi-seq2seq). A
    transformer's encoder always sees both ways."""
    attention: bool = True
    """The decoder also looks at the encoder's places; without, the list's vector is all it gets."""
    width: int = Field(64, ge=1)
    """Song-vector size (D)."""
    hidden: int = Field(256, ge=2)
    """Size of a list's vector and of the states."""
    layers: int = Field(1, ge=1)
    heads: int = Field(4, ge=1)
    """Of a transformer."""
    max_length: int = Field(50, ge=1)
    """Newest songs of a list that are read."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Of song vectors, and between layers."""
    task: Literal["reconstruct", "continue", "both"] = "both"
    """Write the same list again, write the rest of a list that was cut at random, or learn both.
    `reconstruct` alone learns nothing of what follows: no validation chooses its epoch, the last one
    stays."""
    song_vectors: Path | None = None
    """Parquet of `item_id` and `vector` (a list of `width` numbers) that songs begin with."""
    learn_songs: bool = True
    """Whether song vectors are trained."""
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> Seq2SeqConfig:
        if self.cell == "transformer" and self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        if self.cell != "transformer" and self.bidirectional and self.hidden % 2:
            raise ValueError(f"hidden ({self.hidden}) must be even: half of it for each direction")
        training = self.training
        if training.repeats != "keep":
            raise ValueError(
                f"training.repeats is {training.repeats}, but seq2seq writes whole lists; leave it at "
                "keep"
            )
        if training.objective not in ("next_event", "rest_set"):
            raise ValueError(
                f"training.objective is {training.objective}, but seq2seq writes whole lists; use "
                "next_event, or rest_set for what is left of a list as a set"
            )
        if training.objective == "rest_set" and self.task != "continue":
            raise ValueError(
                f"training.objective is rest_set, but task is {self.task}: only the rest of a list that "
                "was cut can be a set; use task: continue"
            )
        if training.recency_half_life is not None:
            raise ValueError(
                "training.recency_half_life leaves out single targets, but seq2seq writes whole lists; "
                "leave it out"
            )
        _check_songs(self.song_vectors, self.learn_songs)
        return self


class SetModelConfig(Section):
    """The events of a history as a set, without an order; their vector asks for what follows."""

    kind: Literal["set"] = "set"
    encoder: SetEncoderConfig = DeepSetsConfig()
    max_length: int = Field(50, ge=1)
    """Newest events of a history that are in the set."""
    prefixes: int = Field(8, ge=1)
    """Places of a sequence that learn in a step, on average, drawn anew each time: every place has a
    set of its own to be encoded."""
    song_vectors: Path | None = None
    """Parquet of `item_id` and `vector` (a list of `encoder.width` numbers) that items begin with."""
    learn_songs: bool = True
    """Whether item vectors are trained."""
    votes: VotesConfig | None = None
    """Neighbours of the newest events score, too, re-scored on the shortlist."""
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> SetModelConfig:
        _check_songs(self.song_vectors, self.learn_songs)
        return self

    @property
    def width(self) -> int:
        """Item-vector size (D)."""
        return self.encoder.width


def _check_songs(vectors: Path | None, learn: bool) -> None:
    if vectors is None and not learn:
        raise ValueError("learn_songs is false, so the vectors must be given: set song_vectors")
