"""What is asked and answered about continuations: lists that may follow a history, in order."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serving.rules import MAX_GAP, MAX_REQUIRED, MAX_STEPS, Id, refusal
from serving.schemas import (
    Candidates,
    Diversity,
    HistoryBody,
    ModelVersion,
    Source,
    TextBody,
    Width,
    check_width,
)


class ContinueRequest(HistoryBody):
    """Ask for several lists that may follow a history."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"history": ["318", "296"], "steps": 10, "groups": 4, "beams": 2, "diversity": 0.5},
                {"history": ["318"], "previous": [["296", "593"], ["50", "260"]], "steps": 5},
                {"user_id": "15", "steps": 5, "exclude": ["593"], "required": ["50"]},
            ]
        }
    )

    steps: Annotated[int, Field(strict=True, ge=1, le=MAX_STEPS)] = Field(
        10, description="Items of each list."
    )
    groups: Width = Field(
        4, description="Groups of lists; later ones avoid what earlier ones chose."
    )
    beams: Width = Field(2, description="Lists of each group.")
    diversity: Diversity = Field(0.5, description="How hard groups avoid each other, in nats.")
    dissimilarity: Literal["hamming", "presence", "cumulative", "ngram", "vector", "category"] = (
        Field("hamming", description="What counts as alike; `category` goes by `label`.")
    )
    candidates: Candidates = Field(500, description="Items that compete at each place.")
    required: Annotated[list[Id], Field(max_length=MAX_REQUIRED)] = Field(
        default=[], description="Items that every list must hold."
    )
    at_most: Annotated[
        dict[
            Annotated[str, Field(min_length=1, max_length=200)],
            Annotated[int, Field(strict=True, ge=1, le=MAX_STEPS)],
        ],
        Field(max_length=5),
    ] = Field(default={}, description="Items of one value of an attribute, as {'artist': 2}.")
    label: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    gap: Annotated[float, Field(ge=0, le=MAX_GAP, allow_inf_nan=False)] | None = Field(
        None, description="Seconds between the items; by default the median gap of the history."
    )

    @model_validator(mode="after")
    def _a_search_that_fits(self) -> Self:
        check_width(self.groups, self.beams, self.candidates)
        if len(set(self.required)) > self.steps:
            raise refusal(
                f"has {len(set(self.required))} required items for lists of {self.steps}",
                "at most as many required items as steps",
                "send fewer of them, or more steps",
            )
        return self


class PlacedItem(BaseModel):
    """One place of a list that may follow."""

    item_id: str
    score: float | None = Field(
        description="The item's log-probability given what comes before it; null as that of the list."
    )
    rank: int = Field(description="From 1.")
    title: str | None = Field(None, description="Present where the catalogue has titles.")


class ContinuedListBody(BaseModel):
    """One list that may follow."""

    items: list[PlacedItem] = Field(description="In order.")
    log_probability: float | None = Field(description="Null where `source` is not the model.")
    score: float | None = Field(description="The log-probability less penalties.")
    group: int = Field(description="From 1; the first group is not penalised.")


class ContinueResponse(BaseModel):
    """The lists: the best of every group, then the second of every group, and so on."""

    request_id: str
    model: ModelVersion
    source: Source
    history_source: Literal["request", "bundle", "feature_store", "live_events", "none"]
    lists: list[ContinuedListBody]
    exact: bool = Field(description="Whether log-probabilities are normalised exactly.")
    unknown: list[str]
    unknown_allowed: list[str]
    unknown_excluded: list[str]
    unknown_previous: list[str]
    dropped_previous: int = Field(
        description="Oldest lists of `previous` that were not read; all, if what answered reads none."
    )
    texts: list[TextBody]
    fallback: Literal["empty_history", "unknown_history", "unknown_user"] | None
