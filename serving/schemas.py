"""What the endpoint accepts and answers: the request and response bodies, with their limits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StringConstraints, model_validator

MAX_K = 1000
MAX_IDS = 10_000
"""Ids in one list of a request."""
MAX_SIMILAR = 100
MAX_HISTORY = 1000
"""Newest history events that are used; older ones are dropped and counted in the answer."""
MAX_TIME = 2**53

Text = Annotated[str, StringConstraints(min_length=1, max_length=512, strict=True)]
Id = Text | StrictInt
"""An external id; a whole number is taken as its decimal text."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Event(_Body):
    """A history event with its time."""

    item: Id
    time: Annotated[int, Field(strict=True, ge=-MAX_TIME, le=MAX_TIME)] = Field(
        description="Seconds since 1970; the history is sorted by it."
    )


class RecommendRequest(_Body):
    """Ask for a list: exactly one of `history` and `user_id`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"history": ["318", "296", "593"], "k": 5},
                {"history": [{"item": "318", "time": 1767225600}], "exclude": ["593"]},
                {"history": ["318", "296", "593"], "baskets": ["may", "may", "june"]},
                {"user_id": "15", "k": 20, "exclude_seen": False},
            ]
        }
    )

    history: Annotated[list[Id] | list[Event], Field(max_length=MAX_IDS)] | None = Field(
        None,
        description=f"Item ids, oldest first, or items with times. The newest {MAX_HISTORY} count.",
    )
    baskets: Annotated[list[Id], Field(max_length=MAX_IDS)] | None = Field(
        None,
        description=(
            "A label for each item of the history, equal for items that were one basket; read by "
            "models of baskets as sets only, which otherwise go by the times, if there are any."
        ),
    )
    user_id: Id | None = Field(None, description="A user whose recent events are in the bundle.")
    k: Annotated[int, Field(strict=True, ge=1, le=MAX_K)] = 10
    exclude: Annotated[list[Id], Field(max_length=MAX_IDS)] = Field(
        default=[], description="Items never wanted."
    )
    allow: Annotated[list[Id], Field(max_length=MAX_IDS)] | None = Field(
        None, description="Recommend among these items only."
    )
    exclude_seen: Annotated[bool, Field(strict=True)] = True

    @model_validator(mode="after")
    def _one_source(self) -> RecommendRequest:
        if (self.history is None) == (self.user_id is None):
            found = "neither" if self.history is None else "both"
            raise ValueError(f"give exactly one of history and user_id (got {found})")
        return self

    @model_validator(mode="after")
    def _a_basket_for_each_item(self) -> RecommendRequest:
        if self.baskets is None:
            return self
        if self.history is None:
            raise ValueError("baskets belong to a history; a user_id has its own")
        if len(self.baskets) != len(self.history):
            raise ValueError(
                f"{len(self.baskets)} baskets for a history of {len(self.history)} items; "
                "give one for each item"
            )
        return self


class SimilarRequest(_Body):
    """Ask for the items most like each of some items."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"items": ["318", "296"], "k": 5}]})

    items: Annotated[list[Id], Field(min_length=1, max_length=MAX_SIMILAR)]
    k: Annotated[int, Field(strict=True, ge=1, le=MAX_K)] = 10


class ModelVersion(BaseModel):
    """Which model answered."""

    name: str
    version: str = Field(description="Content hash of its bundle.")


class RankedItem(BaseModel):
    """One place of a list."""

    item: str
    score: float
    rank: int = Field(description="From 1.")
    title: str | None = Field(None, description="Present where the catalogue has titles.")


class RecommendResponse(BaseModel):
    """A ranked list and what had to be done to make it."""

    model: ModelVersion
    items: list[RankedItem]
    unknown: list[str] = Field(description="History ids that the catalogue does not hold.")
    unknown_allowed: list[str] = Field(description="The same for `allow`.")
    dropped_history: int = Field(description="Oldest events beyond the limit, not used.")
    fallback: Literal["empty_history", "unknown_history", "unknown_user"] | None = Field(
        description="Why this is the default list of an empty history, or null."
    )


class SimilarList(BaseModel):
    """The items most like one item."""

    item: str
    items: list[RankedItem]


class SimilarResponse(BaseModel):
    """One list for every known item, in the order asked."""

    model: ModelVersion
    lists: list[SimilarList]
    unknown: list[str]


class Problem(BaseModel):
    """One thing wrong with a request."""

    place: str
    problem: str
    got: str | None = None


class ErrorResponse(BaseModel):
    """Why a request was not answered."""

    error: str
    problems: list[Problem] = []
