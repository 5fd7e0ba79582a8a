"""What is asked and answered about published playlists: like a list, for a song, and songs for one."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serving.rules import MAX_IDS as MAX_SONGS
from serving.rules import MAX_K, AtOnce, Id, Ids, refusal
from serving.schemas import Body, ModelVersion, RankedItem, Source

K = Annotated[int, Field(strict=True, ge=1, le=MAX_K)]


class ListBody(Body):
    """The part of a request that says which list is meant."""

    items: Annotated[list[Id], Field(max_length=MAX_SONGS), AtOnce] | None = Field(
        None,
        description=(
            "Item ids in the list's order. One that stands twice counts twice; of a list longer than the "
            "model reads the last ones count, and `dropped` says how many did not."
        ),
    )
    playlist: Id | None = Field(None, description="A published playlist.")

    @model_validator(mode="after")
    def _one_list(self) -> Self:
        if (self.items is None) == (self.playlist is None):
            found = "neither" if self.items is None else "both"
            raise refusal(
                f"has {found} of items and playlist",
                "exactly one of items and playlist",
                "send items, or playlist for one that is published",
            )
        return self


class SimilarPlaylistsRequest(ListBody):
    """Ask for published playlists like a list."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"items": ["318", "296"], "k": 5}, {"playlist": "15", "k": 5}]
        }
    )

    k: K = 10


class PlaylistSongsRequest(ListBody):
    """Ask for songs that a list may go on with."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"playlist": "15", "k": 20, "exclude": ["593"]}]}
    )

    k: K = 10
    exclude: Ids = Field(default=[], description="Items never wanted.")


class PlaylistsForSongRequest(Body):
    """Ask for published playlists that a song may go into."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"item": "318", "k": 5, "holding": "without"}]}
    )

    item: Id
    k: K = 10
    holding: Literal["any", "without", "with"] = Field(
        "without", description="Only playlists without the song, only those with it, or any."
    )


class RankedPlaylist(BaseModel):
    """One place of the answer."""

    playlist: str
    score: float
    rank: int = Field(description="From 1.")
    holds: bool | None = Field(None, description="Whether it holds the song that was asked about.")


class PlaylistsResponse(BaseModel):
    """Playlists, best first; none where nothing known was asked, and `fallback` says why."""

    request_id: str
    model: ModelVersion
    source: Literal["model", "shared_songs", "item_to_item", "shared_lists"] = Field(
        description=(
            "What made the list: the model, or what stands in for one that failed, by songs in common or "
            "alike. Then scores are 1 / rank, and playlists with nothing in common are left out."
        )
    )
    playlists: list[RankedPlaylist]
    unknown: list[str] = Field(description="Ids that the catalogue does not hold.")
    repeated: int = Field(description="Items of the list that had stood in it before.")
    dropped: int = Field(description="Oldest items of the list that the model does not read.")
    fallback: Literal["empty_history", "unknown_history"] | None


class PlaylistSongsResponse(BaseModel):
    """Songs for a playlist, best first, none of those that it holds."""

    request_id: str
    model: ModelVersion
    source: Source
    items: list[RankedItem]
    unknown: list[str]
    unknown_excluded: list[str]
    fallback: Literal["empty_history", "unknown_history"] | None
