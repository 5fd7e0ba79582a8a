"""The catalogue: finding items by their texts, adding new ones, taking some out of all lists."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from recsys.growth import NewItem
from serving.access import may_change_state, may_read, service_of
from serving.errors import READ, WRITE
from serving.model import ServedModel
from serving.rules import MAX_ID, MAX_TEXT
from serving.write_schemas import FoundItems, ItemRequest, ItemResponse, RemovedResponse

router = APIRouter(prefix="/v1/items")
ItemId = Annotated[str, Path(min_length=1, max_length=MAX_ID, description="External item id.")]
Text = Annotated[str, Query(max_length=MAX_TEXT, description="Words, the last may be begun only.")]
ALIKE = 10
"""Items that a new one is placed by, where its texts decide."""


@router.get("", response_model=FoundItems, responses=READ, dependencies=[Depends(may_read)])
async def find_items(request: Request, q: Text) -> Response:
    """Find up to 20 items by words of their titles and other texts."""
    model = service_of(request).model
    found = await run_in_threadpool(lambda: model.words.search(q, 20))
    items = [{"item_id": item, "title": model.titles.get(item)} for item in found]
    return JSONResponse({"items": items})


@router.post(
    "",
    response_model=ItemResponse,
    status_code=201,
    responses=WRITE,
    dependencies=[Depends(may_change_state)],
)
async def add_item(body: ItemRequest, request: Request) -> Response:
    """Add an item, or say something new about one that was added. It is in lists at once.

    It stays across restarts and other models; one that knows the item itself takes over.
    """
    service = service_of(request)
    item, placed_by, unknown = await run_in_threadpool(_placed, body, service.model)
    if item is None:
        await run_in_threadpool(service.add_item, NewItem(body.item_id, body.attributes))
    else:
        await run_in_threadpool(service.add_item, item)
    content = {
        "item_id": body.item_id,
        "placed_by": placed_by,
        "like": [] if item is None else list(item.like),
        "unknown": unknown,
        "searchable": body.item_id not in service.model.grown.unplaced,
    }
    return JSONResponse(content, 201)


@router.delete(
    "/{item_id:path}",
    response_model=RemovedResponse,
    responses=WRITE,
    dependencies=[Depends(may_change_state)],
)
async def remove_item(item_id: ItemId, request: Request) -> Response:
    """Take an item out of all lists, for good, whatever models come. To add it again brings it back."""
    service = service_of(request)
    await run_in_threadpool(service.remove_item, item_id)
    known = not service.model.recommender.unknown_items([item_id])
    return JSONResponse({"item_id": item_id, "known": known})


def _placed(body: ItemRequest, model: ServedModel) -> tuple[NewItem | None, str, list[str]]:
    """Return the item, what decided its place, and unknown ids; None if the model knows it itself.

    Raises:
        HTTPException: nothing says where it stands.
    """
    base = model.base
    if base.item_ids.encode([body.item_id])[0] > 0:
        return None, "model", []
    if body.vector:
        width = None if base.index is None else base.index.width
        if len(body.vector) != width:
            takes = "takes no vectors" if width is None else f"has vectors of {width} numbers"
            raise HTTPException(
                422,
                f"vector has {len(body.vector)} numbers, but the model {takes}; send like instead",
            )
        item = NewItem(body.item_id, body.attributes, vector=tuple(body.vector))
        return item, "vector", []
    known = base.item_ids.encode(body.like)
    unknown = [name for name, index in zip(body.like, known, strict=True) if index == 0]
    if body.like:
        if len(unknown) == len(body.like):
            raise HTTPException(
                422, "none of the items in like is known; send ids of the catalogue"
            )
        return NewItem(body.item_id, body.attributes, like=tuple(body.like)), "like", unknown
    alike = model.words.alike(body.attributes, ALIKE)
    names, weights = zip(*alike, strict=True) if alike else ((), ())
    if model.texts.vector(body.attributes) is not None:
        return NewItem(body.item_id, body.attributes, names, weights, by_text=True), "text", []
    if not alike:
        raise HTTPException(
            422,
            "nothing says where the item stands: its texts share no telling word with the catalogue's; "
            "send like, a list of known items that it is like",
        )
    return NewItem(body.item_id, body.attributes, names, weights, by_text=True), "words", []
