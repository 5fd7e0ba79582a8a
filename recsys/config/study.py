"""A study: models of several experiments, trained by several seeds, compared with one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from recsys.config.section import NAME, Count, Section


class StudyConfig(Section):
    """What `recsys study` reads.

    A cell is a set, a model and a seed: its experiment with that model alone, up to the evaluation on the
    test targets. A model that a set's experiment does not have is left out there; models that have equal
    settings there are trained once.
    """

    name: str = Field(pattern=NAME)
    output: Path = Path("out")
    """The study is written below `output/name`, the experiments' stages below `output/name/runs`."""
    sets: Annotated[dict[Annotated[str, Field(pattern=NAME)], Path], Field(min_length=1)]
    """Names of data sets and the configurations of their experiments, each run under its set's name."""
    models: Annotated[list[str], Field(min_length=1)]
    """Trained by every seed, in the order in which their figures are worth having."""
    baseline: str
    """What the others are compared with; one of `models`."""
    once: list[str] = []
    """Models that draw nothing, counts say: the first seed's run is compared with every seed of others."""
    against: dict[str, list[str]] = {}
    """Further comparisons, ablations above all: a model and those that are compared with it, on the sets
    that have both. What is named here alone is trained by the first seed, and not compared with the
    baseline unless that is named here."""
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0, 1, 2]
    k: Count = 10
    """Cut-off of the NDCG that is compared."""
    slices: bool = True
    """Also compare by the uniformity of histories (fifths) and the frequency of items (thirds). Cells hold
    the slices in any case, so it can be changed later."""

    @model_validator(mode="after")
    def _fits_together(self) -> StudyConfig:
        if self.baseline not in self.models:
            raise ValueError(
                f"baseline is {self.baseline}, which is none of models ({', '.join(self.models)})"
            )
        if both := sorted(set(self.models) & set(self.once)):
            raise ValueError(f"{', '.join(both)} cannot be in both models and once; leave one out")
        named = {name: getattr(self, name) for name in ("seeds", "models", "once")}
        named |= {f"against.{name}": [name, *others] for name, others in self.against.items()}
        for name, values in named.items():
            if len(set(values)) < len(values):
                raise ValueError(f"{name} names something twice: {values}")
        return self

    @property
    def only_against(self) -> list[str]:
        """The models that `against` alone names, each once."""
        named = [name for whole, others in self.against.items() for name in (whole, *others)]
        return [name for name in dict.fromkeys(named) if name not in (*self.models, *self.once)]
