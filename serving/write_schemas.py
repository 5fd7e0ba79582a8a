"""What clients may tell the endpoint: events, new items, and what is answered."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from serving.rules import (
    ALLOWED,
    MAX_ATTRIBUTES,
    MAX_EVENTS,
    MAX_LIKE,
    MAX_NUMBER,
    MAX_TEXT,
    MAX_TIME,
    MAX_VECTOR,
    Id,
    refusal,
)
from serving.schemas import Body

DAY = 86_400


def _not_in_the_future(seconds: int) -> int:
    if seconds > time.time() + DAY:
        raise refusal(
            "lies more than a day in the future",
            ALLOWED["time"],
            "send seconds (not milliseconds) since 1970; check the clock",
        )
    return seconds


Past = Annotated[
    int, Field(strict=True, ge=-MAX_TIME, le=MAX_TIME), AfterValidator(_not_in_the_future)
]


class NewEvent(Body):
    """One event that just happened."""

    user_id: Id
    item: Id
    time: Past | None = Field(None, description="Seconds since 1970; now, if left out.")
    event_id: Id | None = Field(
        None,
        description=(
            "The client's own name of the event: sent again, it counts once. Without it, events of one "
            "user, item and time are one; so give it or the time, to be able to repeat a request."
        ),
    )
    request_id: Id | None = Field(
        None, description="Of the answer in which the item was shown, if it was in one."
    )


class EventsRequest(Body):
    """Say what happened; it is in the next answer for these users."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"events": [{"user_id": "15", "item": "318", "event_id": "click-8731"}]},
                {"events": [{"user_id": "15", "item": "296", "time": 1767225600}]},
            ]
        }
    )

    events: Annotated[list[NewEvent], Field(min_length=1, max_length=MAX_EVENTS)]


class EventsResponse(BaseModel):
    """What was written; it is on the disk."""

    accepted: int = Field(description="Events that are new.")
    repeated: int = Field(description="Events that were known already.")
    unknown: list[str] = Field(description="Items that the catalogue does not hold (yet).")


class ItemRequest(Body):
    """A new item, and where it stands among the known ones."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"item_id": "new-1", "attributes": {"title": "Heat 2"}, "like": ["6", "110"]},
                {"item_id": "new-2", "attributes": {"title": "The Matrix: Origins"}},
            ]
        }
    )

    item_id: Id
    attributes: Annotated[
        dict[
            Annotated[str, Field(min_length=1, max_length=MAX_TEXT)],
            Annotated[str, Field(max_length=MAX_TEXT)],
        ],
        Field(max_length=MAX_ATTRIBUTES),
    ] = Field(default={}, description="Texts, such as its title.")
    like: Annotated[list[Id], Field(max_length=MAX_LIKE)] = Field(
        default=[],
        description=(
            "Known items that it is like: it is recommended where they are. Without them and a vector, "
            "those with which its texts have most in common."
        ),
    )
    vector: Annotated[
        list[Annotated[float, Field(ge=-MAX_NUMBER, le=MAX_NUMBER, allow_inf_nan=False)]],
        Field(max_length=MAX_VECTOR),
    ] = Field(default=[], description="An item vector of the model's own space, instead of `like`.")

    @model_validator(mode="after")
    def _one_place(self) -> ItemRequest:
        if self.like and self.vector:
            fix = "send like, or vector, or neither to go by the texts"
            raise refusal("has both of like and vector", "at most one of the two", fix)
        if self.vector and not any(self.vector):
            raise refusal("has a vector of zeros", ALLOWED["vector"], "leave the vector out")
        return self


class ItemResponse(BaseModel):
    """Where the item stands now."""

    item_id: str
    placed_by: Literal["like", "vector", "text", "words", "model"] = Field(
        description=(
            "`text`: the model has read its texts; `words`: items with the same words decided; `model`: "
            "the published model knows the item itself."
        )
    )
    like: list[str] = Field(description="Items that it is recommended like, most alike first.")
    unknown: list[str] = Field(description="Ids in `like` that the catalogue does not hold.")
    searchable: bool = Field(description="Whether it is in lists from now on.")


class RemovedResponse(BaseModel):
    """An item that is in no list any more."""

    item_id: str
    known: bool = Field(description="Whether the catalogue holds it; if not, the id is kept away.")


class DeletedResponse(BaseModel):
    """A user of whom nothing is used any more."""

    user_id: str
    deleted: bool


class FoundItem(BaseModel):
    """An item of the catalogue."""

    item_id: str
    title: str | None = None


class FoundItems(BaseModel):
    """Items whose texts have the words that were looked for."""

    items: list[FoundItem]


class ReloadResponse(BaseModel):
    """What came of looking for another model."""

    result: Literal["loaded", "unchanged", "refused"]
    name: str
    version: str = Field(description="Of the model that answers now.")
    reason: str | None = Field(None, description="Why a bundle was refused.")
